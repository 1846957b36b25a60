from __future__ import annotations

from itertools import combinations

import pytest

from tautools.errors import StatsError
from tautools.stats import TaskCounts, largest_k, mean_over_tasks, pass_at_k, pass_hat_k, task_values

EVERY_CASE = [(n, c, k) for n in range(1, 8) for c in range(n + 1) for k in range(1, n + 1)]
PUBLISHED = [TaskCounts(4, passed) for passed, tasks in enumerate((14, 12, 10, 4, 10)) for _ in range(tasks)]


@pytest.mark.parametrize(("n", "c", "k"), EVERY_CASE)
def test_both_estimators_equal_the_share_over_every_choice_of_k_trials(n: int, c: int, k: int) -> None:
    trials = [True] * c + [False] * (n - c)
    choices = list(combinations(trials, k))
    assert pass_hat_k(n, c, k) == pytest.approx(sum(all(choice) for choice in choices) / len(choices))
    assert pass_at_k(n, c, k) == pytest.approx(sum(any(choice) for choice in choices) / len(choices))


def test_fifty_tasks_of_four_trials_give_the_published_figures() -> None:
    hat = [mean_over_tasks(PUBLISHED, k) for k in range(1, 5)]
    at = [mean_over_tasks(PUBLISHED, k, pass_at_k) for k in range(1, 5)]
    assert hat == pytest.approx([0.42, 0.273333, 0.22, 0.20], abs=5e-7)
    assert at == pytest.approx([0.42, 0.566667, 0.66, 0.72], abs=5e-7)


def test_each_task_uses_its_own_number_of_trials_and_k_ends_at_the_smallest() -> None:
    counts = [TaskCounts(4, 2), TaskCounts(3, 3), TaskCounts(2, 0)]
    assert largest_k(counts) == 2
    assert task_values(counts, 2) == pytest.approx([1 / 6, 1.0, 0.0])
    with pytest.raises(StatsError, match="k = 3 cannot be estimated from 2 trials"):
        mean_over_tasks(counts, 3)


def test_the_first_convention_counts_a_trial_that_is_not_there_as_failed() -> None:
    counts = [TaskCounts(4, passed) for passed in (2, 3, 0)]
    assert mean_over_tasks(counts, 1) == pytest.approx((2 / 4 + 3 / 4 + 0) / 3)
    assert mean_over_tasks(counts, 2) == pytest.approx((1 / 6 + 3 / 6 + 0) / 3)


def test_no_task_is_no_score_rather_than_zero() -> None:
    assert largest_k([]) == 0
    with pytest.raises(StatsError, match=r"n = 0"):
        mean_over_tasks([], 1)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (0, 0, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(StatsError):
        pass_hat_k(n, c, k)
    with pytest.raises(StatsError):
        pass_at_k(n, c, k)
