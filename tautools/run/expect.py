"""How long conversations will take: the order in which they start, and the estimate of when all are done."""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tautools.bench.types import Task
    from tautools.records import CommitRow

__all__ = ["Expectation"]

_SPOKEN_STEPS = 4
"""Greeting, question, confirmation, good-bye: steps of a conversation beside its reference actions."""


class Expectation:
    """Expected length of each task's conversations [s], from those of any trial, else from its reference actions.

    Parameters
    ----------
    tasks : sequence of Task
        The tasks of the cell.
    rows : iterable of CommitRow
        Finished conversations of the setting.
    """

    def __init__(self, tasks: Sequence[Task], rows: Iterable[CommitRow]) -> None:
        self._steps = {task.id: len(task.reference) + _SPOKEN_STEPS for task in tasks}
        self._took: dict[str, list[float]] = {}
        for row in rows:
            self.learn(row)

    def learn(self, row: CommitRow) -> None:
        """Take one more finished conversation into account."""
        if row.adopted is None and row.duration_s is not None:  # adopted ones were held by other servers
            self._took.setdefault(row.task_id, []).append(max(row.duration_s, 0.0))

    def seconds(self, task_id: str) -> float:
        """Return the expected length of one conversation [s]; before anything is known, in steps."""
        took = self._took.get(task_id)
        if took:
            return fmean(took)
        return self._steps.get(task_id, _SPOKEN_STEPS) * self._seconds_per_step()

    def eta_s(self, owed: Mapping[str, int], concurrency: int) -> float | None:
        """Return the seconds until `owed` (task id to number of conversations) is done; None while nothing is known."""
        if not owed:
            return 0.0
        if not self._took:
            return None
        each = {task_id: self.seconds(task_id) for task_id in owed}
        work = sum(each[task_id] * count for task_id, count in owed.items())
        return max(work / concurrency, *each.values())

    def _seconds_per_step(self) -> float:
        rates = [fmean(took) / self._steps[task_id] for task_id, took in self._took.items() if task_id in self._steps]
        return median(rates) if rates else 1.0
