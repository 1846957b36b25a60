"""Many servers as one: replicas, staggered starts, all or none, and a run that outlives a replica. Real processes."""

from __future__ import annotations

import os
import signal
import socket
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import pytest
from fake_cards import FakeCards
from serving import fake_vllm, simulated

from tautools.errors import NotReadyError, ServerError
from tautools.params.models import RoleParams, RunParams
from tautools.run import read_calls, run_cell
from tautools.servers import Registry, Server, endpoints
from tautools.servers.start import launch_all

if TYPE_CHECKING:
    from pathlib import Path


def environ(server: Server) -> dict[str, str]:
    assert server.record.pid is not None
    return psutil.Process(server.record.pid).environ()


def row_of_free_ports(count: int) -> int:
    """Return the first of so many free ports in a row."""
    for first in range(20000 + os.getpid() % 20000, 60000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for number, probe in enumerate(sockets):
                probe.bind(("127.0.0.1", first + number))
        except OSError:
            continue
        finally:
            for probe in sockets:
                probe.close()
        return first
    raise AssertionError("no free ports in a row")


def test_replicas_have_cards_ports_keys_and_caches_of_their_own_and_answer_for_one_model(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = FakeCards(tmp_path / "bin", "cuda", [0, 40000, 0, 0, 0])
    monkeypatch.setenv("PATH", cards.path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    first = row_of_free_ports(2)
    params = fake_vllm("agent", replicas=2, start_port=first, vllm={"tensor_parallel_size": 2})

    servers = launch_all([params], workspace=workspace)
    for server in servers:
        server.wait_ready()

    assert [server.name for server in servers] == ["agent-0", "agent-1"]
    assert [environ(server)["CUDA_VISIBLE_DEVICES"] for server in servers] == ["0,2", "3,4"]
    assert [urlsplit(server.record.base_url).port for server in servers] == [first, first + 1]
    assert len({environ(server)["VLLM_CACHE_ROOT"] for server in servers}) == 2
    assert len({environ(server)["VLLM_API_KEY"] for server in servers}) == 2
    for role in (RoleParams(server="agent"), RoleParams(model="org/Some-4B")):
        found = endpoints(role, workspace=workspace, role_name="agent")
        assert sorted(endpoint.name for endpoint in found) == ["agent-0", "agent-1"]


def test_a_layout_that_does_not_fit_starts_nothing(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", FakeCards(tmp_path / "bin", "cuda", [0, 0]).path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    with pytest.raises(ServerError) as error:
        launch_all([fake_vllm("agent", replicas=3)], workspace=workspace)

    assert error.value.evidence == "agent: needs 3 x 1 = 3 cards, and the node has 2"
    assert list(workspace.iterdir()) == []


def test_the_next_server_starts_when_the_former_has_loaded(workspace: Path) -> None:
    messages: list[str] = []
    params = fake_vllm("agent", replicas=2, stagger="loaded", env={"FAKE_VLLM_LOAD_S": "1"})

    first, second = launch_all([params], workspace=workspace, emit=messages.append)

    assert messages == ["agent-1 starts when agent-0 has loaded"]
    assert second.record.started_at - first.record.started_at >= 0.5


def test_the_next_server_starts_so_many_seconds_later(workspace: Path) -> None:
    first, second = launch_all([simulated("sim", replicas=2, stagger=0.5)], workspace=workspace)

    assert second.record.started_at - first.record.started_at >= 0.5


@pytest.mark.parametrize("stagger", ["loaded", 60.0])
def test_a_former_server_that_fails_ends_the_whole_start(workspace: Path, stagger: Any) -> None:
    with pytest.raises(NotReadyError, match="'agent-0' is failed"):
        launch_all([fake_vllm("agent", "dies", replicas=2, stagger=stagger)], workspace=workspace)

    assert Registry(workspace).list() == []


def test_a_former_server_that_stands_still_ends_the_whole_start(workspace: Path) -> None:
    params = fake_vllm("agent", "hangs", replicas=2, stagger="loaded", startup_timeout_s=0.5)

    with pytest.raises(NotReadyError, match="so the next was not started"):
        launch_all([params], workspace=workspace)

    assert Registry(workspace).list() == []


def test_a_run_uses_all_replicas_and_finishes_though_one_is_killed_in_the_middle(workspace: Path) -> None:
    servers = launch_all([simulated("sim", replicas=3, simulate={"speed": 20})], workspace=workspace)
    for server in servers:
        server.wait_ready()
    assert servers[0].record.pid is not None
    role = {"server": "sim"}
    run = RunParams.model_validate(
        {"env": "retail", "agent": role, "user": role, "tasks": {"limit": 9}, "num_trials": 2, "concurrency": 9}
    )
    killed = threading.Event()
    finished = 0

    def kill_one(event: Any) -> None:
        nonlocal finished
        finished += event.kind == "done"
        if finished == 3 and not killed.is_set():
            os.killpg(servers[0].record.pid or 0, signal.SIGKILL)
            killed.set()

    result = run_cell(run, workspace=workspace, on_event=kill_one)

    assert killed.is_set()
    assert result.finished
    assert (result.done, result.pending) == (18, 0)
    calls = list(read_calls(result.folder))
    answered = {call.endpoint for call in calls if not call.fault}
    assert answered == {server.record.base_url for server in servers}
    assert {call.endpoint for call in calls if call.fault} == {servers[0].record.base_url}
