"""How a server ends: a start that fails, a stop, a kill, a record that outlives it. Real processes throughout."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from serving import fake_vllm, members, simulated, wait_for

from tautools.errors import NotReadyError, ServerError
from tautools.servers import Registry, State, launch, open_server, server_states
from tautools.shell import process_alive


def test_a_start_that_fails_says_the_first_cause_and_the_fix(workspace: Path) -> None:
    server = launch(fake_vllm(modes="dies"), workspace=workspace)

    with pytest.raises(NotReadyError, match="failed: The KV cache cannot hold one request") as caught:
        server.wait_ready()

    assert "max_model_len" in caught.value.next_step
    assert caught.value.evidence.startswith("ValueError: To serve at least one request")
    assert "Engine core initialization failed" in caught.value.evidence
    (record, snapshot), *_ = server_states(workspace)
    assert (record.name, snapshot.state) == ("fake", State.FAILED)
    server.stop()
    assert Registry(workspace).list() == []


@pytest.mark.parametrize(("line", "state"), [("EngineDeadError: see above", State.FAILED), ("bye", State.STOPPED)])
def test_a_server_that_ends_in_order_after_its_engine_died_has_failed(workspace: Path, line: str, state: State) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    with Path(server.record.log_err).open("a") as log:
        log.write(f"(APIServer pid=7) ERROR 11-30 23:24:01 [async_llm.py:906] {line}\n")
    os.kill(server.record.pid or 0, signal.SIGTERM)
    wait_for(lambda: server.state().state.final)
    assert server.state().state is state


def test_a_start_that_ends_without_a_word_says_its_status(workspace: Path) -> None:
    with pytest.raises(NotReadyError, match="It ended with status 3"):
        launch(fake_vllm(modes="exits"), workspace=workspace).wait_ready()


def test_a_failed_start_leaves_no_worker_behind(workspace: Path) -> None:
    server = launch(fake_vllm(modes="worker dies"), workspace=workspace)

    with pytest.raises(NotReadyError, match="failed: The KV cache cannot hold one request"):
        server.wait_ready()

    assert members(server) == []


def test_a_log_that_says_ready_verifies_nothing_once_the_process_is_dead(workspace: Path) -> None:
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
from tautools.servers import launch
server = launch(fake_vllm(env={{"FAKE_VLLM_LOAD_S": "2"}}), workspace=Path({workspace!r}))
print("started", flush=True)
server.wait_ready()
"""


def test_after_the_launcher_was_killed_the_server_is_found_and_not_ready_until_verified(
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


def test_a_handle_of_an_old_launch_leaves_the_new_one_alone(workspace: Path) -> None:
    old = launch(simulated(), workspace=workspace)
    old.stop()
    new = launch(simulated(), workspace=workspace).wait_ready()

    old.stop()

    assert old.state().state is State.STOPPED
    assert new.state().state is State.READY
    with pytest.raises(NotReadyError, match="was stopped or replaced"):
        old.verify()
