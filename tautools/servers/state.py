"""The state of a server: what its process, its job, its address and its log say, in this order of authority."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tautools.errors import FilesError, SlurmError
from tautools.files import ensure_folder, read_lines, tail, write_atomic
from tautools.servers.checks.target import ModelList, ask_models
from tautools.servers.diagnose.causes import Diagnosis, diagnose_log
from tautools.servers.ports import other_listeners
from tautools.servers.registry import Registry
from tautools.servers.vllm.log import read_startup_stage
from tautools.shell import group_members, process_alive
from tautools.slurm import JobState, Slurm, SlurmJob, explain_reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.http import Http
    from tautools.records import ServerRecord
    from tautools.slurm import SlurmJob


class State(StrEnum):
    """Where a server stands.

    READY is said of a server that was proven by the ladder and answers as itself now; never because a log says so, a
    port is open or a record lies on disk.
    """

    QUEUED = "queued"
    STARTING = "starting"
    VERIFYING = "verifying"
    READY = "ready"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAIL = "node_fail"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """Whether a server in this state comes back only by a new launch."""
        return self in _FINAL_STATES


_FINAL_STATES = {
    State.STOPPED,
    State.FAILED,
    State.TIMEOUT,
    State.PREEMPTED,
    State.OUT_OF_MEMORY,
    State.NODE_FAIL,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A server's state at the moment it was asked."""

    state: State
    detail: str = ""
    """One sentence: the stage of a start, the cause of a failure, what a degraded server lacks."""
    age: float = 0.0
    """Since the server was started [s]."""
    stage: str = ""
    """While it starts: what it is doing, such as `loading weights`."""
    percent: int | None = None
    """While it starts: how far, in [0, 100], read from its log; a progress bar, never a proof."""
    next_step: str = ""
    """What to do about it, when something is wrong."""

    def __str__(self) -> str:
        share = "" if self.percent is None else f" {self.percent}%"
        return f"{self.state.value}{share}" + (f": {self.detail}" if self.detail else "")


_STARTS_KEPT = 400
_STARTS_COMPARED = 5
_WARM_UP_PERCENT = 62
"""From here on a start is so regular that what it took so far tells what it will take."""


def record_start(record: ServerRecord, registry: Registry) -> None:
    """Write down how long the start of a server that was proven just now took."""
    took_s = time.time() - _start_began_at(record, registry)
    if record.backend == "attached" or took_s < 0:
        return
    rows = [
        *_past_starts(registry),
        {"like": _start_kind(record), "took_s": round(took_s, 1), "at": round(time.time())},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows[-_STARTS_KEPT:])
    # A proven server is no less proven because this could not be kept.
    with contextlib.suppress(FilesError):
        ensure_folder(registry.folder, mode=0o700)
        ensure_folder(_starts_file(registry).parent)
        write_atomic(_starts_file(registry), text, mode=0o600)


def remaining_start(record: ServerRecord, registry: Registry, percent: int) -> str:
    """Return in words how long a start may still take; empty when nothing tells."""
    gone_s = time.time() - _start_began_at(record, registry)
    alike = [float(row["took_s"]) for row in _past_starts(registry) if row.get("like") == _start_kind(record)][
        -_STARTS_COMPARED:
    ]
    if alike:
        times = "the last start" if len(alike) == 1 else f"the last {len(alike)} starts"
        return f"about {_format_duration(max(0.0, median(alike) - gone_s))} left, by {times}"
    if percent >= _WARM_UP_PERCENT and gone_s > 0:
        return f"about {_format_duration(gone_s * (100 - percent) / percent)} left, by what it took so far"
    return ""


def _start_kind(record: ServerRecord) -> str:
    across = (record.spec.get("vllm") or {}).get("tensor_parallel_size", 1)
    return json.dumps([record.engine, record.model, across, record.site.get("name", ""), record.site.get("device", "")])


