"""Where each cell of a sweep stands: read from the ledger, and from who works on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.run import read_events
from tautools.sweep.cellrun import STOPPED, read_cell_run
from tautools.sweep.plan import plan_cells
from tautools.sweep.view import status_html, status_summary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.params.models import SweepParams
    from tautools.sweep.cellrun import CellRun
    from tautools.sweep.plan import PlannedCell

__all__ = ["CellStatus", "SweepStatus", "runs_folder", "status_of", "sweep_status"]


@dataclass(frozen=True, slots=True)
class CellStatus:
    """One cell as it stands now."""

    index: int
    env: str
    strategy: str
    model: str
    num_trials: int
    state: str
    """`done`, `running`, `failed` (its last attempt ended badly), `partial` or `owed`."""
    done: int
    """Finished conversations."""
    planned: int
    faults: int
    """Conversations of the cell that met a fault and are owed again."""
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
    return SweepStatus(status_of(cell, read_cell_run(folder / f"{cell.cell.name}.json")) for cell in cells)


def runs_folder(workspace: Path, sweep: str) -> Path:
    """Return where a sweep's executed notebooks are, or will be."""
    return workspace / "runs" / sweep


def status_of(cell: PlannedCell, attempt: CellRun | None) -> CellStatus:
    """Return the status of a planned cell whose last attempt is known."""
    run = cell.cell.run
    state = _state(cell, attempt)
    return CellStatus(
        index=cell.cell.index,
        env=run.env,
        strategy=run.strategy.value,
        model=cell.model,
        num_trials=run.num_trials,
        state=state,
        done=cell.planned - cell.owed,
        planned=cell.planned,
        faults=_faults(cell) if cell.owed else 0,
        cause=" · ".join(attempt.cause.splitlines()) if attempt is not None and state == "failed" else "",
    )


def _state(cell: PlannedCell, attempt: CellRun | None) -> str:
    if cell.owed == 0:
        return "done"
    if attempt is not None and attempt.running:
        return "running"
    if attempt is not None and attempt.exit_code not in {0, STOPPED, None}:
        return "failed"
    return "partial" if cell.owed < cell.planned else "owed"


def _faults(cell: PlannedCell) -> int:
    owed = set(cell.prepared.owed)
    met = Counter(
        (event.task_id, event.trial)
        for event in read_events(cell.prepared.folder)
        if event.kind == "fault" and event.setting_id == cell.prepared.setting.id
    )
    return sum(1 for pair in met if pair in owed)
