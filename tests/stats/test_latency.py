from __future__ import annotations

import math

import numpy as np
import pytest

from tautools.errors import StatsError
from tautools.stats import PERCENTILES, histogram, summarize


def _by_hand(values: list[float], percent: float) -> float:
    """Percentile by its definition: position (n - 1) * p, linear between neighbours."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def test_percentiles_equal_those_worked_out_by_hand() -> None:
    values = np.random.default_rng(0).lognormal(0, 1, 137).tolist()
    result = summarize(values)
    assert tuple(result.percentiles_s) == PERCENTILES == (10, 25, 40, 50, 75, 90, 95, 99)
    for percent in PERCENTILES:
        assert result.percentiles_s[percent] == pytest.approx(_by_hand(values, percent))
    assert result.mean_s == pytest.approx(sum(values) / 137)


def test_the_share_under_five_seconds_leaves_out_five_seconds_themselves() -> None:
    assert summarize([1.0, 4.999, 5.0, 9.0]).share_under == 0.5
    assert summarize([1.0, 2.0], threshold_s=1.5).share_under == 0.5


def test_a_percentile_of_nothing_is_n_0_and_never_a_number() -> None:
    nothing = summarize([])
    assert (nothing.n, nothing.percentiles_s, nothing.mean_s, nothing.share_under) == (0, {}, None, None)
    with pytest.raises(StatsError, match="n = 0"):
        histogram([])


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
def test_a_latency_that_cannot_be_is_refused(bad: float) -> None:
    with pytest.raises(StatsError, match="negative or not a number"):
        summarize([0.5, bad])


def test_a_histogram_counts_every_value_once() -> None:
    values = np.random.default_rng(1).lognormal(-1, 2, 5000).tolist()
    result = histogram(values)
    assert len(result.edges_s) == len(result.counts) + 1
    assert list(result.edges_s) == sorted(result.edges_s)
    assert sum(result.counts) == 5000
    middle = len(result.counts) // 2
    low, high = result.edges_s[middle], result.edges_s[middle + 1]
    assert result.counts[middle] == sum(low <= value < high for value in values)


@pytest.mark.parametrize("values", [[0.25], [0.25] * 7, [0.0, 0.0]])
def test_values_that_are_all_alike_make_one_bin(values: list[float]) -> None:
    result = histogram(values)
    assert result.counts == (len(values),)
    assert result.edges_s[0] < result.edges_s[1]
