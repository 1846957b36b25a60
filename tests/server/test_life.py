"""A server's life: started, watched, proven, found again, stopped. Real processes throughout."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from serving import fake_vllm, simulated

import tautools
from tautools.errors import NotReadyError, ParamsError, ServerError, VerifyError
from tautools.server import Registry, Server, State, launch, open_server, server_states
from tautools.shell import group_members, process_alive

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tautools.params.models import ServerParams
    from tautools.server import Snapshot


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def members(server: Server) -> list[int]:
    assert server.record.pid is not None
    assert server.record.pid_started_at is not None
    return group_members(server.record.pid, server.record.pid_started_at)


def test_a_simulated_server_is_started_proven_found_and_stopped(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()

    assert server.state().state is State.READY
    record = Registry(workspace).get("sim")
    assert record.certificate is not None
    assert record.certificate.passed
    assert {rung.number: rung.passed for rung in record.certificate.rungs} == dict.fromkeys((0, 1, 2, 3, 4, 5, 7), True)
    assert record.simulated
    assert server.endpoint().simulated

    server.stop()

    assert members(server) == []
    assert Registry(workspace).list() == []
    assert server.state().state is State.STOPPED
    assert list((workspace / "servers").glob("*.*")) == []


def test_a_vllm_like_server_is_proven_rung_by_rung(workspace: Path) -> None:
    told: list[int] = []

    server = launch(fake_vllm(), workspace=workspace).wait_ready(on_rung=lambda rung: told.append(rung.number))

    assert told == [0, 1, 2, 3, 4, 5, 7]
    certificate = server.record.certificate
    assert certificate is not None
    assert (certificate.model, certificate.max_model_len, certificate.simulated) == ("org/Some-4B", 4096, False)
    assert certificate.versions == {"server": "0.0-fake", "tautools": tautools.__version__}


def test_the_start_is_told_stage_by_stage_and_ready_comes_last(workspace: Path) -> None:
    seen: list[Snapshot] = []

    launch(fake_vllm(env={"FAKE_VLLM_LOAD_S": "1"}), workspace=workspace).wait_ready(on_progress=seen.append)

    assert {snapshot.state for snapshot in seen} == {State.STARTING}
    assert "loading weights" in {snapshot.stage for snapshot in seen}
    assert [snapshot.percent for snapshot in seen] == sorted(snapshot.percent or 0 for snapshot in seen)


def test_the_record_is_written_only_after_the_proof(workspace: Path) -> None:
    server = launch(fake_vllm(env={"FAKE_VLLM_LOAD_S": "1"}), workspace=workspace)

    assert [record.name for record in Registry(workspace).list()] == ["fake"]
    assert list((workspace / "servers").glob("*.json")) == []

    server.wait_ready()

    assert [path.name for path in (workspace / "servers").glob("*.json")] == ["fake.json"]


def test_the_key_is_private_and_nowhere_else(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    key = server.endpoint().key
    key_file = workspace / "servers" / "sim.key"

    assert len(key) >= 24
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((workspace / "servers").stat().st_mode) == 0o700
    assert key not in " ".join(psutil.Process(server.record.pid).cmdline())
    assert key not in repr(server.endpoint()) + repr(server)
    holding = [path for path in workspace.rglob("*") if path.is_file() and key in path.read_text(errors="replace")]
    assert holding == [key_file]


def test_logs_lie_where_the_notes_have_them_with_the_address_on_top(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace)
    (out,), (err,) = (workspace / "logs").iterdir(), (workspace / "errors").iterdir()

    assert out.name.startswith("sim_")
    assert out.name.endswith(f"-{server.record.pid}.out")
    assert err.name == out.with_suffix(".err").name
    lines = out.read_text().splitlines()
    assert lines[1] == f"Starting simulate server sim on node: {socket.gethostname()}"
    assert lines[2:4] == ["Model: sim-model", f"Server base: {server.record.base_url}"]


def test_several_servers_start_at_once_on_ports_of_their_own(workspace: Path) -> None:
    servers = [launch(simulated(f"sim-{number}"), workspace=workspace) for number in range(3)]
    for server in servers:
        server.wait_ready()

    assert len({server.record.base_url for server in servers}) == 3
    found = server_states(workspace)
    assert [(record.name, snapshot.state) for record, snapshot in found] == [
        (f"sim-{number}", State.READY) for number in range(3)
    ]


def test_two_servers_of_one_name_are_refused_and_the_first_is_not_disturbed(workspace: Path) -> None:
    first = launch(simulated(), workspace=workspace).wait_ready()

    with pytest.raises(ServerError, match="'sim' runs already") as caught:
        launch(simulated(), workspace=workspace)

    assert f"process {first.record.pid}" in caught.value.evidence
    assert first.state().state is State.READY


def test_one_file_gives_several_servers_under_several_names(workspace: Path) -> None:
    launch(simulated(), workspace=workspace, name="left")
    launch(simulated(), workspace=workspace, name="right")

    assert [record.name for record in Registry(workspace).list()] == ["left", "right"]


@pytest.mark.parametrize("name", ["../up", "a b", "", "-x", "a/b", "x" * 65, "a\nb"])
def test_a_name_that_is_not_a_plain_word_is_refused_before_anything_is_made(workspace: Path, name: str) -> None:
    with pytest.raises(ParamsError, match="cannot be the name of a server"):
        launch(simulated().model_copy(update={"name": name}), workspace=workspace)

    assert list(workspace.iterdir()) == []


def test_the_port_asked_for_is_used(workspace: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    server = launch(simulated(port=port), workspace=workspace).wait_ready()

    assert server.record.base_url == f"http://127.0.0.1:{port}/v1"


def test_a_taken_port_is_an_error_before_anything_is_started(workspace: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]

        with pytest.raises(ServerError, match=f"belongs to process {os.getpid()}"):
            launch(simulated(port=port), workspace=workspace)

    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize("modes", ["port_lost", "inner_port_lost"])
def test_a_port_that_is_lost_is_replaced_by_another(workspace: Path, modes: str) -> None:
    marker = workspace / "lost"
    params = fake_vllm(modes=modes, env={"FAKE_VLLM_LOST": str(marker)})
    server = launch(params, workspace=workspace)
    first = server.record

    server.wait_ready()

    assert marker.exists()
    assert server.record.pid != first.pid
    assert server.record.alias != first.alias
    assert server.state().state is State.READY


def test_a_command_that_is_not_installed_is_told_before_anything_is_made(workspace: Path) -> None:
    params = fake_vllm().model_copy(update={"serve_command": ["no-such-vllm", "serve"]})

    with pytest.raises(ServerError, match=r"`no-such-vllm`.* is not installed") as caught:
        launch(params, workspace=workspace)

    assert "serve_command" in caught.value.next_step
    assert list(workspace.iterdir()) == []


def test_a_start_that_fails_tells_the_first_cause_and_the_remedy(workspace: Path) -> None:
    server = launch(fake_vllm(modes="dies"), workspace=workspace)

    with pytest.raises(NotReadyError, match="failed: The KV cache cannot hold one request") as caught:
        server.wait_ready()

    assert "max_model_len" in caught.value.next_step
    assert "Engine core initialization failed" in caught.value.evidence
    (record, snapshot), *_ = server_states(workspace)
    assert (record.name, snapshot.state) == ("fake", State.FAILED)
    server.stop()
    assert Registry(workspace).list() == []


def test_a_start_that_ends_without_a_word_tells_its_status(workspace: Path) -> None:
    with pytest.raises(NotReadyError, match="It ended with status 3"):
        launch(fake_vllm(modes="exits"), workspace=workspace).wait_ready()


def test_a_failed_start_leaves_no_worker_behind(workspace: Path) -> None:
    server = launch(fake_vllm(modes="worker dies"), workspace=workspace)

    with pytest.raises(NotReadyError, match="failed: The KV cache cannot hold one request"):
        server.wait_ready()

    assert members(server) == []


def test_a_log_that_says_ready_proves_nothing_once_the_process_is_dead(workspace: Path) -> None:
    server = launch(fake_vllm(modes="ready_then_dies"), workspace=workspace)

    with pytest.raises(NotReadyError, match="is failed"):
        server.wait_ready()

    assert any("Application startup complete" in line for line in server.tail())


def test_a_start_without_progress_is_given_up_and_goes_on_running(workspace: Path) -> None:
    server = launch(fake_vllm(modes="hangs", startup_timeout_s=0.5), workspace=workspace)

    with pytest.raises(NotReadyError, match=r"wrote nothing to its log for 0\.5 s") as caught:
        server.wait_ready()

    assert "stop fake" in caught.value.next_step
    assert server.state().state is State.STARTING


def test_a_wait_ends_when_its_time_is_over(workspace: Path) -> None:
    server = launch(fake_vllm(modes="hangs"), workspace=workspace)

    with pytest.raises(NotReadyError, match="was not ready in the time it was given"):
        server.wait_ready(timeout_s=0.3)


@pytest.mark.parametrize("modes", ["hangs deaf_once", "hangs deaf", "hangs worker", "worker", "deaf"])
def test_stop_ends_everything_in_any_phase(workspace: Path, modes: str) -> None:
    server = launch(fake_vllm(modes=modes), workspace=workspace)
    wait_for(lambda: any("EngineCore" in line for line in server.tail()))

    server.stop(term_s=1.0)

    assert members(server) == []
    assert Registry(workspace).list() == []


def test_workers_of_a_killed_server_are_found_and_ended(workspace: Path) -> None:
    server = launch(fake_vllm(modes="worker"), workspace=workspace).wait_ready()
    os.kill(server.record.pid or 0, signal.SIGKILL)
    wait_for(lambda: server.state().state is State.FAILED)

    assert "1 of its workers still run" in server.state().detail
    with pytest.raises(ServerError, match="has left workers behind"):
        launch(fake_vllm(), workspace=workspace)
    server.stop(term_s=0.5)

    assert members(server) == []


def test_what_cannot_be_stopped_stays_registered(workspace: Path) -> None:
    record = launch(fake_vllm(modes="hangs"), workspace=workspace).record
    elsewhere = record.model_copy(update={"host": "gaudi001"})
    Registry(workspace).add(elsewhere)

    with pytest.raises(ServerError, match="runs on host gaudi001"):
        open_server("fake", workspace=workspace).stop()

    assert Registry(workspace).get("fake").host == "gaudi001"
    Registry(workspace).add(record)


def test_a_killed_server_is_never_ready(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    os.kill(server.record.pid or 0, signal.SIGKILL)

    wait_for(lambda: not process_alive(server.record.pid or 0, server.record.pid_started_at or 0.0))

    snapshot = server.state()
    assert snapshot.state is State.FAILED
    wait_for(lambda: "signal 9" in server.state().detail)


def test_a_record_whose_pid_belongs_to_another_process_now_is_not_ready_and_harms_nobody(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True) as bystander:
        long_ago = psutil.Process(bystander.pid).create_time() - 100
        stale = server.record.model_copy(update={"pid": bystander.pid, "pid_started_at": long_ago})
        (workspace / "servers" / "sim.json").write_text(stale.model_dump_json())
        state = open_server("sim", workspace=workspace).state().state
        open_server("sim", workspace=workspace).stop()
        Registry(workspace).add(server.record)  # so that the real one is found and ended
        unharmed = bystander.poll() is None
        bystander.kill()

    assert state is State.FAILED
    assert unharmed


LAUNCHER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {support!r})
from serving import fake_vllm
from tautools.server import launch
server = launch(fake_vllm(env={{"FAKE_VLLM_LOAD_S": "2"}}), workspace=Path({workspace!r}))
print("started", flush=True)
server.wait_ready()
"""


