"""The state of a server, and how it is read from its address, its exit status and its log.

What runs and what has ended is a matter of the backend; see `backends`. Kept too: how long former starts took, in
`servers/cache/starts.jsonl`. Starts are alike when model, cards, device and engine are; the median of the last few
counts, because the first start of a model downloads and compiles what later ones find.
"""

import contextlib
import json
import os
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from tautools.errors import FilesError
from tautools.files import ensure_folder, read_lines, tail, write_atomic
from tautools.records import ServerRecord
from tautools.redaction import redacted_lines
from tautools.servers.checks.target import MODEL_LIST, ModelList
from tautools.servers.diagnose import NO_FAILURE, Diagnosis, diagnose_log
from tautools.servers.ports import other_listeners
from tautools.servers.registry import Registry, processes_of
from tautools.servers.vllm.log import read_startup_stage
from tautools.shell import process_alive

_STARTS_KEPT = 400
_STARTS_COMPARED = 5
_WARM_UP_PERCENT = 62
"""From here on a start is so regular that the time so far predicts the time left."""
_MAX_TAIL_BYTES = 262_144
"""How far back the last lines of a log are searched."""


class State(StrEnum):
    """Where a server stands.

    READY means: it passed all checks and answers as itself now. A line in the log, an open port or a record on disk is
    not enough.
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
        return self.failed or self is State.STOPPED

    @property
    def failed(self) -> bool:
        """Whether it ended without being asked to."""
        return self in {State.FAILED, State.OUT_OF_MEMORY, State.TIMEOUT, State.PREEMPTED, State.NODE_FAIL}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A server's state at the moment it was asked."""

    state: State
    detail: str = ""
    """One sentence: the stage of a start, the cause of a failure, what is wrong with a degraded server."""
    age: float = 0.0
    """Since the server was started [s]."""
    stage: str = ""
    """While it starts: what it is doing, such as `loading weights`."""
    percent: int | None = None
    """While it starts: how far, in [0, 100], read from its log; for a progress bar, never as evidence."""
    next_step: str = ""
    """What to do about it, when something is wrong."""

    def __str__(self) -> str:
        share = "" if self.percent is None else f" {self.percent}%"
        return f"{self.state.value}{share}" + (f": {self.detail}" if self.detail else "")


def process_runs(record: ServerRecord) -> bool:
    """Return whether the process of a server runs on this machine."""
    return record.process is not None and process_alive(*record.process)


def ended_state(record: ServerRecord, registry: Registry, *, job_state: str = "") -> Snapshot:
    """Return the state of a server whose process or job has ended; its exit status and its log say why."""
    orphans = processes_of(record)
    if registry.exit_code(record) == 0 and not orphans and not engine_died(record):
        return Snapshot(State.STOPPED, "It ended by itself.")
    diagnosis = diagnose_end(record, registry, job_state=job_state)
    if not orphans:
        return Snapshot(State.FAILED, diagnosis.cause, next_step=diagnosis.fix)
    detail = f"{diagnosis.cause} {len(orphans)} of its workers still run."
    end_them = f"End them with `tautools server stop {record.name}`."
    return Snapshot(State.FAILED, detail, next_step=f"{end_them} {diagnosis.fix}")


def engine_died(record: ServerRecord) -> bool:
    """Return whether the log says that vLLM's engine died; the server around it then ends in order, with status 0."""
    return any("EngineDeadError" in line for line in log_lines(record, 400))


def silent_state(record: ServerRecord, registry: Registry, answer: ModelList) -> Snapshot:
    """Return the state of a server that runs and does not answer: it starts, or it hangs."""
    if record.certificate is not None:
        detail = f"It runs and does not answer: {answer.detail}"
        return Snapshot(State.DEGRADED, detail, next_step=f"Read its log with `tautools server logs {record.name}`.")
    stage = read_startup_stage(log_lines(record, 400))
    detail = ", ".join(filter(None, (stage.name, remaining_start(record, registry, stage.percent))))
    return Snapshot(State.STARTING, detail, stage=stage.name, percent=stage.percent)


def out_of_sight(record: ServerRecord) -> Snapshot:
    """Return the state of a server that does not answer and whose process cannot be seen."""
    where = record.host or "its host"
    return Snapshot(State.UNKNOWN, f"It does not answer, and its process on {where} cannot be seen from here.")


def answering_state(record: ServerRecord, answer: ModelList, *, verifying: str | None) -> Snapshot:
    """Return the state of a server that answers: it may be another one, not verified, degraded or ready.

    `verifying` is what running checks wait for; None while none run.
    """
    verify = f"`tautools server verify {record.name}`"
    if problem := _identity_problem(record, answer):
        next_step = f"Stop it with `tautools server stop {record.name}` and start it again on another port."
        return Snapshot(State.DEGRADED, problem, next_step=next_step)
    if verifying is not None:
        return Snapshot(
            State.VERIFYING, f"The checks are running: {verifying}" if verifying else "The checks are running."
        )
    if record.certificate is None:
        detail, next_step = "It answers and is not verified yet.", f"Verify it with {verify}."
        return Snapshot(State.STARTING, detail, stage="answering", percent=100, next_step=next_step)
    if (failed := record.certificate.failed) is not None:
        return Snapshot(State.DEGRADED, f"{failed.name}: {failed.detail}", next_step=f"Fix it, then run {verify}.")
    return Snapshot(State.READY, ", ".join(f"without {what}" for what in record.certificate.without))


