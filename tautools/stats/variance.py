"""How trials of one task hang together: intraclass correlation, standard error over tasks, tasks that flip.

Source
------
ICC(1): Shrout and Fleiss, Psychological Bulletin 86 (1979) 420-428, one-way random effects; with unequal trials the
group size is the usual n0. Standard errors over tasks: Miller, "Adding Error Bars to Evals", arXiv 2411.00640 (2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from tautools.errors import StatsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.stats.pass_k import TaskCounts


@dataclass(frozen=True, slots=True)
class Spread:
    """What varies, within tasks and between them; None where the counts do not allow it."""

    clustered_se: float | None
    """Standard error of pass^1 over task means; needs two tasks."""
    icc: float | None
    """Share of the variance that lies between tasks; needs two tasks, repeated trials and some variance."""
    flips: float | None
    """Share of the tasks with several trials that passed in some and failed in others, in [0, 1]; needs one such."""


def spread(counts: Sequence[TaskCounts]) -> Spread:
    """Return the spread of pass^1 over tasks and trials.

    Raises
    ------
    StatsError
        Without tasks.
    """
    if not counts:
        raise StatsError("There is no task to look at (n = 0).", next_step="Run the cell first.")
    means = [task.passed / task.trials for task in counts]
    return Spread(_clustered_se(means), _icc(counts, means), _flips(counts))


def _flips(counts: Sequence[TaskCounts]) -> float | None:
    repeated = [task for task in counts if task.trials > 1]
    return sum(0 < task.passed < task.trials for task in repeated) / len(repeated) if repeated else None


def _clustered_se(means: list[float]) -> float | None:
    n_tasks = len(means)
    if n_tasks < 2:
        return None
    middle = sum(means) / n_tasks
    return sqrt(sum((mean - middle) ** 2 for mean in means) / (n_tasks - 1) / n_tasks)


def _icc(counts: Sequence[TaskCounts], means: list[float]) -> float | None:
    n_tasks, n_rows = len(counts), sum(task.trials for task in counts)
    if n_tasks < 2 or n_rows <= n_tasks:
        return None
    middle = sum(task.passed for task in counts) / n_rows
    pairs = list(zip(counts, means, strict=True))
    between = sum(task.trials * (mean - middle) ** 2 for task, mean in pairs) / (n_tasks - 1)
    within = sum(task.trials * mean * (1 - mean) for task, mean in pairs) / (n_rows - n_tasks)
    size = (n_rows - sum(task.trials**2 for task in counts) / n_rows) / (n_tasks - 1)
    total = between + (size - 1) * within
    return (between - within) / total if total > 0 else None
