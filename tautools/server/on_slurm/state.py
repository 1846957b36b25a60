"""What Slurm's word on a job means for its server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tautools.errors import SlurmError
from tautools.server.states import Snapshot, State
from tautools.slurm import Job, JobState, Slurm, reason_in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.records import ServerRecord

__all__ = ["ask_jobs", "ended_state", "job_of", "left_in_words", "waiting_state"]

_ENDS = {
    JobState.COMPLETED: (State.STOPPED, "It ended by itself.", ""),
    JobState.CANCELLED: (State.STOPPED, "Its job was cancelled.", ""),
    JobState.TIMEOUT: (State.TIMEOUT, "Its job reached its time limit.", "Give it more with `time_limit` in the site."),
    JobState.PREEMPTED: (State.PREEMPTED, "Its job had to make way for another one.", ""),
    JobState.OUT_OF_MEMORY: (
        State.OUT_OF_MEMORY,
        "Its job took more memory than it had asked for.",
        "Raise `memory_gib` in the site file: the weights pass through the node's memory.",
    ),
    JobState.NODE_FAIL: (State.NODE_FAIL, "Its node failed.", ""),
}


def ask_jobs(records: list[ServerRecord]) -> Mapping[str, Job]:
    """Return what Slurm says of the jobs of these servers, in one query; nothing when it cannot be asked."""
    try:
        return Slurm().jobs([record.job_id for record in records if record.how == "slurm"])
    except SlurmError:
        return {}


def job_of(record: ServerRecord, jobs: Mapping[str, Job] | None) -> Job | None:
    """Return what Slurm says of a server's job, asking it when nobody did; None when it tells nothing."""
    if record.how != "slurm":
        return None
    return (ask_jobs([record]) if jobs is None else jobs).get(record.job_id)


def waiting_state(record: ServerRecord, job: Job, age: float) -> Snapshot | None:
    """Return the state of a server whose job has not begun its work; None when it has."""
    if job.state in {JobState.PENDING, JobState.SUSPENDED}:
        why = reason_in_words(job.reason) if job.state is JobState.PENDING else "It is suspended."
        return Snapshot(State.QUEUED, f"Job {job.job_id}: {why}{_estimate(job)}", age)
    if not record.base_url:
        where = f" on {job.node}" if job.node else ""
        return Snapshot(State.STARTING, f"Job {job.job_id} has begun{where}.", age, stage="job started")
    return None


def ended_state(record: ServerRecord, job: Job, age: float) -> Snapshot | None:
    """Return the state of a server whose job has ended; None when its log has to tell why it failed."""
    known = _ENDS.get(job.state)
    if known is None:
        return None
    state, detail, advice = known
    where = f" Job {job.job_id}{f' on {job.node}' if job.node else ''}."
    again = f"Start it again with `tautools server up {record.spec.get('name', record.name)}`."
    next_step = "" if state is State.STOPPED else f"{advice} {again}".strip()
    return Snapshot(state, detail + where, age, next_step=next_step)


def left_in_words(job: Job | None) -> str:
    """Return how long a job may still run, for a person; empty without a limit."""
    if job is None or job.left_s is None:
        return ""
    minutes = int(job.left_s // 60)
    return (
        f"{minutes // 60} h {minutes % 60} min until its time limit"
        if minutes >= 60
        else f"{minutes} min until its time limit"
    )


def _estimate(job: Job) -> str:
    if job.starts_at is None:
        return ""
    minutes = max(0, round((job.starts_at - time.time()) / 60))
    clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.starts_at))
    return f" Slurm thinks it starts at {clock}, in {minutes // 60} h {minutes % 60} min."
