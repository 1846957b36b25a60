"""Paired effects and exact shares, against values known from elsewhere."""

from __future__ import annotations

import random

import pytest

from tautools.errors import StatsError
from tautools.stats import binomial_tail, exact_interval, paired_effect


def test_a_paired_effect_is_the_mean_over_tasks_with_its_size() -> None:
    result = paired_effect([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (result.mean, result.tasks, result.sign) == (3.0, 5, 1)
    assert result.d == pytest.approx(3 / 1.5811388)  # standard deviation with n - 1
    assert result.low is not None
    assert result.high is not None
    assert 1.0 <= result.low < 3.0 < result.high <= 5.0


def test_with_few_tasks_there_is_no_interval_and_no_claim() -> None:
    result = paired_effect([1.0, 1.0, 1.0, 1.0])
    assert (result.low, result.high, result.sign, result.d) == (None, None, 0, None)
    with pytest.raises(StatsError, match="n = 0"):
        paired_effect([])


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    chance, held = random.Random(5), 0
    for turn in range(200):
        result = paired_effect([chance.gauss(0.3, 1) for _ in range(40)], draws=400, seed=turn)
        held += result.low is not None and result.high is not None and result.low <= 0.3 <= result.high
    assert 0.89 <= held / 200 <= 0.985


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.3084971), (5, 10, 0.1870860, 0.8129140), (10, 10, 0.6915029, 1.0), (8, 40, 0.09052, 0.35648)],
)
def test_exact_limits_are_clopper_and_pearsons(successes: int, n: int, low: float, high: float) -> None:
    assert exact_interval(successes, n) == pytest.approx((low, high), abs=5e-6)


def test_the_tail_is_the_binomials() -> None:
    assert binomial_tail(0, 4, 0.25) == 1
    assert binomial_tail(4, 4, 0.25) == pytest.approx(0.25**4)
    assert binomial_tail(3, 4, 0.5) == pytest.approx(5 / 16)
    with pytest.raises(StatsError):
        binomial_tail(1, 0, 0.5)
    with pytest.raises(StatsError):
        exact_interval(3, 2)
