"""Servers end by themselves when nothing is asked of them, or when their owner is gone; a small process sees to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from command_line import called, typed
from serving import fake_vllm, simulated

from tautools.errors import ParamsError, ServerError
from tautools.http import http_post
from tautools.servers import Registry, Server, State, launch
from tautools.servers.lease import (
    LeaseTerms,
    Watchdog,
    active_lease,
    kernel_process,
    owner_process,
    start_watchdog,
)
from tautools.shell import Process, process_alive, this_process


def _until(condition: Any, patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _chat(server: Server) -> None:
    end = server.endpoint()
    body = {"model": end.model, "messages": [{"role": "user", "content": "Tell me."}]}
    assert http_post(f"{end.base_url}/chat/completions", body, key=end.key).status == 200


def _gone(process: Process) -> bool:
    return not process_alive(process.pid, process.started_at)


def test_an_idle_server_is_stopped_whole_and_its_watchdog_ends_with_it(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    watchdog = start_watchdog(server, LeaseTerms(idle_s=0.6, every_s=0.1))

    _until(lambda: Registry(workspace).find(server.name) is None)
    _until(lambda: _gone(watchdog))

    assert server.state().state is State.STOPPED
    assert not Registry(workspace).launch_file(server.name, "lease").exists()
    (log,) = (workspace / "logs").glob("*_watchdog-*.log")
    assert "stopped, no request for" in log.read_text()


def test_a_request_starts_the_idle_time_again(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    watchdog = Watchdog(server.record, workspace=workspace, terms=LeaseTerms(idle_s=0.2, every_s=1))
    assert watchdog.look() == ""
    time.sleep(0.25)
    _chat(server)

    assert watchdog.look() == ""  # 0.25 s after the first look, but there was work
    assert watchdog.look() == ""
    time.sleep(0.25)
    assert "no request for" in watchdog.look()


def test_a_server_leased_to_a_process_ends_when_that_is_gone(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as owner:
        start_watchdog(server, LeaseTerms(owner=owner_process(owner.pid), quiet_s=0.3, every_s=0.1))
        _until(lambda: active_lease(server.record, workspace=workspace) is not None)
        note = active_lease(server.record, workspace=workspace)
        assert str(note) == f"ends with process {owner.pid}"
        assert server.state().state is State.READY
        owner.kill()

    _until(lambda: Registry(workspace).find(server.name) is None)


def test_a_run_that_goes_on_without_the_owner_keeps_the_server(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    gone = Process(this_process().pid, 1.0)  # our pid with another start time: a process that is gone
    watchdog = Watchdog(server.record, workspace=workspace, terms=LeaseTerms(owner=gone, quiet_s=0.2, every_s=1))
    watchdog.look()
    for _ in range(3):
        time.sleep(0.1)
        _chat(server)
        assert watchdog.look() == ""
    watchdog.look()
    time.sleep(0.25)

    assert "is gone and nothing uses it" in watchdog.look()
    assert "process" in str(active_lease(server.record, workspace=workspace))


def test_a_server_that_does_not_tell_its_requests_is_never_called_idle(workspace: Path) -> None:
    server = launch(fake_vllm(), workspace=workspace).wait_ready()
    watchdog = Watchdog(server.record, workspace=workspace, terms=LeaseTerms(idle_s=0.05, every_s=1))
    watchdog.look()
    time.sleep(0.1)

    assert watchdog.look() == ""


def test_a_server_that_was_stopped_otherwise_ends_the_watchdog(workspace: Path) -> None:
    server = launch(simulated(), workspace=workspace).wait_ready()
    watchdog = start_watchdog(server, LeaseTerms(idle_s=600, every_s=0.1))
    _until(lambda: active_lease(server.record, workspace=workspace) is not None)
    server.stop()

    _until(lambda: _gone(watchdog))
    assert not Registry(workspace).launch_file(server.name, "lease").exists()


def test_a_watchdog_never_touches_a_newer_launch_of_the_same_name(workspace: Path) -> None:
    old = launch(simulated(), workspace=workspace).wait_ready()
    watchdog = start_watchdog(old, LeaseTerms(idle_s=600, every_s=0.1))
    old.stop()
    new = launch(simulated(), workspace=workspace).wait_ready()
    _until(lambda: _gone(watchdog))

    assert new.state().state is State.READY
    with pytest.raises(ServerError, match="stopped or replaced"):
        start_watchdog(old, LeaseTerms(idle_s=1))


def test_up_says_when_a_server_will_end_and_the_watchdog_knows_no_key(workspace: Path) -> None:
    secret = "sk-very-secret-of-somebody"
    words = ("server", "up", "sim-small", "--speed", "0", "--idle-stop", "30", "--lease", str(os.getpid()))
    up = typed(*words, "--workspace", str(workspace), env={"OPENAI_API_KEY": secret})
    assert up.code == 0, up.err

    record = Registry(workspace).get("sim-small")
    _until(lambda: active_lease(record, workspace=workspace) is not None)
    note = active_lease(record, workspace=workspace)
    assert note is not None
    (row,) = json.loads(called("server", "ls", "--json", "--workspace", str(workspace)).out)
    assert row["watchdog"].startswith("ends after 30 min idle")
    assert f"ends with process {os.getpid()}" in row["watchdog"]
    watchdog = psutil.Process(note.watchdog.pid)
    told = "\n".join([*watchdog.cmdline(), *(f"{k}={v}" for k, v in watchdog.environ().items())])
    assert secret not in told
    assert Registry(workspace).key(record) not in told
    called("server", "stop", "sim-small", "--workspace", str(workspace))
    _until(lambda: not psutil.pid_exists(note.watchdog.pid))


def test_the_kernel_above_a_process_is_found(tmp_path: Path) -> None:
    kernel = tmp_path / "ipykernel_launcher.py"
    kernel.write_text("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'input()'], check=False)\n")
    with subprocess.Popen([sys.executable, str(kernel)], stdin=subprocess.PIPE) as above:
        _until(lambda: len(psutil.Process(above.pid).children()) == 1)
        (below,) = psutil.Process(above.pid).children()
        assert kernel_process(below.pid).pid == above.pid
        above.communicate(b"\n")


@pytest.mark.parametrize(
    ("lease", "status", "said"),
    [
        ("999999999", 2, "There is no process 999999999"),
        ("kernel", 2, "no kernel to lease the server to"),
        ("$(id)", 2, "give the pid of a process"),
    ],
)
def test_an_owner_that_is_not_there_is_reported_before_anything_starts(
    workspace: Path, lease: str, status: int, said: str
) -> None:
    done = called("server", "up", "sim-small", "--lease", lease, "--workspace", str(workspace))

    assert (done.code, said in done.err) == (status, True), done.err
    assert list(workspace.iterdir()) == []


def test_terms_without_a_reason_to_end_are_refused() -> None:
    with pytest.raises(ParamsError, match="nothing to watch for"):
        LeaseTerms()
    with pytest.raises(ParamsError, match="above 0"):
        LeaseTerms(idle_s=0.0)
