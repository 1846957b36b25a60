"""Servers as jobs of Slurm: submit them, follow them, end them, and estimate when they would start.

One server is a job of its own. Several can be one job, on one node: its accelerators are asked for once and handed out
among the servers, so a customer and its agents start together or not at all. Each server keeps its name, key, port,
logs and record, and is verified, watched and stopped by itself; the job ends when the last of them has ended.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tautools.errors import ServerError, SlurmError
from tautools.files import ensure_folder, write_atomic
from tautools.params.models import SiteParams
from tautools.records import ServerRecord
from tautools.servers.backends import Backend, Look, name_taken, new_record, warn_missing_model
from tautools.servers.backends.slurm_script import job_script
from tautools.servers.placement import LaunchRequest
from tautools.servers.registry import Registry, check_name
from tautools.servers.state import Snapshot, State, ended_state, engine_died, out_of_sight, silent_state
from tautools.slurm.client import Slurm
from tautools.slurm.jobs import JobState, SlurmJob, explain_reason, parse_duration

_STOP_TIMEOUT_S = 120.0
"""The job looks once a second and sends SIGKILL after 20 looks; a shared disk may show the note late."""
_STOP_ASK_S = 2.0

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
"""State, detail and advice for each way a job ends; a job that FAILED is explained by its log."""


class SlurmBackend(Backend):
    """Jobs of Slurm: one job a server, or one of several servers in a job."""

    by_scheduler = True
    ask_every_s = 5.0

    def check(self, requests: Sequence[LaunchRequest], registry: Registry) -> float | None:
        """Ask Slurm whether it would take the job; a model that cannot be found from here is logged."""
        text = job_script_text(requests, workspace=registry.workspace)
        for request in requests:
            warn_missing_model(request.params, request.site, registry)
        return Slurm().test_only(text)

    def start(self, requests: Sequence[LaunchRequest], registry: Registry) -> list[ServerRecord]:
        """Submit the job of one or several servers; nothing is left behind when Slurm does not take it."""
        workspace = registry.workspace.resolve()
        records = _new_records(requests, registry)
        text = job_script(requests, records, workspace)
        logs, errors = ensure_folder(workspace / "logs"), ensure_folder(workspace / "errors")
        try:
            for record in records:
                registry.new_key(record.name)
                registry.add(record)
            script = registry.launch_file(records[0].name, "sbatch")
            write_atomic(script, text, mode=0o600)
            job_id = Slurm().submit(script.resolve())
        except BaseException:
            for record in records:
                registry.remove(record)
            raise
        submitted = []
        for record in records:
            file = f"{record.name}_{job_id}"
            fields = {"job_id": job_id, "log_out": str(logs / f"{file}.out"), "log_err": str(errors / f"{file}.err")}
            submitted.append(record.model_copy(update=fields))
            registry.add(submitted[-1])
        return submitted

    def refuse_running(self, record: ServerRecord, registry: Registry) -> None:
        """Raise when the job waits or runs, unless this was one of its several servers and has ended."""
        job = _job_of(record)
        if job is not None and not _ended(record, job, registry):
            state = f"job {job.job_id} is {job.state.value}"
            raise name_taken(record, "has a job in this workspace", state, "Use it, stop")

    def poll(self, record: ServerRecord, look: Look) -> Snapshot:
        """Ask Slurm first, then the address, then the log."""
        registry = look.registry
        job = _job_of(record) if look.jobs is None else look.jobs.get(record.job_id)
        if _ended(record, job, registry):
            return self._ended_job(record, job) or ended_state(record, registry, job_state=_end_word(job))
        if (waiting := _not_begun(record, job)) is not None:
            return waiting
        answer, snapshot = look.ask(record)
        if snapshot is None:
            return silent_state(record, registry, answer) if job is not None else out_of_sight(record)
        if snapshot.state is State.READY and job is not None and job.left_s is not None:
            hours, minutes = divmod(int(job.left_s // 60), 60)
            left = f"{f'{hours} h ' if hours else ''}{minutes} min until its time limit"
            return replace(snapshot, detail=", ".join(filter(None, (snapshot.detail, left))))
        return snapshot

    def _ended_job(self, record: ServerRecord, job: SlurmJob | None) -> Snapshot | None:
        """Return the state of a server whose job has ended; None when its own log has to say why."""
        if job is None or job.state not in _JOB_ENDS or (job.state is JobState.COMPLETED and engine_died(record)):
            return None
        state, detail, advice = _JOB_ENDS[job.state]
        where = f" Job {job.job_id}{f' on {job.node}' if job.node else ''}."
        next_step = "" if state is State.STOPPED else f"{advice} {self.start_again(record)}".strip()
        return Snapshot(state, detail + where, next_step=next_step)

    def has_ended(self, record: ServerRecord, registry: Registry) -> bool:
        """Return whether the job has ended, or this server of a job of several."""
        return _ended(record, _job_of(record), registry)

    def job_state(self, record: ServerRecord) -> str:
        """Return Slurm's word for how the job ended."""
        return _end_word(_job_of(record))

    def stop(self, record: ServerRecord, registry: Registry, emit: Callable[[str], None], *, term_s: float) -> None:
        """Cancel the job, or ask it to end this one of its servers."""
        if registry.neighbours(record):
            _stop_one(record, registry.launch_file(record.name, "stop"), emit)
        else:
            emit(f"scancel {record.job_id}")
            Slurm().cancel(record.job_id)

    def time_left(self, record: ServerRecord) -> float | None:
        """Return how long the job may still run [s]."""
        return Slurm().time_left(record.job_id)