def _start_began_at(record: ServerRecord, registry: Registry) -> float:
    """Return when the start itself began [s since the epoch]: of a job, when it had left the queue."""
    if record.backend == "slurm":
        try:
            note = json.loads(registry.address_file(record.name).read_text())
            return float(note["at"]) if note.get("alias") == record.alias else record.started_at
        except (OSError, ValueError, KeyError, TypeError):
            return record.started_at
    return record.started_at


def _past_starts(registry: Registry) -> list[dict[str, Any]]:
    rows = []
    try:
        for line in read_lines(_starts_file(registry)):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("took_s"), int | float):
                rows.append(row)
    except (OSError, ValueError):
        pass
    return rows


def _starts_file(registry: Registry) -> Path:
    return registry.folder / "cache" / "starts.jsonl"


def _format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min"


_JOB_ENDS = {
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


def ask_jobs(records: list[ServerRecord]) -> Mapping[str, SlurmJob]:
    """Return what Slurm says of the jobs of these servers, in one query; nothing when it cannot be asked."""
    try:
        return Slurm().jobs([record.job_id for record in records if record.backend == "slurm"])
    except SlurmError:
        return {}


def job_of(record: ServerRecord, jobs: Mapping[str, SlurmJob] | None) -> SlurmJob | None:
    """Return what Slurm says of a server's job, asking it when nobody did; None when it tells nothing."""
    if record.backend != "slurm":
        return None
    return (ask_jobs([record]) if jobs is None else jobs).get(record.job_id)


def waiting_job_state(record: ServerRecord, job: SlurmJob, age: float) -> Snapshot | None:
    """Return the state of a server whose job has not begun its work; None when it has."""
    if job.state in {JobState.PENDING, JobState.SUSPENDED}:
        why = explain_reason(job.reason) if job.state is JobState.PENDING else "It is suspended."
        return Snapshot(State.QUEUED, f"Job {job.job_id}: {why}{_start_estimate(job)}", age)
    if not record.base_url:
        where = f" on {job.node}" if job.node else ""
        return Snapshot(State.STARTING, f"Job {job.job_id} has begun{where}.", age, stage="job started")
    return None


def ended_job_state(record: ServerRecord, job: SlurmJob, age: float) -> Snapshot | None:
    """Return the state of a server whose job has ended; None when its log has to tell why it failed."""
    known = _JOB_ENDS.get(job.state)
    if known is None:
        return None
    state, detail, advice = known
    where = f" Job {job.job_id}{f' on {job.node}' if job.node else ''}."
    again = f"Start it again with `tautools server up {record.spec.get('name', record.name)}`."
    next_step = "" if state is State.STOPPED else f"{advice} {again}".strip()
    return Snapshot(state, detail + where, age, next_step=next_step)


def format_time_left(job: SlurmJob | None) -> str:
    """Return how long a job may still run, for a person; empty without a limit."""
    if job is None or job.left_s is None:
        return ""
    minutes = int(job.left_s // 60)
    return (
        f"{minutes // 60} h {minutes % 60} min until its time limit"
        if minutes >= 60
        else f"{minutes} min until its time limit"
    )


def _start_estimate(job: SlurmJob) -> str:
    if job.starts_at is None:
        return ""
    minutes = max(0, round((job.starts_at - time.time()) / 60))
    clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.starts_at))
    return f" Slurm thinks it starts at {clock}, in {minutes // 60} h {minutes % 60} min."


