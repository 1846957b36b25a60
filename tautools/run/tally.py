"""How far a cell has come, kept up to date conversation by conversation."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tautools.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tautools.records import CommitRow
    from tautools.run.plan import Cell

__all__ = ["Tally"]


class Tally:
    """Counts what is planned, done, passed, scored and owed.

    Parameters
    ----------
    cell : Cell
        The plan.
    rows : iterable of CommitRow
        What is finished; rows that the cell does not plan are not counted.
    """

    def __init__(self, cell: Cell, rows: Iterable[CommitRow]) -> None:
        self.planned = len(cell.planned)
        self.done = 0
        self.outcomes: Counter[Outcome] = Counter()
        self.owed: Counter[str] = Counter(task_id for task_id, _ in cell.planned)
        """Task id to the number of its conversations that are not finished."""
        self._left = {cell.key(pair) for pair in cell.planned}
        for row in rows:
            self.finished(row)

    def finished(self, row: CommitRow) -> None:
        """Count one more finished conversation, once."""
        if row.key not in self._left:
            return
        self._left.remove(row.key)
        self.done += 1
        self.outcomes[row.outcome] += 1
        self.owed[row.task_id] -= 1
        self.owed += Counter()  # drops zeros

    def progress(self) -> dict[str, int]:
        """Return the counts that events carry."""
        scored = sum(count for outcome, count in self.outcomes.items() if outcome.scored)
        return {
            "planned": self.planned,
            "done": self.done,
            "passed": self.outcomes[Outcome.PASSED],
            "scored": scored,
        }
