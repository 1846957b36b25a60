from __future__ import annotations

import numpy as np
import pytest

from tautools.errors import StatsError
from tautools.stats import TaskCounts, interval, intervals, pass_at_k, pass_hat_k, task_values
from tautools.stats.intervals import task_bootstrap, wilson

PUBLISHED = [TaskCounts(4, passed) for passed, tasks in enumerate((14, 12, 10, 4, 10)) for _ in range(tasks)]


def test_wilson_gives_the_reference_limits() -> None:
    assert wilson(21 / 50, 50) == pytest.approx((0.2938, 0.5577), abs=5e-5)
    assert wilson(0.0, 50) == pytest.approx((0.0, 0.0713), abs=5e-5)
    assert wilson(0.0, 115) == pytest.approx((0.0, 0.0323), abs=5e-5)
    assert wilson(1.0, 50) == pytest.approx((1 - 0.0713, 1.0), abs=5e-5)


def test_the_task_bootstrap_gives_the_reference_limits_for_pass_hat_k() -> None:
    table = np.array([task_values(PUBLISHED, k) for k in range(1, 5)]).T
    low, high = task_bootstrap(table, draws=20_000)
    assert low == pytest.approx([0.32, 0.17, 0.115, 0.10], abs=0.0051)
    assert high == pytest.approx([0.52, 0.383, 0.335, 0.32], abs=0.0051)


def test_the_task_bootstrap_gives_the_reference_limits_for_pass_at_k() -> None:
    table = np.array([task_values(PUBLISHED, k, pass_at_k) for k in range(2, 5)]).T
    low, high = task_bootstrap(table, draws=20_000)
    assert low == pytest.approx([0.457, 0.54, 0.60], abs=0.0051)
    assert high == pytest.approx([0.673, 0.775, 0.84], abs=0.0051)


def test_drawing_by_weights_equals_drawing_tasks_one_by_one() -> None:
    values = np.array(task_values(PUBLISHED, 2))
    rng = np.random.default_rng(3)
    means = np.array([values[rng.integers(0, 50, 50)].mean() for _ in range(8000)])
    low, high = task_bootstrap(values[:, None], draws=8000)
    assert [low[0], high[0]] == pytest.approx(np.percentile(means, [2.5, 97.5]).tolist(), abs=0.006)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = task_values(PUBLISHED, 3)
    assert interval(values, seed=4) == interval(values, seed=4)
    # The limits lie on a grid of 1/200, so it takes few draws to see that the seed is used at all.
    assert task_bootstrap([[v] for v in values], draws=50, seed=4) != task_bootstrap([[v] for v in values], draws=50)


def test_columns_together_get_the_intervals_that_each_gets_alone() -> None:
    columns = [task_values(PUBLISHED, k) for k in range(1, 5)]
    assert intervals(columns) == [interval(column) for column in columns]
    assert intervals([]) == []


def test_a_score_of_zero_gets_an_interval_with_room_above_it_and_says_why() -> None:
    result = interval([0.0] * 50)
    assert (result.low, result.method) == (0.0, "wilson")
    assert result.high == pytest.approx(0.0713, abs=5e-5)
    assert result.note == "only 0 of 50 tasks stand apart from the rest: Wilson's interval over tasks"


def test_the_method_changes_with_the_tenth_informative_task() -> None:
    assert interval([1.0] * 9 + [0.0] * 41).method == "wilson"
    assert interval([1.0] * 10 + [0.0] * 40).method == "bootstrap"
    assert interval([1.0] * 41 + [0.0] * 9).method == "wilson"


@pytest.mark.parametrize(
    ("mean", "icc", "n_tasks", "k", "at"),
    [(0.43, 0.4, 50, 4, False), (0.80, 0.4, 50, 4, True), (0.11, 0.3, 50, 4, False), (0.43, 0.4, 50, 1, False)],
    ids=["middling pass^4", "strong pass@4", "weak pass^4", "middling pass^1"],
)
def test_ninety_five_percent_intervals_hold_the_truth_in_most_repetitions(
    mean: float, icc: float, n_tasks: int, k: int, at: bool
) -> None:
    rng = np.random.default_rng(11)
    a, b = mean * (1 / icc - 1), (1 - mean) * (1 / icc - 1)
    solves = rng.beta(a, b, 400_000)
    truth = float((1 - (1 - solves) ** k).mean() if at else (solves**k).mean())
    estimator = pass_at_k if at else pass_hat_k
    held = 0
    for repetition in range(200):
        passed = rng.binomial(4, rng.beta(a, b, n_tasks))
        result = interval([estimator(4, int(c), k) for c in passed], draws=500, seed=repetition)
        held += result.low <= truth <= result.high
    assert held / 200 >= 0.90


def test_an_interval_of_nothing_is_an_error() -> None:
    for attempt in (lambda: interval([]), lambda: task_bootstrap([]), lambda: wilson(0.0, 0)):
        with pytest.raises(StatsError):
            attempt()
