"""What is never called READY: each on real processes, by the state, the registry and the role that asks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from serving import FAKE_VLLM, fake_vllm

from tautools.errors import NotReadyError, ServerError, VerifyError
from tautools.params.models import RoleParams
from tautools.servers import State, endpoints, launch, open_server, server_states, verify_target
from tautools.servers.checks.target import CheckTarget
from tautools.shell import process_alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def refused(workspace: Path) -> str:
    """Return why no role gets the server; fail when one does, or when anything says READY."""
    assert [seen.state for _, seen in server_states(workspace)] != [State.READY]
    with pytest.raises(ServerError) as caught:
        endpoints(RoleParams(server="fake"), workspace=workspace, role_name="agent")
    return str(caught.value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def stranger() -> Iterator[Callable[..., int]]:
    """Starts servers that are not ours; each listens, beside whoever has the port, when its pid is returned."""
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int, *names: str, key: str = "", modes: str = "reuse_port") -> int:
        words = [sys.executable, str(FAKE_VLLM), names[0], "--host", "127.0.0.1", "--port", str(port)]
        options = ["--served-model-name", *names, "--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
        env = os.environ | {"FAKE_VLLM": modes, "VLLM_API_KEY": key, "FAKE_VLLM_LOAD_S": "0"}
        process = subprocess.Popen([*words, *options], env=env, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        while b"startup complete" not in process.stdout.readline():
            assert process.poll() is None
        return process.pid

    yield start
    for process in started:
        process.kill()
        with process:
            pass


@pytest.mark.parametrize(
    ("model", "modes", "words"),
    [
        ("org/Other-7B", "", "it refuses this server's key"),
        ("org/Other-7B", "open", "it serves org/Other-7B, not org/Some-4B"),
        ("org/Some-4B", "open", "it serves org/Some-4B, not launch-"),
    ],
)
def test_another_server_on_the_port_while_ours_still_loads(
    workspace: Path, stranger: Callable[..., int], model: str, modes: str, words: str
) -> None:
    port = free_port()
    server = launch(fake_vllm(modes="hangs", port=port), workspace=workspace)
    stranger(port, model, key="theirs", modes=modes)

    with pytest.raises(NotReadyError, match="Another server answers on its port") as caught:
        server.wait_ready()

    assert words in caught.value.problem
    assert words in refused(workspace)


def test_a_twin_that_gives_the_very_same_answers(workspace: Path, stranger: Callable[..., int]) -> None:
    port = free_port()
    server = launch(fake_vllm(modes="reuse_port", port=port), workspace=workspace).wait_ready()
    endpoint = server.endpoint()

    twin = stranger(port, endpoint.model, server.record.alias, key=endpoint.key)

    told = {str(server.state()) for _ in range(10)}
    assert told == {f"degraded: Its port {port} is shared with process {twin}, which gets a part of its requests."}
    assert f"shared with process {twin}" in refused(workspace)
    assert {check.number: check.passed for check in server.verify().checks}[1] is False
    assert "fake is degraded" in refused(workspace)


def test_a_twin_on_a_node_whose_processes_cannot_be_seen(workspace: Path, stranger: Callable[..., int]) -> None:
    port = free_port()
    stranger(port, "org/Some-4B", "launch-ours", key="ours")
    url, asked = f"http://127.0.0.1:{port}/v1", {"key": "ours", "alias": "launch-ours"}
    assert verify_target(CheckTarget(url, **asked)).passed

    stranger(port, "org/Some-4B", "launch-theirs", key="theirs")

    # One question would meet ours half of the time.
    assert {
        check.passed for _ in range(8) for check in verify_target(CheckTarget(url, **asked)).checks if check.number == 3
    } == {False}


def test_a_dead_process_whose_log_says_ready(workspace: Path) -> None:
    server = launch(fake_vllm(modes="ready_then_dies"), workspace=workspace)

    with pytest.raises(NotReadyError, match="is failed"):
        server.wait_ready()

    assert any("Application startup complete" in line for line in server.tail())
    assert "fake is failed" in refused(workspace)


def test_a_dead_process_whose_place_another_took(workspace: Path, stranger: Callable[..., int]) -> None:
    port = free_port()
    server = launch(fake_vllm(modes="reuse_port", port=port), workspace=workspace).wait_ready()
    endpoint, pid, born = server.endpoint(), server.record.pid or 0, server.record.pid_started_at or 0.0
    stranger(port, endpoint.model, server.record.alias, key=endpoint.key)

    os.kill(pid, signal.SIGKILL)
    while process_alive(pid, born):
        time.sleep(0.01)

    assert any("Application startup complete" in line for line in server.tail())
    assert verify_target(CheckTarget(endpoint.base_url, key=endpoint.key, alias=server.record.alias)).passed
    assert server.state().state is State.FAILED
    assert "fake is failed" in refused(workspace)


def test_a_server_without_a_key(workspace: Path) -> None:
    server = launch(fake_vllm(modes="open"), workspace=workspace)

    with pytest.raises(VerifyError, match="fails check 4"):
        server.wait_ready()

    assert "the server is open: it answers without a key" in refused(workspace)
    assert open_server("fake", workspace=workspace).state().state is State.DEGRADED
