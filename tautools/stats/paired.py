"""Differences between two settings on the same tasks: mean, size and where it may lie, tasks as the unit.

Source
------
Effect size of paired differences (d_z = mean over standard deviation of the differences): Cohen, "Statistical Power
Analysis for the Behavioral Sciences" (1988), section 2.3.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from tautools.errors import StatsError
from tautools.stats.intervals import DRAWS, task_bootstrap

if TYPE_CHECKING:
    from collections.abc import Sequence


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
    return PairedEffect(mean, low, high, _size(differences, mean), n_tasks, level)


def _size(differences: Sequence[float], mean: float) -> float | None:
    if len(differences) < 2:
        return None
    spread = sqrt(sum((each - mean) ** 2 for each in differences) / (len(differences) - 1))
    return mean / spread if spread > 1e-12 else None
