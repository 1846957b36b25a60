"""Scores of one cell: pass^k and pass@k with intervals, under both conventions, with what they rest on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.records import Outcome
from tautools.stats import (
    TaskCounts,
    intervals,
    largest_k,
    mean_over_tasks,
    pass_at_k,
    pass_hat_k,
    spread,
    task_values,
    v1_counts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tautools.report.cells import ReportCell
    from tautools.report.floor import Floor
    from tautools.stats import Interval, Spread

__all__ = ["CellScore", "Estimate", "score", "scored_tasks"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure with where it may lie."""

    k: int
    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class CellScore:
    """What one cell achieved."""

    cell: ReportCell
    label: str
    """Short and unique among the cells of a report."""
    nested_in: int | None
    """Trials of the cell whose pool this one is a view on; None for that cell itself."""
    tasks: Mapping[str, TaskCounts]
    """Scored trials and passes of each task that has any: what is owed and user_errors are left out."""
    pass_hat: tuple[Estimate, ...]
    """pass^1 to pass^k, k up to the smallest number of scored trials of a task."""
    pass_at: tuple[Estimate, ...]
    v1: tuple[float, ...]
    """pass^1 … as tau-bench v1 counts: faults and missing trials failed, k up to the trial numbers found."""
    v1_trials: int
    outcomes: Mapping[Outcome, int]
    infra_faults: int
    """How often a conversation was lost to the infrastructure."""
    user_errors: int
    """How often one was owed again because the user model failed."""
    spread: Spread | None
    floor: Floor
    """Over the tasks that the score rests on; over the planned ones when none is scored."""

    @property
    def scored(self) -> int:
        """Conversations that carry a reward."""
        return sum(task.trials for task in self.tasks.values())


def score(cell: ReportCell, *, label: str, nested_in: int | None, floor: Floor, seed: int = 0) -> CellScore:
    """Compute everything about one cell; a cell with no scored conversation has no estimates at all.

    Parameters
    ----------
    cell : ReportCell
        The cell, with the conversations that are finished.
    label : str
        Its name in the report.
    nested_in : int, optional
        Trials of the widest cell of the same setting; None when this is that one.
    floor : Floor
        What doing nothing scores on the same tasks.
    seed : int
        Of the bootstrap behind the intervals; the same seed gives the same intervals.

    Returns
    -------
    CellScore
        Scores in [0, 1], as means over tasks.

    Notes
    -----
    Formulas and their sources are in `tautools.stats`: `pass_k` (estimators and both conventions), `intervals`,
    `variance`.
    """
    tasks = _counts(cell)
    counts = list(tasks.values())
    ks = range(1, largest_k(counts) + 1)
    v1_tasks, v1_trials = _v1(cell)
    return CellScore(
        cell=cell,
        label=label,
        nested_in=nested_in,
        tasks=tasks,
        pass_hat=_estimates(counts, ks, pass_hat_k, seed),
        pass_at=_estimates(counts, ks, pass_at_k, seed),
        v1=tuple(mean_over_tasks(v1_tasks, k) for k in range(1, v1_trials + 1)),
        v1_trials=v1_trials,
        outcomes=Counter(row.outcome for row in cell.rows),
        infra_faults=sum(event.kind == "fault" for event in cell.faults),
        user_errors=sum(event.kind == "user_error" for event in cell.faults),
        spread=spread(counts) if counts else None,
        floor=floor,
    )


def scored_tasks(cell: ReportCell) -> list[str]:
    """Return the tasks that a cell's score rests on: those with a scored conversation."""
    return list(_counts(cell))


def _counts(cell: ReportCell) -> dict[str, TaskCounts]:
    trials: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for row in cell.rows:
        if row.outcome.scored:
            trials[row.task_id] += 1
            passed[row.task_id] += row.outcome is Outcome.PASSED
    return {task: TaskCounts(trials[task], passed[task]) for task in cell.tasks if trials[task]}


def _estimates(
    counts: Sequence[TaskCounts], ks: range, estimator: Callable[[int, int, int], float], seed: int
) -> tuple[Estimate, ...]:
    columns = [task_values(counts, k, estimator) for k in ks]
    found = zip(ks, columns, intervals(columns, seed=seed), strict=True)
    return tuple(Estimate(k, sum(values) / len(values), limits) for k, values, limits in found)


def _v1(cell: ReportCell) -> tuple[list[TaskCounts], int]:
    """Count as tau-bench v1's file would: a row for every conversation that ended, in whatever way."""
    pairs = {(row.task_id, row.trial) for row in cell.rows}
    pairs |= {(event.task_id, event.trial) for event in cell.faults if event.trial is not None}
    passed: Counter[str] = Counter({task: 0 for task, _ in pairs})
    passed.update(row.task_id for row in cell.rows if row.outcome is Outcome.PASSED)
    trials = len({trial for _, trial in pairs})
    return v1_counts(list(passed.values()), trials), trials
