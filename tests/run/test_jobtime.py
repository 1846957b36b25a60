"""What can still be begun before the time limit of the job that a run is part of."""

from __future__ import annotations

from tautools.errors import SlurmError
from tautools.run import scheduler
from tautools.run.scheduler import JobTime
from tautools.slurm.client import Slurm


class Told(Slurm):
    """A Slurm that says how long a job may still run, without being asked for it over a process."""

    def __init__(self, *left_s: float | SlurmError | None) -> None:
        super().__init__()
        self.left = list(left_s)
        self.asked: list[str] = []

    def time_left(self, job_id: str) -> float | None:
        self.asked.append(job_id)
        left = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if isinstance(left, SlurmError):
            raise left
        return left


def test_outside_of_a_job_everything_is_allowed_and_nobody_is_asked() -> None:
    slurm = Told(5.0)

    assert JobTime({}, slurm).allows(1e9)
    assert slurm.asked == []


def test_what_takes_longer_than_is_left_is_not_begun() -> None:
    slurm = Told(600.0)
    time = JobTime({"SLURM_JOB_ID": "7"}, slurm)

    assert time.allows(560)
    assert not time.allows(575), "half a minute is kept for the results"
    assert not time.allows(700)
    assert slurm.asked == ["7"], "Slurm is not asked for each conversation"


def test_without_a_limit_or_an_answer_everything_is_allowed() -> None:
    assert JobTime({"SLURM_JOB_ID": "7"}, Told(None)).allows(1e9)
    assert JobTime({"SLURM_JOB_ID": "7"}, Told(SlurmError("silent", next_step="wait"))).allows(1e9)


def test_a_limit_that_was_moved_is_seen_before_work_is_left(monkeypatch) -> None:
    monkeypatch.setattr(scheduler, "_ASK_AGAIN_S", 0.0)
    time = JobTime({"SLURM_JOB_ID": "7"}, Told(60.0, 7200.0))

    assert time.allows(1000)
