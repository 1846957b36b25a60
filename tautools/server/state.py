"""Where a server stands now. Order of authority: exit status, then the live probe, then the log."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tautools.files import tail
from tautools.server.failures.causes import Diagnosis, diagnose
from tautools.server.history import left_of_start
from tautools.server.layout.ports import twins
from tautools.server.on_slurm.state import ended_state, job_of, left_in_words, waiting_state
from tautools.server.proof.light import Models, ask_models
from tautools.server.registry import Registry
from tautools.server.states import Snapshot, State
from tautools.server.vllm.stages import read_stage
from tautools.shell import group_members, process_alive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.http import Http
    from tautools.records import ServerRecord
    from tautools.slurm import Job

__all__ = ["cause_of", "has_ended", "log_lines", "server_state"]


def server_state(
    record: ServerRecord, *, workspace: Path, http: Http | None = None, jobs: Mapping[str, Job] | None = None
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
    if record.how == "slurm":
        return _of_job(record, registry, jobs, http, age)
    here = record.how == "local" and record.host in {"", socket.gethostname()}
    if here and not _runs(record):
        return _ended(record, registry, age)
    answer = ask_models(record.base_url, key=registry.key(record), http=http or _new_http())
    if answer.status == 0:
        # It may have ended while it was asked; the process has the last word.
        return (
            _ended(record, registry, age)
            if here and not _runs(record)
            else _silent(record, registry, answer, here, age)
        )
    return _answering(record, answer, busy, age)


def _of_job(
    record: ServerRecord, registry: Registry, jobs: Mapping[str, Job] | None, http: Http | None, age: float
) -> Snapshot:
    """Return the state of a server that is a job: Slurm's word first, then its address, then its log."""
    record = registry.find(record.name) or record
    job = job_of(record, jobs)
    if job is not None and job.state.ended:
        return ended_state(record, job, age) or _ended(record, registry, age, job_state=job.state.name)
    if (job is None or record.shares_job) and registry.exit_code(record) is not None:
        return _ended(record, registry, age)
    waiting = waiting_state(record, job, age) if job is not None else None
    if waiting is not None:
        return waiting
    if not record.base_url:
        return Snapshot(State.UNKNOWN, f"Slurm tells nothing of its job {record.job_id}.", age)
    answer = ask_models(record.base_url, key=registry.key(record), http=http or _new_http())
    if answer.status == 0:
        return _silent(record, registry, answer, job is not None, age)
    doing = registry.doing(record)
    seen = _answering(record, answer, doing.what if doing is not None else "", age)
    return replace(seen, detail=left_in_words(job)) if seen.state is State.READY else seen


def has_ended(record: ServerRecord, *, workspace: Path) -> bool:
    """Whether a server's process or job has ended or it was forgotten; its address is not asked, which would be logged.

    Of a process on another host, and of a server that was attached, nothing is known: no.
    """
    registry = Registry(workspace)
    if not registry.is_current(record):
        return True
    if record.how == "slurm":
        job = job_of(record, None)
        ended = job is not None and job.state.ended
        return ended or ((job is None or record.shares_job) and registry.exit_code(record) is not None)
    return record.how == "local" and record.host in {"", socket.gethostname()} and not _runs(record)


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
    return diagnose(log_lines(record, 4000), exit_code=exit_code, job_state=job_state, spec=record.spec)


def log_lines(record: ServerRecord, lines: int = 200) -> list[str]:
    """Return the last lines of the server's output and then of its errors, each file in its own order."""
    return [line for log in (record.log_out, record.log_err) if log for line in tail(Path(log), lines)]


def _new_http() -> Http:
    from tautools.http import Http

    return Http()


def _runs(record: ServerRecord) -> bool:
    return (
        record.pid is not None
        and record.pid_started_at is not None
        and process_alive(record.pid, record.pid_started_at)
    )


def _ended(record: ServerRecord, registry: Registry, age: float, *, job_state: str = "") -> Snapshot:
    orphans = group_members(record.pid, record.pid_started_at) if record.pid and record.pid_started_at else []
    if registry.exit_code(record) == 0 and not orphans:
        return Snapshot(State.STOPPED, "It ended by itself.", age)
    why = cause_of(record, registry, job_state=job_state)
    if orphans:
        detail = f"{why.cause} {len(orphans)} of its workers still run."
        return Snapshot(State.FAILED, detail, age, next_step=f"End them with `tautools server stop {record.name}`.")
    return Snapshot(State.FAILED, why.cause, age, next_step=why.remedy)


def _silent(record: ServerRecord, registry: Registry, answer: Models, here: bool, age: float) -> Snapshot:
    if record.how == "attach":
        next_step = f"See whether it still runs where it was started, or `tautools server stop {record.name}`."
        return Snapshot(State.UNKNOWN, f"Nobody answers at its address: {answer.detail}", age, next_step=next_step)
    if not here:
        detail = f"It does not answer, and its process on {record.host or 'its host'} cannot be seen from here."
        return Snapshot(State.UNKNOWN, detail, age)
    if record.certificate is not None:
        next_step = f"Read its log with `tautools server logs {record.name}`."
        return Snapshot(State.DEGRADED, f"It runs and does not answer: {answer.detail}", age, next_step=next_step)
    stage = read_stage(log_lines(record, 400))
    left = left_of_start(record, registry, stage.percent)
    detail = f"{stage.name}, {left}" if left else stage.name
    return Snapshot(State.STARTING, detail, age, stage=stage.name, percent=stage.percent)


def _not_it(record: ServerRecord, answer: Models) -> str:
    if answer.status in {401, 403}:
        return "Another server answers on its port: it refuses this server's key."
    if answer.status != 200 or not answer.names:
        return f"It answers with status {answer.status}: {answer.detail}"
    missing = [name for name in (record.model, record.alias) if name and name not in answer.names]
    if missing:
        return f"Another server answers on its port: it serves {', '.join(answer.names)}, not {missing[0]}."
    return _shares_port(record)


def _shares_port(record: ServerRecord) -> str:
    """Say who else listens on the port of a server of this machine: half of its requests go there, without a word."""
    pid, started_at, port = record.pid, record.pid_started_at, urlsplit(record.base_url).port
    if pid is None or started_at is None or port is None or record.host not in {"", socket.gethostname()}:
        return ""
    others = twins(port, lambda: group_members(pid, started_at))
    who = ", ".join("another user" if holder is None else f"process {holder}" for holder in others)
    return f"Its port {port} is shared with {who}, which gets a part of its requests." if who else ""


def _answering(record: ServerRecord, answer: Models, busy: str, age: float) -> Snapshot:
    wrong = _not_it(record, answer)
    if wrong:
        next_step = f"Stop it with `tautools server stop {record.name}` and start it again on another port."
        return Snapshot(State.DEGRADED, wrong, age, next_step=next_step)
    if busy == "verifying":
        return Snapshot(State.VERIFYING, "The ladder is being climbed.", age)
    if record.certificate is None:
        next_step = f"Prove it with `tautools server verify {record.name}`."
        detail = "It answers and is not verified yet."
        return Snapshot(State.STARTING, detail, age, stage="answering", percent=100, next_step=next_step)
    failed = [rung for rung in record.certificate.rungs if rung.passed is False]
    if failed:
        next_step = f"Mend it, then run `tautools server verify {record.name}`."
        return Snapshot(State.DEGRADED, f"{failed[0].name}: {failed[0].detail}", age, next_step=next_step)
    return Snapshot(State.READY, "", age)