def test_after_the_launcher_was_killed_the_server_is_found_and_not_ready_until_proven(
    workspace: Path, repo: Path
) -> None:
    code = LAUNCHER.format(support=str(repo / "tests" / "support"), workspace=str(workspace))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"started\n"
        launcher.kill()

    server = open_server("fake", workspace=workspace)
    assert server.state().state is State.STARTING
    wait_for(lambda: server.state().stage == "answering")
    assert server.state().state is State.STARTING
    assert server.verify().passed
    assert server.state().state is State.READY
    server.stop()
    assert members(server) == []


@pytest.mark.parametrize(
    ("modes", "rung", "words"),
    [
        ("empty", 5, "an empty answer"),
        ("no_tools", 7, "tool_call_parser"),
        ("wrong_parser", 7, "came as text"),
        ("open", 4, "the server is open: it answers without a key"),
        ("short", 3, "3096 tokens of context, 4096 were asked for"),
    ],
)
def test_a_server_that_fails_a_rung_is_degraded_and_not_registered_as_proven(
    workspace: Path, modes: str, rung: int, words: str
) -> None:
    server = launch(fake_vllm(modes=modes), workspace=workspace)

    with pytest.raises(VerifyError, match=f"fails rung {rung}") as caught:
        server.wait_ready()

    assert words in caught.value.evidence
    assert server.state().state is State.DEGRADED
    assert list((workspace / "servers").glob("*.json")) == []


