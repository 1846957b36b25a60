"""A cell in a job begins nothing that the job's time limit would cut off, and ends by itself."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import pytest
from serving import simulated
from slurm_site import site_with, wait_for

from tautools.run import read_ledger, results_of
from tautools.servers import launch
from tautools.slurm.client import Slurm
from tautools.slurm.jobs import JobState
from tautools.slurm.script import render_sbatch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_cell_ends_by_itself_before_its_job_would_be_cut_off(workspace: Path) -> None:
    launch(simulated(simulate={"speed": 0.2}), workspace=workspace, site=site_with()).wait_ready()
    words = [sys.executable, "-m", "tautools", "run", "--env", "retail", "--strategy", "fc", "--server", "sim"]
    words += ["--limit", "12", "--concurrency", "1", "--workspace", str(workspace)]
    site = site_with()
    script = workspace / "cell.sh"
    script.write_text(
        render_sbatch(
            {
                "job-name": "cell",
                "output": workspace / "cell.out",
                "error": workspace / "cell.err",
                "account": site.account,
                "qos": site.qos,
                "time": "00:01:00",
            },
            [shlex.join(words), 'echo "status $?"'],
        )
    )

    cell = Slurm().submit(script)
    wait_for(lambda: Slurm().jobs([cell])[cell].state.ended, timeout_s=150)

    said = (workspace / "cell.out").read_text() + (workspace / "cell.err").read_text()
    assert Slurm().jobs([cell])[cell].state is JobState.COMPLETED, said
    assert "status 3" in said, said
    assert "Its job ends before another conversation could" in said
    (setting,) = results_of(workspace)
    assert len(read_ledger(setting.path)) < 12
