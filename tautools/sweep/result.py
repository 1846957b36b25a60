"""What working on a sweep came to, and what a cell's notebook ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.errors import SweepError
from tautools.sweep.view import duration, status_html, status_summary

if TYPE_CHECKING:
    from collections import Counter

    from tautools.run import CellResult
    from tautools.sweep.status import CellStatus, SweepStatus

__all__ = ["SweepEvent", "SweepResult", "require_finished"]


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
        """Whether nothing is owed."""
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
        When conversations are still owed, with the reason.
    """
    if result.finished:
        return
    kinds: Counter[str] = result.fault_kinds
    faults = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    why = result.cause.split("\nNext: ")[0] or (f"Faults: {faults}." if faults else "")
    raise SweepError(
        f"{result.owed} of {result.planned} conversations are still owed.",
        evidence="Interrupted." if result.interrupted else why,
        next_step="Run it again: it goes on where it stopped and repeats nothing that is finished.",
    )