@pytest.mark.parametrize(("modes", "words"), [("other_model", "some-other-model"), ("no_alias", "launch-")])
def test_another_server_on_the_port_is_never_ready(workspace: Path, modes: str, words: str) -> None:
    params = fake_vllm(modes=modes, port=free_port())
    server = launch(params, workspace=workspace)

    with pytest.raises(NotReadyError, match="Another server answers on its port") as caught:
        server.wait_ready()

    assert words in caught.value.problem
    rungs = {rung.number: rung.passed for rung in server.verify().rungs}
    assert rungs == {0: True, 1: True, 2: True, 3: False, 4: None, 5: None, 7: None}


def test_a_twin_on_the_port_is_found(workspace: Path) -> None:
    params = fake_vllm(modes="reuse_port", port=free_port())
    server = launch(params, workspace=workspace).wait_ready()
    port = params.port
    with socket.socket() as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        twin.bind(("127.0.0.1", port))
        twin.listen()

        rungs = {rung.number: rung for rung in server.verify().rungs}

    assert rungs[1].passed is False
    assert f"port {port} is shared with process {os.getpid()}" in rungs[1].detail
    assert rungs[2].passed is None
    assert server.state().state is State.DEGRADED
    assert list((workspace / "servers").glob("*.json")) == []

    assert server.verify().passed
    assert server.state().state is State.READY


