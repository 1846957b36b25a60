"""What varies between trials of one task, between tasks, and between two settings on the same tasks.

Source
------
ICC(1): Shrout and Fleiss, Psychological Bulletin 86 (1979) 420-428, one-way random effects; with unequal trials the
group size is the usual n0. Standard errors over tasks: Miller, "Adding Error Bars to Evals", arXiv 2411.00640 (2024).
Effect size of paired differences (d_z = mean over standard deviation of the differences): Cohen, "Statistical Power
Analysis for the Behavioral Sciences" (1988), section 2.3.5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import stdev

from tautools.errors import StatsError
from tautools.stats.intervals import DRAWS, task_bootstrap
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

    Parameters
    ----------
    counts : sequence of TaskCounts
        Trials and passes of each task.

    Returns
    -------
    Spread
        Standard error over tasks, ICC and the share of tasks that flip.

    Raises
    ------
    StatsError
        Without tasks.
    """
    if not counts:
        raise StatsError("There is no task to look at (n = 0).", next_step="Run the cell first.")
    means = [task.passed / task.trials for task in counts]
    repeated = [0 < task.passed < task.trials for task in counts if task.trials > 1]
    return Spread(
        clustered_se=stdev(means) / sqrt(len(means)) if len(means) > 1 else None,
        icc=_icc(counts, means),
        flips=sum(repeated) / len(repeated) if repeated else None,
    )


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


FEWEST = 5
"""With fewer tasks there are too few ways to draw them for an interval."""


@dataclass(frozen=True, slots=True)
class PairedEffect:
    """The mean difference over tasks."""

    mean: float
    low: float | None
    """Of the interval by drawing tasks; None with fewer than `FEWEST` tasks."""
    high: float | None
    d: float | None
    """Mean over standard deviation of the tasks' differences; None when they do not differ from each other."""
    tasks: int
    level: float

    @property
    def sign(self) -> int:
        """1 or -1 when the interval leaves 0 out, 0 when it does not or when there is none."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)


def paired_effect(
    differences: Sequence[float], *, level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> PairedEffect:
    """Return the effect that the tasks' differences show.

    Parameters
    ----------
    differences : (n_tasks,) sequence of float
        One value a task: the mean over its trials of this setting's value less the other's.
    level : float
        Nominal coverage of the interval, in (0, 1).
    draws, seed
        As in `task_bootstrap`.

    Returns
    -------
    PairedEffect
        The mean difference with its interval by drawing tasks, and its size.

    Raises
    ------
    StatsError
        Without tasks.
    """
    n_tasks = len(differences)
    if not n_tasks:
        raise StatsError("There is no task in both settings (n = 0).", next_step="Run both on the same tasks.")
    mean = sum(differences) / n_tasks
    low = high = None
    if n_tasks >= FEWEST:
        lows, highs = task_bootstrap([[each] for each in differences], draws=draws, seed=seed, level=level)
        low, high = lows[0], highs[0]
    deviation = stdev(differences) if n_tasks > 1 else 0.0
    return PairedEffect(mean, low, high, mean / deviation if deviation > 1e-12 else None, n_tasks, level)
