"""A share of independent cases, exactly: interval and chance of doing as well by guessing.

Source
------
Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26
(1934) 404-413.
"""

from __future__ import annotations

from math import comb
from typing import TYPE_CHECKING

from tautools.errors import StatsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["exact_interval", "tail"]


def exact_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a share.

    Raises
    ------
    StatsError
        When `successes` is not in 0..n, or `n` is 0.
    """
    _check(successes, n)
    side = (1 - level) / 2
    low = 0.0 if successes == 0 else _where(lambda share: tail(successes, n, share) - side)
    high = 1.0 if successes == n else _where(lambda share: side - (1 - tail(successes + 1, n, share)))
    return low, high


def tail(successes: int, n: int, share: float) -> float:
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


def _where(rising: Callable[[float], float]) -> float:
    """Return the share at which a rising function passes 0."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def _check(successes: int, n: int) -> None:
    if n < 1 or not 0 <= successes <= n:
        raise StatsError(f"{successes} of {n} cases have no interval.", next_step="Label some conversations first.")
