"""A server that ends, or gives its place to another one, while a run goes on: named at once, with what to do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from serving import fake_vllm, simulated

from tautools.llm import Retry
from tautools.params.models import RunParams
from tautools.run import CellResult, read_calls, run_cell
from tautools.servers import launch, open_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tautools.servers import Server

QUICK = Retry(attempts=3, first_wait_s=0.05, most_wait_s=0.05)
CONCURRENCY = 4


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "work space"
    folder.mkdir()
    return folder


@pytest.fixture
def start(workspace: Path) -> Iterator[Callable[..., Server]]:
    """Start simulated servers of one model, of the names given, that are verified; all are ended at the end."""
    started: list[Server] = []

    def launch_named(name: str) -> Server:
        server = launch(simulated("sim"), workspace=workspace, name=name)
        started.append(server)
        return server.wait_ready()

    yield launch_named
    for server in started:
        server.stop(term_s=0.5)


def run_until(workspace: Path, happens: Callable[[], None], **fields: Any) -> CellResult:
    """Run a cell, and do something once its first conversation has ended."""
    role = {"model": "sim-model"}
    params = {"env": "retail", "agent": role, "user": role, "concurrency": CONCURRENCY, "tasks": {"limit": 40}} | fields
    seen: list[str] = []

    def on_event(event: Any) -> None:
        if event.kind == "done" and not seen:
            seen.append(event.kind)
            happens()

    return run_cell(RunParams.model_validate(params), workspace=workspace, on_event=on_event, retry=QUICK)


def killed(server: Server) -> Callable[[], None]:
    return lambda: os.kill(server.record.pid or 0, signal.SIGKILL)


def failed_calls(result: CellResult) -> int:
    return sum(bool(call.fault) for call in read_calls(result.folder))


def test_a_server_killed_in_mid_run_is_named_at_once_with_its_state_and_the_command(
    workspace: Path, start: Callable[..., Server]
) -> None:
    result = run_until(workspace, killed(start("one")))

    assert result.pending > 0
    assert result.done + result.pending == 40
    assert "one is failed: It was ended by signal 9" in result.cause
    assert "`tautools server restart one`" in result.cause
    assert "`tautools server logs one`" in result.cause
    assert "URL" not in str(result)
    assert failed_calls(result) <= 2 * CONCURRENCY, (
        "one broken stream and one refused connection a conversation at most"
    )
    assert set(result.fault_kinds) == {"server_gone"}


def test_of_replicas_the_others_go_on(workspace: Path, start: Callable[..., Server]) -> None:
    left, _ = start("left"), start("right")

    result = run_until(workspace, killed(left))

    assert (result.done, result.pending, result.faults) == (40, 0, 0)


def test_when_the_last_replica_ends_each_is_named(workspace: Path, start: Callable[..., Server]) -> None:
    both = start("left"), start("right")

    result = run_until(workspace, lambda: [killed(server)() for server in both] and None)

    assert "left is failed" in result.cause
    assert "right is failed" in result.cause


def test_a_server_that_somebody_stops_is_missed_by_its_name(workspace: Path, start: Callable[..., Server]) -> None:
    start("one")

    result = run_until(workspace, lambda: open_server("one", workspace=workspace).stop(term_s=0.2))

    assert set(result.fault_kinds) == {"server_gone"}
    assert "one is stopping" in result.cause or "No running server serves 'sim-model', which the" in result.cause
    assert "NAME" not in result.cause


def test_another_server_in_its_place_is_not_asked_again(workspace: Path, start: Callable[..., Server]) -> None:
    server = start("one")
    port = int(server.record.base_url.split(":")[2].removesuffix("/v1"))
    theirs: list[Server] = []

    def replace() -> None:
        killed(server)()
        other = launch(fake_vllm("other", port=port, modes="open"), workspace=workspace.with_name("theirs"))
        theirs.append(other)
        while "answering" not in other.state().stage:
            pass

    try:
        result = run_until(workspace, replace)
    finally:
        for other in theirs:
            other.stop(term_s=0.2)

    assert "one is failed" in result.cause
    assert set(result.fault_kinds) == {"server_gone"}


def test_an_address_that_refuses_is_named_and_not_asked_by_every_conversation(
    workspace: Path, start: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start("one")
    there = server.endpoint()
    monkeypatch.setenv("MY_KEY", there.key)
    role = {"model": "sim-model", "base_url": there.base_url, "api_key_env": "MY_KEY"}

    result = run_until(tmp_path / "mine", killed(server), agent=role, user=role)

    assert f" at {there.base_url}" in result.cause
    assert "Nothing answers for the " in result.cause
    assert f"`tautools server test {there.base_url}`" in result.cause
    assert "URL" not in str(result)
    assert failed_calls(result) <= 2 * CONCURRENCY
    assert result.done + result.pending == 40


def test_a_server_of_a_terminal_that_is_gone_is_named_without_its_exit_status(workspace: Path) -> None:
    words = [sys.executable, "-m", "tautools", "server", "up", "sim-small", "--speed", "100", "--workspace", workspace]
    subprocess.run(list(map(str, words)), check=True, capture_output=True)  # nobody is left who could see how it ends
    server = open_server("sim-small", workspace=workspace)
    role = {"model": server.record.model}
    try:
        result = run_until(workspace, killed(server), agent=role, user=role)
    finally:
        server.stop(term_s=0.2)

    assert "sim-small is failed: Its process has ended without a word in its log" in result.cause
    assert "`tautools server logs sim-small`. Start it again with `tautools server restart sim-small`." in result.cause
    assert " ID" not in result.cause