def test_a_handle_of_an_old_launch_leaves_the_new_one_alone(workspace: Path) -> None:
    old = launch(simulated(), workspace=workspace)
    old.stop()
    new = launch(simulated(), workspace=workspace).wait_ready()

    old.stop()

    assert old.state().state is State.STOPPED
    assert new.state().state is State.READY
    with pytest.raises(NotReadyError, match="was stopped or replaced"):
        old.verify()


def test_a_damaged_record_hides_no_other(workspace: Path) -> None:
    launch(simulated(), workspace=workspace).wait_ready()
    (workspace / "servers" / "broken.json").write_text('{"name": "bro')

    assert [record.name for record in Registry(workspace).list()] == ["sim"]


def test_an_unknown_name_is_told_with_the_nearest(workspace: Path) -> None:
    launch(simulated("sim-small"), workspace=workspace)

    with pytest.raises(ServerError, match="No server named 'sim-smal'") as caught:
        Registry(workspace).get("sim-smal")

    assert "sim-small" in caught.value.evidence


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_params_travel_with_the_record(workspace: Path) -> None:
    params: ServerParams = simulated(simulate={"skill": 0.25})

    record = launch(params, workspace=workspace).record

    assert record.spec["simulate"]["skill"] == 0.25
    assert record.argv[:4] == [sys.executable, "-P", "-m", "tautools.simulate"]
