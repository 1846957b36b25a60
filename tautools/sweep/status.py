"""Where each cell of a sweep stands, what its last attempt came to, and what a run of the sweep came to.

Whether a cell is done is read from the ledger. Its last attempt is written down beside the executed notebook, because
the notebook itself does not say how it ended: after a time-out, an interrupt or a killed kernel papermill calls every
cell completed.
"""

from __future__ import annotations

import socket
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tautools.errors import SweepError
from tautools.files import ensure_folder, write_atomic
from tautools.records import Record
from tautools.run import read_events
from tautools.shell import process_alive
from tautools.sweep.plan import plan_cells
from tautools.sweep.view import duration, status_html, status_summary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.params.models import SweepParams
    from tautools.run import CellResult
    from tautools.sweep.plan import PlannedCell


STOPPED = 143
"""Exit status of a notebook that was asked to stop: 128 + SIGTERM, as shells say it."""


class CellAttempt(Record):
    """One attempt at a cell."""

    pid: int
    pid_started_at: float
    """Start time of the process [s since the epoch]; with the pid it names one process for ever."""
    host: str
    started_at: float
    """Unix time [s]."""
    finished_at: float | None = None
    exit_code: int | None = None
    """0: the notebook ran to its end; 143: it was asked to stop."""
    cause: str = ""
    """Why it did not run to its end."""
    stdout: str = ""
    """Path of the log of what the notebook printed."""

    @property
    def running(self) -> bool:
        """Whether its process still works on it; of another host it is believed until it says otherwise."""
        if self.finished_at is not None:
            return False
        return self.host != socket.gethostname() or process_alive(self.pid, self.pid_started_at)


def read_attempt(path: Path) -> CellAttempt | None:
    """Return the last attempt, or None when there was none that can be read."""
    try:
        return CellAttempt.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_attempt(path: Path, attempt: CellAttempt) -> None:
    """Write down an attempt, so that readers see the old one or the new one."""
    ensure_folder(path.parent)
    write_atomic(path, attempt.model_dump_json(indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class CellStatus:
    """One cell as it stands now."""

    index: int
    env: str
    strategy: str
    model: str
    num_trials: int
    state: str
    """`done`, `running`, `failure_record` (its last attempt ended badly), `partial` or `pending`."""
    done: int
    """Finished conversations."""
    planned: int
    faults: int
    """Conversations of the cell that met a fault and are pending again."""
    cause: str
    """Why the last attempt failed, in one line; empty otherwise."""

    def __str__(self) -> str:
        what = f"{self.index} {self.env} {self.strategy} {self.model} {self.num_trials}"
        return f"{what}: {self.state}, {self.done} of {self.planned} done" + (f": {self.cause}" if self.cause else "")


class SweepStatus(list[CellStatus]):
    """The cells of a sweep; a list that a notebook shows as a table."""

    def __str__(self) -> str:
        return "\n".join([status_summary(self), *(str(cell) for cell in self)])

    def _repr_html_(self) -> str:
        return status_html(self)


def sweep_status(sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None) -> SweepStatus:
    """Return where each cell stands; reads only, also what may not be written.

    Raises
    ------
    ParamsError, BenchError
        As `plan_sweep` does.
    """
    folder = runs_folder(workspace, sweep.name)
    cells = plan_cells(sweep, workspace=workspace, only=only, to_read=True)
    return SweepStatus(status_of(cell, read_attempt(folder / f"{cell.cell.name}.json")) for cell in cells)


def runs_folder(workspace: Path, sweep: str) -> Path:
    """Return where a sweep's executed notebooks are, or will be."""
    return workspace / "runs" / sweep


def status_of(cell: PlannedCell, attempt: CellAttempt | None) -> CellStatus:
    """Return the status of a planned cell whose last attempt is known."""
    run = cell.cell.run
    state = _cell_state(cell, attempt)
    return CellStatus(
        index=cell.cell.index,
        env=run.env,
        strategy=run.strategy.value,
        model=cell.model,
        num_trials=run.num_trials,
        state=state,
        done=cell.planned - cell.pending,
        planned=cell.planned,
        faults=_fault_count(cell) if cell.pending else 0,
        cause=" · ".join(attempt.cause.splitlines()) if attempt is not None and state == "failed" else "",
    )


def _cell_state(cell: PlannedCell, attempt: CellAttempt | None) -> str:
    if cell.pending == 0:
        return "done"
    if attempt is not None and attempt.running:
        return "running"
    if attempt is not None and attempt.exit_code not in {0, STOPPED, None}:
        return "failed"
    return "partial" if cell.pending < cell.planned else "pending"


def _fault_count(cell: PlannedCell) -> int:
    pending = set(cell.prepared.pending)
    met = Counter(
        (event.task_id, event.trial)
        for event in read_events(cell.prepared.folder)
        if event.kind == "fault" and event.setting_id == cell.prepared.setting.id
    )
    return sum(1 for pair in met if pair in pending)


@dataclass(frozen=True, slots=True)
class SweepEvent:
    """Something that happened while a sweep was worked on."""

    kind: str
    """`plan`, `server`, `cell_started`, `cell_ended`, `comparison_progress` or `stopping`."""
    message: str
    cell: int | None = None
    """Index of the cell it is about."""
    done: int = 0
    """Finished conversations, each counted once."""
    planned: int = 0
    cells_done: int = 0
    cells: int = 0
    eta_s: float | None = None
    """Seconds to the end at the pace of this run; None until something was finished in it."""


@dataclass(frozen=True)
class SweepResult:
    """Where the cells stand after a run of the sweep."""

    sweep: str
    cells: SweepStatus
    executed: int
    """Notebooks that this run executed; 0 means that no server was started and no model was called."""
    interrupted: bool
    took_s: float

    @property
    def finished(self) -> bool:
        """Whether nothing is pending."""
        return all(cell.state == "done" for cell in self.cells)

    @property
    def failed(self) -> tuple[CellStatus, ...]:
        """Cells whose last attempt failed."""
        return tuple(cell for cell in self.cells if cell.state == "failed")

    def __str__(self) -> str:
        lines = [f"Sweep {self.sweep}: {status_summary(self.cells)}; {self._work()}."]
        lines += [str(cell) for cell in self.failed]
        if self.interrupted:
            lines.append("Interrupted; run it again to go on where it stopped.")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return status_html(self.cells)

    def _work(self) -> str:
        if not self.executed:
            return "nothing was executed and no model call was made"
        return f"{self.executed} notebooks executed in {duration(self.took_s)}"


def require_finished(result: CellResult) -> None:
    """Do nothing when a cell owes nothing; the last line of a cell's notebook, so that its status tells the truth.

    Raises
    ------
    SweepError
        When conversations are still pending, with the reason.
    """
    if result.finished:
        return
    kinds: Counter[str] = result.fault_kinds
    faults = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    why = result.cause.split("\nNext: ")[0] or (f"Faults: {faults}." if faults else "")
    raise SweepError(
        f"{result.pending} of {result.planned} conversations are still pending.",
        evidence="Interrupted." if result.interrupted else why,
        next_step="Run it again: it goes on where it stopped and repeats nothing that is finished.",
    )