def _identity_problem(record: ServerRecord, answer: ModelList) -> str:
    if answer.absent and record.certificate is not None and MODEL_LIST in record.certificate.without:
        return ""
    if answer.refuses_key:
        return "Another server answers on its port: it refuses this server's key."
    if answer.status != 200 or not answer.names:
        return f"It answers with status {answer.status}: {answer.detail}"
    missing = [name for name in (record.model, record.alias) if name and name not in answer.names]
    if missing:
        return f"Another server answers on its port: it serves {', '.join(answer.names)}, not {missing[0]}."
    port = urlsplit(record.base_url).port
    if record.pid is None or port is None or not record.on_this_host:
        return ""
    others = other_listeners(port, lambda: processes_of(record))
    names = ", ".join("another user" if holder is None else f"process {holder}" for holder in others)
    return f"Its port {port} is shared with {names}, which gets a part of its requests." if names else ""


def diagnose_end(record: ServerRecord, registry: Registry, *, job_state: str = "") -> Diagnosis:
    """Return why a server whose process or job has ended did so, from its log, its exit status and its job's state."""
    exit_code = registry.exit_code(record)
    found = diagnose_log(log_lines(record, 4000), exit_code=exit_code, job_state=job_state, spec=record.spec)
    if found.kind == NO_FAILURE:
        cause = "Its process has ended without a word in its log: it was killed, by a person or for want of memory."
        job = f" `sacct -j {record.job_id}` says how its job ended." if record.job_id else ""
        found = replace(
            found, kind="unknown", cause=cause, fix=f"See the end of its log with `tautools server logs`.{job}"
        )
    # The table of failures knows no names.
    return replace(found, fix=found.fix.replace("tautools server logs`", f"tautools server logs {record.name}`"))


def log_lines(record: ServerRecord, lines: int = 200) -> list[str]:
    """Return the last lines of the server's output and then of its errors, each file in its own order."""
    found = [line for log in (record.log_out, record.log_err) if log for line in tail(Path(log), lines)]
    return redacted_lines(found)


class LogReader:
    """Reads what was added to a file since the last look; of what is there at the first, only the last `lines`."""

    def __init__(self, path: Path, lines: int | None = None) -> None:
        self.path = path
        self._lines = lines
        self._offset = 0
        self._torn = b""

    def new_lines(self) -> list[str]:
        """Return the lines that are complete since the last look; a redrawn progress bar counts as a line."""
        most, self._lines = self._lines, None  # all that comes later is new
        try:
            with self.path.open("rb") as file:
                if most is not None:
                    self._offset = max(0, os.fstat(file.fileno()).st_size - _MAX_TAIL_BYTES)
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *whole, self._torn = (self._torn + data).replace(b"\r", b"\n").split(b"\n")
        lines = redacted_lines([line.decode(errors="replace") for line in whole if line.strip()])
        return lines if most is None else lines[max(0, len(lines) - most) :]


def record_start(record: ServerRecord, registry: Registry) -> None:
    """Write down how long the start of a server that was verified just now took."""
    took_s = time.time() - registry.began_at(record)
    if took_s < 0:
        return
    row = {"like": _start_kind(record), "took_s": round(took_s, 1), "at": round(time.time())}
    rows = [*_past_starts(registry), row][-_STARTS_KEPT:]
    # A verified server stays verified when this cannot be kept.
    with contextlib.suppress(FilesError):
        ensure_folder(registry.folder, mode=0o700)
        folder = ensure_folder(registry.folder / "cache")
        write_atomic(folder / "starts.jsonl", "".join(json.dumps(row) + "\n" for row in rows), mode=0o600)


def remaining_start(record: ServerRecord, registry: Registry, percent: int) -> str:
    """Return in words how long a start may still take; empty when it cannot be estimated."""
    so_far_s, kind = time.time() - registry.began_at(record), _start_kind(record)
    alike = [row["took_s"] for row in _past_starts(registry) if row.get("like") == kind][-_STARTS_COMPARED:]
    if alike:
        left_s = median(alike) - so_far_s
        by = "the last start" if len(alike) == 1 else f"the last {len(alike)} starts"
    elif percent >= _WARM_UP_PERCENT and so_far_s > 0:
        left_s = so_far_s * (100 - percent) / percent
        by = "what it took so far"
    else:
        return ""
    left = f"{max(5, round(left_s / 5) * 5)} s" if left_s < 90 else f"{round(left_s / 60)} min"
    return f"about {left} left, by {by}"


def _start_kind(record: ServerRecord) -> str:
    across = (record.spec.get("vllm") or {}).get("tensor_parallel_size", 1)
    return json.dumps([record.engine, record.model, across, record.site.get("name", ""), record.site.get("device", "")])


def _past_starts(registry: Registry) -> list[dict[str, Any]]:
    rows = []
    with contextlib.suppress(OSError, ValueError):
        for line in read_lines(registry.folder / "cache" / "starts.jsonl"):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("took_s"), int | float):
                rows.append(row)
    return rows
