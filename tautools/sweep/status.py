"""Where each cell of a sweep stands, how its last attempt ended, and what a run of the sweep came to.

Whether a cell is done is read from the ledger. Its last attempt is recorded next to the executed notebook, because the
notebook itself does not say how it ended: after a time-out, an interrupt or a killed kernel papermill calls every cell
completed.
"""

import socket
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from tautools.errors import SweepError
from tautools.files import ensure_folder, write_atomic
from tautools.params.models import SweepParams
from tautools.records import Record
from tautools.run import CellResult, read_events
from tautools.run.answers import FlaggedAnswers, flag_lines, flagged_in_rows
from tautools.run.ledger import count_user_errors
from tautools.run.waiting import read_waiting
from tautools.shell import process_alive
from tautools.sweep.cells import runs_folder
from tautools.sweep.plan import CELL_COLUMNS, PlannedCell, duration, plan_cells, refreshed, table_html

Note = TypeVar("Note", bound=Record)

STOPPED = 143
"""Exit status of a notebook that was asked to stop: 128 + SIGTERM, as shells count."""

GLYPHS = {"done": "✔", "running": "…", "failed": "✖", "partial": "◐", "pending": "○"}
"""State of a cell as a sign; the word always stands next to it."""

STATUS_COLUMNS = (*CELL_COLUMNS, "state", "conversations")


class NotedProcess(Record):
    """A process that was written down, so that others can find it."""

    pid: int
    pid_started_at: float
    """Start time of the process [s since the epoch]."""
    started_at: float
    """Unix time [s]."""

    @property
    def alive(self) -> bool:
        """Whether it still works, on this host."""
        return process_alive(self.pid, self.pid_started_at)


class CellAttempt(NotedProcess):
    """One attempt at a cell."""

    host: str
    finished_at: float | None = None
    exit_code: int | None = None
    """0: the notebook ran to its end; 143: it was asked to stop."""
    cause: str = ""
    """Why it did not run to its end."""
    stdout: str = ""
    """Path of the log of what the notebook printed."""

    @property
    def running(self) -> bool:
        """Whether its process still works on it; on another host it does until it says otherwise."""
        return self.finished_at is None and (self.host != socket.gethostname() or self.alive)


def read_note(path: Path, kind: type[Note]) -> Note | None:
    """Return what was written down last, or None when there is nothing that can be read."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_note(path: Path, note: Record) -> None:
    """Write a record down atomically: readers see the old one or the new one."""
    ensure_folder(path.parent)
    write_atomic(path, note.model_dump_json(indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class CellStatus:
    """One cell as it stands now."""

    index: int
    env: str
    strategy: str
    model: str
    num_trials: int
    state: str
    """`done`, `running`, `failed` (its last attempt ended badly), `partial` or `pending`."""
    done: int
    """Finished conversations."""
    planned: int
    faults: int
    """Pending conversations that met a fault."""
    cause: str
    """Why the last attempt failed, in one line; empty otherwise."""
    waiting: str = ""
    """The call that it waits for, when one takes long."""
    user_errors: int = 0
    """Finished conversations without a reward: the customer's model failed."""
    flagged: tuple[FlaggedAnswers, ...] = ()
    """What looks wrong in the answers of finished conversations, by role."""
    setting_id: str = ""
    """Of its conversations; cells with the same one are views on the same pool."""

    @property
    def count(self) -> str:
        """How many conversations are finished, and how many of them ended in a user_error."""
        return f"{self.done} of {self.planned}" + (f", {self.user_errors} user_error" if self.user_errors else "")

    @property
    def columns(self) -> tuple[str, ...]:
        """What stands in the `STATUS_COLUMNS` of a table."""
        state = f"{GLYPHS[self.state]} {self.state}"
        what = (str(self.index), self.env, self.strategy, self.model, str(self.num_trials))
        return (*what, state, self.count)

    def __str__(self) -> str:
        what = f"{self.index} {self.env} {self.strategy} {self.model} {self.num_trials}"
        note = self.cause or (f"waiting for {self.waiting}" if self.waiting else "")
        return f"{what}: {self.state}, {self.count} done" + (f": {note}" if note else "")


class SweepStatus(list[CellStatus]):
    """The cells of a sweep; a list that a notebook shows as a table."""

    @property
    def summary(self) -> str:
        """The number of cells in each state."""
        counts = Counter(cell.state for cell in self)
        others = [f"{counts[state]} {state}" for state in ("running", "failed", "partial", "pending") if counts[state]]
        others += [f"{self.user_errors} conversations ended in a user_error"] if self.user_errors else []
        return ", ".join([f"{counts['done']} of {len(self)} cells done", *others])

    @property
    def user_errors(self) -> int:
        """Finished conversations without a reward because the customer's model failed, those of nested cells once."""
        most: dict[str, int] = {}
        for cell in self:
            most[cell.setting_id] = max(most.get(cell.setting_id, 0), cell.user_errors)
        return sum(most.values())

    @property
    def notes(self) -> list[str]:
        """What looks wrong in the answers of cells; what is the same in nested ones is said once."""
        cells: defaultdict[str, list[str]] = defaultdict(list)
        for cell in self:
            for line in flag_lines(cell.flagged):
                cells[line].append(str(cell.index))
        return [f"cell {', '.join(indices)}: {line}" for line, indices in cells.items()]

    def __str__(self) -> str:
        return "\n".join([self.summary, *map(str, self), *self.notes])

    def _repr_html_(self) -> str:
        rows = ((*cell.columns, cell.cause or (cell.waiting and f"waiting for {cell.waiting}")) for cell in self)
        notes = "".join(f"<div>{escape(note)}</div>" for note in self.notes)
        return f"<div>{escape(self.summary)}{table_html((*STATUS_COLUMNS, 'cause'), rows)}{notes}</div>"


