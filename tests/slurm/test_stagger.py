"""Staggered starts whose first job has to wait in the queue."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from serving import fake_vllm
from slurm_site import ask, site_with, wait_for

from tautools.servers import Registry, Server, State, open_server
from tautools.servers.start import launch_all
from tautools.slurm.client import Slurm
from tautools.slurm.jobs import JobState

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slurm]


def test_a_queue_longer_than_the_patience_with_a_log_ends_no_staggered_start(workspace: Path) -> None:
    only_there, started = site_with(exclude=["gaudi001", "gaudi002"]), list[Server]()
    account = ["--account=class_class59827694spring_2026", "--parsable", "--time=5", "--gres=gpu:hl225:8"]
    holder = ask("sbatch", *account, "--nodelist=gaudi003", "--output=/dev/null", "--wrap", "sleep 300").strip()
    params = fake_vllm("agent", replicas=2, stagger="loaded", startup_timeout_s=5)
    try:
        wait_for(lambda: Slurm().jobs([holder])[holder].state is JobState.RUNNING)
        starting = threading.Thread(
            target=lambda: started.extend(launch_all([params], workspace=workspace, site=only_there))
        )
        starting.start()
        wait_for(
            lambda: (
                Registry(workspace).list() and open_server("agent-0", workspace=workspace).state().state is State.QUEUED
            )
        )
        time.sleep(6)
    finally:
        ask("scancel", holder)
    starting.join(timeout=60)

    assert [server.name for server in started] == ["agent-0", "agent-1"]