def server_state(
    record: ServerRecord, *, workspace: Path, http: Http | None = None, jobs: Mapping[str, SlurmJob] | None = None
) -> Snapshot:
    """Return the state of one server, asked of its process or job and of its address at this moment.

    Parameters
    ----------
    record : ServerRecord
        The launch that is meant.
    workspace : Path
        Where it is registered.
    http : Http, optional
        The network's door, to share one between many servers.
    jobs : mapping, optional
        What Slurm said just now of the jobs of many servers; it is asked when not given.
    """
    registry = Registry(workspace)
    age = max(0.0, time.time() - record.started_at)
    if not registry.is_current(record):
        return Snapshot(State.STOPPED, "It was stopped.", age)
    doing = registry.doing(record)
    busy = doing.what if doing is not None else ""
    if busy == "stopping":
        return Snapshot(State.STOPPING, "It is being stopped.", age)
    if record.backend == "slurm":
        return _job_state(record, registry, jobs, http, age)
    here = record.backend == "local" and record.on_this_host
    if here and not _process_runs(record):
        return _ended_state(record, registry, age)
    answer = ask_models(record.base_url, key=registry.key(record), http=http or _new_http())
    if answer.status == 0:
        # It may have ended while it was asked; the process has the last word.
        return (
            _ended_state(record, registry, age)
            if here and not _process_runs(record)
            else _silent_state(record, registry, answer, here, age)
        )
    return _answering_state(record, answer, busy, age)


def _job_state(
    record: ServerRecord, registry: Registry, jobs: Mapping[str, SlurmJob] | None, http: Http | None, age: float
) -> Snapshot:
    """Return the state of a server that is a job: Slurm's word first, then its address, then its log."""
    record = registry.find(record.name) or record
    job = job_of(record, jobs)
    if job is not None and job.state.ended:
        return ended_job_state(record, job, age) or _ended_state(record, registry, age, job_state=job.state.name)
    if (job is None or record.shares_job) and registry.exit_code(record) is not None:
        return _ended_state(record, registry, age)
    waiting = waiting_job_state(record, job, age) if job is not None else None
    if waiting is not None:
        return waiting
    if not record.base_url:
        return Snapshot(State.UNKNOWN, f"Slurm tells nothing of its job {record.job_id}.", age)
    answer = ask_models(record.base_url, key=registry.key(record), http=http or _new_http())
    if answer.status == 0:
        return _silent_state(record, registry, answer, job is not None, age)
    doing = registry.doing(record)
    seen = _answering_state(record, answer, doing.what if doing is not None else "", age)
    return replace(seen, detail=format_time_left(job)) if seen.state is State.READY else seen


def has_ended(record: ServerRecord, *, workspace: Path) -> bool:
    """Whether a server's process or job has ended or it was forgotten; its address is not asked, which would be logged.

    Of a process on another host, and of a server that was attached, nothing is known: no.
    """
    registry = Registry(workspace)
    if not registry.is_current(record):
        return True
    if record.backend == "slurm":
        job = job_of(record, None)
        ended = job is not None and job.state.ended
        return ended or ((job is None or record.shares_job) and registry.exit_code(record) is not None)
    return record.backend == "local" and record.on_this_host and not _process_runs(record)


def cause_of(record: ServerRecord, registry: Registry, *, job_state: str | None = None) -> Diagnosis:
    """Return why a server whose process or job has ended did so, as its log and Slurm tell.

    Parameters
    ----------
    record : ServerRecord
        The launch that is meant.
    registry : Registry
        Where it is registered.
    job_state : str, optional
        What Slurm said of its job, such as `OUT_OF_MEMORY`; it is asked when not given.
    """
    if job_state is None:
        job = job_of(record, None)
        job_state = job.state.name if job is not None and job.state.ended else ""
    exit_code = registry.exit_code(record)
    return diagnose_log(log_lines(record, 4000), exit_code=exit_code, job_state=job_state, spec=record.spec)


def log_lines(record: ServerRecord, lines: int = 200) -> list[str]:
    """Return the last lines of the server's output and then of its errors, each file in its own order."""
    return [line for log in (record.log_out, record.log_err) if log for line in tail(Path(log), lines)]


def _new_http() -> Http:
    from tautools.http import Http

    return Http()


