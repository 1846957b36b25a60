"""What a sweep says while the job of a server waits in Slurm's queue."""

from __future__ import annotations

from tautools.servers import Snapshot, State
from tautools.sweep.servers import QueueProgress


def test_a_wait_is_reported_once_although_its_estimate_moves() -> None:
    told: list[str] = []
    look = QueueProgress("qwen", told.append)
    for minutes in range(50, 0, -1):
        look(Snapshot(State.QUEUED, f"Job 7: It waits for resources. It starts in {minutes} min.", 1.0))
    look(Snapshot(State.STARTING, "Job 7 has begun.", 1.0))
    assert told == ["server qwen: in the queue; Job 7: It waits for resources. It starts in 50 min."]
