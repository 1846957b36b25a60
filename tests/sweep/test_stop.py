"""A sweep that is told to stop, or is killed, leaves nothing running and loses nothing that is finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from small_sweep import processes_of, server_file, small_sweep, wait_until

from tautools.errors import ServerError
from tautools.params.models import SweepParams
from tautools.run import read_ledger, results_of
from tautools.servers import Registry, Server, State
from tautools.shell import process_alive
from tautools.sweep import SweepEvent, run_sweep, sweep_status
from tautools.sweep.run import find_sweep_process, start_sweep, stop_sweep

pytestmark = pytest.mark.slow

SLOW = {"speed": 1, "ttft_ms": 300, "itl_ms": 8}


def _slow_sweep(workspace: Path) -> SweepParams:
    sweep = small_sweep(workspace, tasks={"limit": 3}, concurrency=1, grace_s=0)
    server_file(workspace, "quick", **SLOW)
    return sweep


def _start(workspace: Path) -> subprocess.Popen[str]:
    """Start `tautools sweep run` as a person does; its kernels inherit the mark that `processes_of` looks for."""
    command = [sys.executable, "-m", "tautools", "sweep", "run", "small", "--workspace", str(workspace)]
    environment = {**os.environ, "TAUTOOLS_TEST_MARK": str(workspace)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _start_impatient(workspace: Path) -> subprocess.Popen[str]:
    """Start the same, but so that its servers wait a few seconds only for the next run."""
    lines = "import tautools.sweep.servers as s; s.IDLE_S = 2.0; from tautools.cli import main; main()"
    command = [sys.executable, "-c", lines, "sweep", "run", "small", "--workspace", str(workspace)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)


def _finished(workspace: Path) -> int:
    return sum(len(read_ledger(folder.path)) for folder in results_of(workspace))


def _calls_begun(workspace: Path) -> bool:
    return any(workspace.glob("results/*/*/*/running/*.jsonl"))


def test_a_term_signal_ends_servers_kernels_and_children_and_the_work_is_resumed(tmp_path: Path) -> None:
    sweep = _slow_sweep(tmp_path)
    process = _start(tmp_path)
    wait_until(lambda: _finished(tmp_path) >= 1)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=90)
    assert process.returncode == 130, said
    assert "Interrupted; run it again to go on where it stopped." in said
    wait_until(lambda: processes_of(tmp_path) == [], timeout_s=10)
    assert Registry(tmp_path).list() == []
    before = _finished(tmp_path)
    assert 1 <= before < 6
    assert sweep_status(sweep, workspace=tmp_path)[1].state == "partial"

    server_file(tmp_path, "quick")
    assert run_sweep(sweep, workspace=tmp_path).finished
    (folder,) = results_of(tmp_path)
    stored = [line for path in (folder.path / "conversations").iterdir() for line in path.read_bytes().splitlines()]
    assert len(stored) == len(read_ledger(folder.path)) == 6, "nothing that was finished is repeated"


def test_a_killed_sweep_takes_its_notebooks_along_and_its_servers_serve_the_next_run(tmp_path: Path) -> None:
    sweep = _slow_sweep(tmp_path)
    process = _start(tmp_path)
    wait_until(lambda: _calls_begun(tmp_path))
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: not any("ipykernel" in each or "execute" in each for each in processes_of(tmp_path)))
    records = Registry(tmp_path).list()
    servers = [Server(record, workspace=tmp_path) for record in records]
    try:
        assert [record.name for record in records] == ["customer", "quick"]
        events: list[SweepEvent] = []
        only = run_sweep(sweep, workspace=tmp_path, only=[0], on_event=events.append)
        assert only.finished
        assert not any(event.kind == "server" for event in events), "servers that are ready are used as they are"
        assert [server.state().state for server in servers] == [State.READY, State.READY]
    finally:
        for server in servers:
            server.stop()


def test_servers_of_a_killed_sweep_end_when_no_next_run_uses_them(tmp_path: Path) -> None:
    _slow_sweep(tmp_path)
    process = _start_impatient(tmp_path)
    wait_until(lambda: _calls_begun(tmp_path))
    servers = Registry(tmp_path).list()
    assert [server.name for server in servers] == ["customer", "quick"]
    process.kill()
    process.communicate(timeout=30)

    wait_until(lambda: Registry(tmp_path).list() == [], timeout_s=90)
    wait_until(lambda: processes_of(tmp_path) == [], timeout_s=10)
    assert not any(process_alive(server.pid or 0, server.pid_started_at or 0.0) for server in servers)


def test_another_thread_can_ask_for_the_end(tmp_path: Path) -> None:
    sweep = _slow_sweep(tmp_path)
    stop = threading.Event()

    def ask(event: SweepEvent) -> None:
        if event.kind == "cell_started":
            stop.set()

    result = run_sweep(sweep, workspace=tmp_path, on_event=ask, stop=stop)
    assert result.interrupted
    assert not result.finished
    assert Registry(tmp_path).list() == []


def test_a_server_that_does_not_start_ends_the_sweep_before_any_cell_and_stops_the_others(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    path = tmp_path / "params" / "servers" / "customer.yaml"
    path.write_text("name: customer\nengine: vllm\nmodel: customer\nserve_command: ['false']\n")
    with pytest.raises(ServerError, match="customer"):
        run_sweep(sweep, workspace=tmp_path)
    assert [record.name for record in Registry(tmp_path).list()] == ["customer"], "its log can still be read by name"
    wait_until(lambda: processes_of(tmp_path) == [], timeout_s=10)
    assert not (tmp_path / "results").exists()


def test_a_sweep_in_the_background_is_found_and_stopped(tmp_path: Path) -> None:
    sweep = _slow_sweep(tmp_path)
    start_sweep(sweep, workspace=tmp_path, source="small")
    wait_until(lambda: _calls_begun(tmp_path))
    runner = find_sweep_process("small", workspace=tmp_path)
    assert runner is not None
    assert runner.alive
    stop_sweep(sweep, workspace=tmp_path)
    assert not runner.alive
    wait_until(lambda: processes_of(tmp_path) == [], timeout_s=10)
    assert Registry(tmp_path).list() == []