def sweep_status(sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None) -> SweepStatus:
    """Return where each cell stands; parameters and errors are those of `plan_cells`, and nothing is written."""
    return SweepWatch(sweep, workspace=workspace, only=only).status()


class SweepWatch:
    """Reads where each cell stands, again and again: the benchmark once, and of each ledger only what was added."""

    def __init__(self, sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None) -> None:
        self._sweep, self._workspace, self._only = sweep, workspace, only
        self._cells: list[PlannedCell] = []

    def status(self) -> SweepStatus:
        """Return where each cell stands now; raises as `sweep_status`."""
        self._cells = refreshed(self._cells) or plan_cells(
            self._sweep, workspace=self._workspace, only=self._only, to_read=True
        )
        return status_of(self._cells, runs_folder(self._workspace, self._sweep.name))


def status_of(cells: Sequence[PlannedCell], folder: Path) -> SweepStatus:
    """Return the status of planned cells whose notebooks are in `folder`."""
    return SweepStatus(_cell_status(cell, read_note(folder / f"{cell.name}.json", CellAttempt)) for cell in cells)


def _cell_status(cell: PlannedCell, attempt: CellAttempt | None) -> CellStatus:
    run, state, faults = cell.run, _cell_state(cell, attempt), 0
    if cell.pending:
        events = read_events(cell.prepared.folder, "fault")
        faults = len({(event.setting_id, event.task_id, event.trial) for event in events} & cell.missing)
    rows = list(cell.prepared.done.values())
    return CellStatus(
        index=cell.index,
        env=run.env,
        strategy=run.strategy.value,
        model=cell.model,
        num_trials=run.num_trials,
        state=state,
        done=cell.planned - cell.pending,
        planned=cell.planned,
        faults=faults,
        cause=" · ".join(attempt.cause.splitlines()) if attempt is not None and state == "failed" else "",
        waiting=read_waiting(cell.prepared.folder) if state == "running" else "",
        setting_id=cell.prepared.setting.id,
        user_errors=count_user_errors(rows),
        flagged=tuple(flagged_in_rows(cell.prepared.folder, rows)),
    )


def _cell_state(cell: PlannedCell, attempt: CellAttempt | None) -> str:
    if cell.pending == 0:
        return "done"
    if attempt is not None and attempt.running:
        return "running"
    if attempt is not None and attempt.exit_code not in {0, STOPPED, None}:
        return "failed"
    return "partial" if cell.pending < cell.planned else "pending"


@dataclass(frozen=True, slots=True)
class SweepEvent:
    """Something that happened while a sweep was worked on."""

    kind: str
    """`plan`, `server`, `cell_started`, `cell_ended`, `progress` or `stopping`."""
    message: str
    cell: int | None = None
    """Index of the cell it is about."""
    done: int = 0
    """Finished conversations, each counted once."""
    planned: int = 0
    cells_done: int = 0
    cells: int = 0
    eta_s: float | None = None
    """Seconds to the end: by the plan at first, by the pace of this run the more of it is done."""
    waiting: str = ""
    """The call that a running cell waits for, when one takes long."""


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
        work = f"{self.executed} notebooks executed in {duration(self.took_s)}"
        nothing = "nothing was executed and no model call was made"
        lines = [f"Sweep {self.sweep}: {self.cells.summary}; {work if self.executed else nothing}."]
        lines += [*map(str, self.failed), *self.cells.notes]
        if self.interrupted:
            lines.append("Interrupted; run it again to go on where it stopped.")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return self.cells._repr_html_()


def require_finished(result: CellResult) -> None:
    """Raise when a cell is not finished; the last line of a cell's notebook, so that its exit status is true.

    Parameters
    ----------
    result : CellResult
        What came of running the cell.

    Raises
    ------
    SweepError
        When conversations are still pending, with the reason.
    """
    if result.finished:
        return
    faults = ", ".join(f"{count} {kind}" for kind, count in result.fault_kinds.most_common())
    cause = result.cause.split("\nNext: ")[0] or (f"Faults: {faults}." if faults else "")
    raise SweepError(
        f"{result.pending} of {result.planned} conversations are still pending.",
        evidence="Interrupted." if result.interrupted else cause,
        next_step="Run it again: it goes on where it stopped and repeats nothing that is finished.",
    )
