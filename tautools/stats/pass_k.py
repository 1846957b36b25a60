"""pass^k (all of k trials pass) and pass@k (at least one of k does), unbiased from n trials a task.

Source
------
pass^k: Yao, Shinn, Razavi, Narasimhan, "tau-bench", arXiv 2406.12045 (2024): mean over tasks of C(c,k)/C(n,k).
pass@k: Chen et al., "Evaluating Large Language Models Trained on Code", arXiv 2107.03374 (2021), equation 1:
mean over tasks of 1 - C(n-c,k)/C(n,k). Both are the share among all choices of k of the n trials.

Two conventions exist for runs with gaps. tau2-bench leaves out what was lost to the infrastructure, gives each task its
own n and lets k run to the smallest n. tau-bench (v1) counts a fault as a failure and divides by the number of trials
in the whole file: counts in which every task has had that many trials. One estimator serves both.
"""

from collections.abc import Callable, Sequence
from math import comb
from typing import NamedTuple

from tautools.errors import StatsError


class TaskCounts(NamedTuple):
    """One task's finished trials and how many of them passed."""

    trials: int
    passed: int


def pass_hat_k(trials: int, passed: int, k: int) -> float:
    """Return the share, in [0, 1], of the choices of `k` among `trials` trials in which all pass.

    Parameters
    ----------
    trials, passed : int
        n and c: finished trials of a task, and those of them that passed.
    k : int
        Size of the choices, in 1..trials.

    Returns
    -------
    float
        C(c,k)/C(n,k).

    Raises
    ------
    StatsError
        When `k` is not in 1..trials or `passed` not in 0..trials.
    """
    _check(trials, passed, k)
    return comb(passed, k) / comb(trials, k)


def pass_at_k(trials: int, passed: int, k: int) -> float:
    """Return the share, in [0, 1], of the choices of `k` among `trials` trials in which at least one passes.

    Parameters
    ----------
    trials, passed : int
        n and c: finished trials of a task, and those of them that passed.
    k : int
        Size of the choices, in 1..trials.

    Returns
    -------
    float
        1 - C(n-c,k)/C(n,k).

    Raises
    ------
    StatsError
        When `k` is not in 1..trials or `passed` not in 0..trials.
    """
    _check(trials, passed, k)
    return 1.0 - comb(trials - passed, k) / comb(trials, k)


def largest_k(counts: Sequence[TaskCounts]) -> int:
    """Return the largest k that every task has trials for: the smallest number of trials, 0 without tasks."""
    return min((task.trials for task in counts), default=0)


def task_values(
    counts: Sequence[TaskCounts], k: int, estimator: Callable[[int, int, int], float] = pass_hat_k
) -> list[float]:
    """Return each task's estimate.

    Parameters
    ----------
    counts : sequence of TaskCounts
        Trials and passes of each task.
    k : int
        In 1 to the smallest number of trials.
    estimator : callable
        `pass_hat_k` or `pass_at_k`.

    Returns
    -------
    list of float
        In the order of `counts`, in [0, 1].

    Raises
    ------
    StatsError
        When a task has fewer than `k` trials.
    """
    return [estimator(task.trials, task.passed, k) for task in counts]


def mean_over_tasks(
    counts: Sequence[TaskCounts], k: int, estimator: Callable[[int, int, int], float] = pass_hat_k
) -> float:
    """Return the mean over tasks of `estimator`, in [0, 1].

    Parameters
    ----------
    counts, k, estimator
        As in `task_values`.

    Returns
    -------
    float
        pass^k by `pass_hat_k`, pass@k by `pass_at_k`.

    Raises
    ------
    StatsError
        Without tasks, or when a task has fewer than `k` trials.
    """
    values = task_values(counts, k, estimator)
    if not values:
        raise StatsError("There is no task to average over (n = 0).", next_step="Run the cell first.")
    return sum(values) / len(values)


def _check(trials: int, passed: int, k: int) -> None:
    if not 0 <= passed <= trials:
        raise StatsError(f"{passed} of {trials} trials cannot have passed.", next_step="Look for rows counted twice.")
    if not 1 <= k <= trials:
        raise StatsError(
            f"k = {k} cannot be estimated from {trials} trials.", next_step="Choose k from 1 to the number of trials."
        )