def _process_runs(record: ServerRecord) -> bool:
    return (
        record.pid is not None
        and record.pid_started_at is not None
        and process_alive(record.pid, record.pid_started_at)
    )


def _ended_state(record: ServerRecord, registry: Registry, age: float, *, job_state: str = "") -> Snapshot:
    orphans = group_members(record.pid, record.pid_started_at) if record.pid and record.pid_started_at else []
    if registry.exit_code(record) == 0 and not orphans:
        return Snapshot(State.STOPPED, "It ended by itself.", age)
    why = cause_of(record, registry, job_state=job_state)
    if orphans:
        detail = f"{why.cause} {len(orphans)} of its workers still run."
        return Snapshot(State.FAILED, detail, age, next_step=f"End them with `tautools server stop {record.name}`.")
    return Snapshot(State.FAILED, why.cause, age, next_step=why.fix)


def _silent_state(record: ServerRecord, registry: Registry, answer: ModelList, here: bool, age: float) -> Snapshot:
    if record.backend == "attached":
        next_step = f"See whether it still runs where it was started, or `tautools server stop {record.name}`."
        return Snapshot(State.UNKNOWN, f"Nobody answers at its address: {answer.detail}", age, next_step=next_step)
    if not here:
        detail = f"It does not answer, and its process on {record.host or 'its host'} cannot be seen from here."
        return Snapshot(State.UNKNOWN, detail, age)
    if record.certificate is not None:
        next_step = f"Read its log with `tautools server logs {record.name}`."
        return Snapshot(State.DEGRADED, f"It runs and does not answer: {answer.detail}", age, next_step=next_step)
    stage = read_startup_stage(log_lines(record, 400))
    left = remaining_start(record, registry, stage.percent)
    detail = f"{stage.name}, {left}" if left else stage.name
    return Snapshot(State.STARTING, detail, age, stage=stage.name, percent=stage.percent)


def _identity_problem(record: ServerRecord, answer: ModelList) -> str:
    if answer.status in {401, 403}:
        return "Another server answers on its port: it refuses this server's key."
    if answer.status != 200 or not answer.names:
        return f"It answers with status {answer.status}: {answer.detail}"
    missing = [name for name in (record.model, record.alias) if name and name not in answer.names]
    if missing:
        return f"Another server answers on its port: it serves {', '.join(answer.names)}, not {missing[0]}."
    return _shared_port(record)


def _shared_port(record: ServerRecord) -> str:
    """Say who else listens on the port of a server of this machine: half of its requests go there, without a word."""
    pid, started_at, port = record.pid, record.pid_started_at, urlsplit(record.base_url).port
    if pid is None or started_at is None or port is None or not record.on_this_host:
        return ""
    others = other_listeners(port, lambda: group_members(pid, started_at))
    who = ", ".join("another user" if holder is None else f"process {holder}" for holder in others)
    return f"Its port {port} is shared with {who}, which gets a part of its requests." if who else ""


def _answering_state(record: ServerRecord, answer: ModelList, busy: str, age: float) -> Snapshot:
    wrong = _identity_problem(record, answer)
    if wrong:
        next_step = f"Stop it with `tautools server stop {record.name}` and start it again on another port."
        return Snapshot(State.DEGRADED, wrong, age, next_step=next_step)
    if busy == "verifying":
        return Snapshot(State.VERIFYING, "The ladder is being climbed.", age)
    if record.certificate is None:
        next_step = f"Prove it with `tautools server verify {record.name}`."
        detail = "It answers and is not verified yet."
        return Snapshot(State.STARTING, detail, age, stage="answering", percent=100, next_step=next_step)
    failed = [check for check in record.certificate.checks if check.passed is False]
    if failed:
        next_step = f"Mend it, then run `tautools server verify {record.name}`."
        return Snapshot(State.DEGRADED, f"{failed[0].name}: {failed[0].detail}", age, next_step=next_step)
    return Snapshot(State.READY, "", age)
