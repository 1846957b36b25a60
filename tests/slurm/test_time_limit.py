"""What the time limit of a job ends comes back: a server, and a cell that goes on where it was cut off."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import pytest
from serving import simulated
from slurm_site import ask, site_with, wait_for

from tautools.run import read_ledger, results_of
from tautools.servers import Registry, State, launch
from tautools.slurm.client import Slurm
from tautools.slurm.jobs import JobState
from tautools.slurm.script import log_pattern, render_sbatch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

TASKS = 12


def cell_script(workspace: Path) -> Path:
    """Write a job that runs one cell; the same script is submitted again."""
    site = site_with()
    words = [sys.executable, "-m", "tautools", "run", "--env", "retail", "--strategy", "fc", "--server", "sim"]
    words += ["--limit", str(TASKS), "--concurrency", "2", "--workspace", str(workspace)]
    (workspace / "cells").mkdir()
    asked = {
        "job-name": "cell",
        "output": log_pattern(workspace / "cells", "cell", "out"),
        "error": log_pattern(workspace / "cells", "cell", "err"),
        "account": site.account,
        "qos": site.qos,
        "time": "00:30:00",
    }
    path = workspace / "cell.sh"
    path.write_text(render_sbatch(asked, [f"exec {shlex.join(words)}"]))
    return path


def done_in(workspace: Path) -> set[tuple[str, int]]:
    """Return the conversations that the ledger holds."""
    return {key for setting in results_of(workspace) for key in read_ledger(setting.path)}


def test_a_server_and_a_cell_ended_by_their_time_limit_come_back_and_finish(workspace: Path) -> None:
    slow = simulated(simulate={"speed": 0.4})
    server = launch(slow, workspace=workspace, site=site_with()).wait_ready()
    script = cell_script(workspace)
    cell = Slurm().submit(script)
    wait_for(lambda: done_in(workspace))

    # Slurm looks every half minute for jobs that are over their time.
    for job_id in (cell, server.record.job_id):
        ask("scontrol", "update", f"JobId={job_id}", "EndTime=now")
    wait_for(lambda: Slurm().jobs([cell])[cell].state is JobState.TIMEOUT, timeout_s=90)
    wait_for(lambda: server.state().state is State.TIMEOUT)

    assert "reached its time limit" in server.state().detail
    assert "time_limit" in server.state().next_step
    # The job itself takes its record back while it ends; Slurm may say so a moment before.
    wait_for(lambda: not (workspace / "servers" / "sim.json").exists())
    first = done_in(workspace)
    assert 0 < len(first) < TASKS

    again = launch(simulated(), workspace=workspace, site=site_with()).wait_ready()
    assert again.record.job_id != server.record.job_id
    assert server.state().state is State.STOPPED
    cell = Slurm().submit(script)
    wait_for(lambda: Slurm().jobs([cell])[cell].state.ended, timeout_s=90)

    assert Slurm().jobs([cell])[cell].state is JobState.COMPLETED
    assert len(done_in(workspace)) == TASKS
    assert first < done_in(workspace)
    (setting,) = results_of(workspace)
    assert len(read_ledger(setting.path)) == TASKS
    again.stop()
    assert Registry(workspace).list() == []
