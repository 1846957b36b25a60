"""A sweep whose servers are jobs of a real Slurm: submitted, verified, asked, cancelled at its end."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from slurm_site import left_in, site_with
from small_sweep import small_sweep

from tautools.servers import Registry
from tautools.slurm.client import Slurm
from tautools.slurm.jobs import JobState
from tautools.sweep import SweepEvent, run_sweep

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_sweep_on_a_slurm_site_submits_its_servers_once_and_cancels_them(workspace: Path) -> None:
    sites = workspace / "params" / "sites"
    sites.mkdir(parents=True)
    (sites / "here.yaml").write_text(yaml.safe_dump(site_with().model_dump(mode="json", exclude_defaults=True)))
    sweep = small_sweep(workspace, site="here")
    told: list[str] = []
    jobs: set[str] = set()

    def listen(event: SweepEvent) -> None:
        told.append(event.message)
        jobs.update(record.job_id for record in Registry(workspace).list())

    result = run_sweep(sweep, workspace=workspace, on_event=listen)

    assert result.finished, result
    assert len(jobs) == 2, "one job for each of the two servers, however many cells they serve"
    assert {found.state for found in Slurm().jobs(sorted(jobs)).values()} == {JobState.CANCELLED}
    assert left_in(workspace) == []
    assert sum("ready and verified" in line for line in told) == 2
