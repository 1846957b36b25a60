"""When the tokens of an answer come: lognormal around a median, seeded by the request."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tautools.params.models import SimulateParams

__all__ = ["due_times"]


def due_times(params: SimulateParams, *, tokens: int, uncached_tokens: int, seed: str) -> list[float]:
    """Return when each token is due, counted from the request's arrival [s].

    Parameters
    ----------
    params : SimulateParams
        Medians, spread, and the speed by which all times are divided.
    tokens : int
        Tokens of the answer; an empty answer still has one moment, its end.
    uncached_tokens : int
        Prompt tokens that the prefix cache does not hold.
    seed : str
        The same seed gives the same times.

    Returns
    -------
    list of float
        Ascending; all 0 when `params.speed` is 0.
    """
    count = max(1, tokens)
    if params.speed == 0:
        return [0.0] * count
    # Not for secrets: the same conversation shall take the same time.
    dice = random.Random(seed)  # noqa: S311 - a simulation, not cryptography
    prefill_ms = params.prefill_ms_per_1k_tokens * uncached_tokens / 1000
    at = (_spread(params.ttft_ms, params.jitter, dice) + prefill_ms) / 1000 / params.speed
    due = [at]
    for _ in range(count - 1):
        at += _spread(params.itl_ms, params.jitter, dice) / 1000 / params.speed
        due.append(at)
    return due


def _spread(median: float, jitter: float, dice: random.Random) -> float:
    return median * math.exp(jitter * dice.gauss(0, 1))