def job_script_text(requests: Sequence[LaunchRequest], *, workspace: Path) -> str:
    """Return the job script of one server, or of several that share the job, to read and to submit by hand.

    Nothing is written. A ParamsError is raised when a value cannot stand in a job script.
    """
    registry = Registry(workspace.resolve())
    return job_script(requests, _new_records(requests, registry), registry.workspace)


def _new_records(requests: Sequence[LaunchRequest], registry: Registry) -> list[ServerRecord]:
    return [
        new_record(
            request,
            port="$port",  # the job puts the one there that it found
            backend="slurm",
            base_url="",
            key_file=str(registry.folder.resolve() / f"{check_name(request.name)}.key"),
            shares_job=len(requests) > 1,
        )
        for request in requests
    ]


def ask_jobs(records: Sequence[ServerRecord]) -> Mapping[str, SlurmJob]:
    """Return what Slurm says of the jobs of these servers, in one query; nothing when it cannot be asked."""
    try:
        return Slurm().jobs([record.job_id for record in records])
    except SlurmError:
        return {}


def _job_of(record: ServerRecord) -> SlurmJob | None:
    return ask_jobs([record]).get(record.job_id)


def _end_word(job: SlurmJob | None) -> str:
    return job.state.name if job is not None and job.state.ended else ""


def _ended(record: ServerRecord, job: SlurmJob | None, registry: Registry) -> bool:
    """Whether the job has ended, or this server of several, or one whose job Slurm has forgotten."""
    if job is not None and job.state.ended:
        return True
    return (job is None or record.shares_job) and registry.exit_code(record) is not None


def _not_begun(record: ServerRecord, job: SlurmJob | None) -> Snapshot | None:
    """Return the state of a server whose job has not begun its work; None when it has."""
    if job is None:
        unknown = f"Slurm does not know its job {record.job_id}."
        return None if record.base_url else Snapshot(State.UNKNOWN, unknown)
    if job.state in {JobState.PENDING, JobState.SUSPENDED}:
        reason = explain_reason(job.reason) if job.state is JobState.PENDING else "It is suspended."
        if job.starts_at is not None:
            minutes = max(0, round((job.starts_at - time.time()) / 60))
            clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.starts_at))
            reason += f" Slurm thinks it starts at {clock}, in {minutes // 60} h {minutes % 60} min."
        return Snapshot(State.QUEUED, f"Job {job.job_id}: {reason}")
    if not record.base_url:
        where = f" on {job.node}" if job.node else ""
        return Snapshot(State.STARTING, f"Job {job.job_id} has begun{where}.", stage="job started")
    return None


def _stop_one(record: ServerRecord, note: Path, emit: Callable[[str], None]) -> None:
    """Ask the server's job to end this one, and return when nothing of it runs; the others go on."""
    emit(f"asking job {record.job_id} to end it; the job goes on with its other servers")
    write_atomic(note, record.alias, mode=0o600)
    began = asked_at = time.monotonic()
    while note.exists():
        now = time.monotonic()
        if now - asked_at > _STOP_ASK_S:
            asked_at = now
            job = Slurm().jobs([record.job_id]).get(record.job_id)
            if job is None or job.state.ended:
                return
            if now - began > _STOP_TIMEOUT_S:
                note.unlink(missing_ok=True)
                raise ServerError(
                    f"Job {record.job_id} did not end its server {record.name!r} within {_STOP_TIMEOUT_S:g} s.",
                    next_step=f"`scancel {record.job_id}` ends it with all servers of the job.",
                )
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class StartEstimate:
    """One way to ask for the job."""

    asks: str
    """What is asked for, as the site file would say it."""
    starts_at: float | None = None
    """When Slurm thinks that it would start [s since the epoch]; None when it does not say, or refuses it."""
    refused: str = ""


def estimate_starts(request: LaunchRequest, *, workspace: Path) -> list[StartEstimate]:
    """Return when the job would start as the site asks, first, and with less of one thing; nothing is submitted.

    Cards are not varied: a server needs the ones that it needs.
    """
    estimates = []
    for asks, site in _variants(request.site):
        text = job_script_text([replace(request, site=site)], workspace=workspace)
        try:
            estimates.append(StartEstimate(asks, Slurm().test_only(text)))
        except SlurmError as error:
            estimates.append(StartEstimate(asks, refused=error.problem))
    return estimates


def _variants(site: SiteParams) -> Iterator[tuple[str, SiteParams]]:
    yield f"as site {site.name} asks", site
    whole_s = parse_duration(site.time_limit or "")
    for share in (2, 4):
        minutes = int((whole_s or 0) / 60 / share)
        if minutes >= 30:
            limit = f"{minutes // 60:02}:{minutes % 60:02}:00"
            yield f"time_limit: {limit}", site.model_copy(update={"time_limit": limit})
    for field, least in (("cores", 4), ("memory_gib", 8)):
        value = getattr(site, field)
        if value is not None and value > least:
            yield f"{field}: {value // 2}", site.model_copy(update={field: value // 2})
