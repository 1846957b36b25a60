"""Intervals for a mean over tasks: a bootstrap that draws tasks, and Wilson's where few tasks carry information.

Drawing tasks keeps a task's trials together. Pooling them over tasks, as if they were independent, gives intervals for
pass^k that hardly ever hold the truth. Near 0 and 1 the bootstrap too is far too narrow (a score of 0 would get the
interval 0 to 0), so when fewer than `FEW` tasks stand apart from the others, Wilson's score interval with the number
of tasks as n is given: exact in form when a task's value is 0 or 1, cautious when it lies between. An interval speaks
of other tasks of the same kind and of other trials of them. A share of independent cases has an exact interval.

Source
------
Wilson, "Probable inference", JASA 22 (1927) 209-212. Efron and Tibshirani, "An Introduction to the Bootstrap" (1993),
chapter 13 (percentile interval). Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case
of the binomial", Biometrika 26 (1934) 404-413.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from tautools.errors import StatsError

if TYPE_CHECKING:
    from numpy.typing import NDArray


DRAWS = 10_000
FEW = 10
"""Below this many tasks above 0, or below 1, the bootstrap's coverage falls away (measured in tests/stats)."""


def exact_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a share.

    Raises
    ------
    StatsError
        When `successes` is not in 0..n, or `n` is 0.
    """
    if n < 1 or not 0 <= successes <= n:
        raise StatsError(f"{successes} of {n} cases have no interval.", next_step="Label some conversations first.")
    side = (1 - level) / 2
    low = 0.0 if successes == 0 else _root(lambda share: binomial_tail(successes, n, share) - side)
    high = 1.0 if successes == n else _root(lambda share: side - (1 - binomial_tail(successes + 1, n, share)))
    return low, high


def binomial_tail(successes: int, n: int, share: float) -> float:
    """Return the probability of at least so many successes in `n` cases that each succeed with `share`.

    Raises
    ------
    StatsError
        When `share` is not in [0, 1] or `n` is 0.
    """
    if n < 1 or not 0 <= share <= 1:
        raise StatsError(
            f"{n} cases with a chance of {share} say nothing.", next_step="Label some conversations first."
        )
    return min(1.0, sum(comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(max(successes, 0), n + 1)))


def _root(rising: Callable[[float], float]) -> float:
    """Return the share at which a rising function passes 0."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the true value may lie, and by which method."""

    low: float
    high: float
    level: float
    """Nominal coverage, in (0, 1)."""
    method: str
    """`bootstrap` (tasks drawn with replacement) or `wilson` (few tasks carry information)."""
    tasks: int
    note: str = ""


def wilson(share: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a share of `n` cases; `share` need not be a whole number of them.

    Raises
    ------
    StatsError
        When `n` is 0 or `share` is not in [0, 1].
    """
    if n < 1 or not 0.0 <= share <= 1.0:
        raise StatsError(f"A share of {share} of {n} cases has no interval.", next_step="Run the cell first.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if share == 0.0 else max(0.0, middle - half)
    high = 1.0 if share == 1.0 else min(1.0, middle + half)
    return low, high


def task_bootstrap(
    values: NDArray[Any] | Sequence[Sequence[float]], *, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> tuple[list[float], list[float]]:
    """Return the percentile interval of each column's mean, tasks drawn with replacement.

    Parameters
    ----------
    values : (n_tasks, n_columns) array of float
        Each task's estimates, such as pass^1 to pass^n; all columns see the same draws.
    draws : int
        Resamples.
    seed : int
        The same seed gives the same interval.
    level : float
        Nominal coverage, in (0, 1).

    Returns
    -------
    tuple of two lists
        Lower and upper limits, one for each column.

    Raises
    ------
    StatsError
        Without tasks.
    """
    import numpy as np

    table = np.asarray(values, dtype=float)
    if table.ndim != 2 or len(table) == 0:
        raise StatsError("There is no task to draw from (n = 0).", next_step="Run the cell first.")
    n_tasks = len(table)
    drawn = np.random.default_rng(seed).integers(0, n_tasks, size=(draws, n_tasks))
    # How often each task is drawn says the same as which ones are, and makes all means one matrix product.
    slots = drawn + np.arange(draws)[:, None] * n_tasks
    times_drawn = np.bincount(slots.ravel(), minlength=draws * n_tasks).reshape(draws, n_tasks)
    means = times_drawn @ table / n_tasks
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)], axis=0)
    return low.tolist(), high.tolist()


def interval(values: Sequence[float], *, draws: int = DRAWS, seed: int = 0, level: float = 0.95) -> Interval:
    """Return the interval for the mean of one value a task, such as its pass^k: one column of `intervals`."""
    return intervals([values], draws=draws, seed=seed, level=level)[0]


def intervals(
    columns: Sequence[Sequence[float]], *, draws: int = DRAWS, seed: int = 0, level: float = 0.95
) -> list[Interval]:
    """Return the interval of each column's mean by the method that can be trusted; all see the same draws of tasks.

    Parameters
    ----------
    columns : sequence of (n_tasks,) sequences of float in [0, 1]
        Several estimates of the same tasks, such as pass^1 to pass^n.
    draws, seed, level
        As in `task_bootstrap`; Wilson's interval has no use for the first two.

    Returns
    -------
    list of Interval
        By the bootstrap when at least `FEW` tasks lie above 0 and as many below 1, by Wilson otherwise.

    Raises
    ------
    StatsError
        Without tasks.
    """
    if not columns:
        return []
    lows, highs = task_bootstrap(list(zip(*columns, strict=True)), draws=draws, seed=seed, level=level)
    return [_trusted(column, ends, level) for column, ends in zip(columns, zip(lows, highs, strict=True), strict=True)]


def _trusted(values: Sequence[float], bootstrap: tuple[float, float], level: float) -> Interval:
    n_tasks = len(values)
    informative = min(sum(value > 0 for value in values), sum(value < 1 for value in values))
    if informative >= FEW:
        return Interval(*bootstrap, level, "bootstrap", n_tasks)
    note = f"only {informative} of {n_tasks} tasks stand apart from the rest: Wilson's interval over tasks"
    return Interval(*wilson(sum(values) / n_tasks, n_tasks, level=level), level, "wilson", n_tasks, note)
