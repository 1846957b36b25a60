"""What a simulated agent of a given skill must score, computed and not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.errors import ParamsError

if TYPE_CHECKING:
    from tautools.bench.types import Domain

__all__ = ["expected_pass_hat_k", "pass_probability"]


def pass_probability(domain: Domain, skill: float) -> dict[str, float]:
    """Return for each task the probability that a conversation of it passes.

    A solved conversation passes when the task's reference does, one given up passes when doing nothing does; the draws
    are independent. So it is `skill * reference + (1 - skill) * floor`.

    Raises
    ------
    ParamsError
        When `skill` is not in [0, 1].
    """
    from tautools.bench import do_nothing_floor, reference_reward

    if not 0 <= skill <= 1:
        raise ParamsError(f"A skill of {skill} is not a probability.", next_step="Give a skill from 0 to 1.")
    floor = do_nothing_floor(domain)
    return {
        name: skill * (reference_reward(domain, task).value >= 1) + (1 - skill) * (floor[name] >= 1)
        for name, task in domain.tasks.items()
    }


def expected_pass_hat_k(domain: Domain, skill: float, k: int) -> float:
    """Return the expected pass^k of a simulated agent over all tasks of an env: the mean of p**k, in [0, 1].

    Parameters
    ----------
    domain : Domain
        The env.
    skill : float
        The agent's, in [0, 1].
    k : int
        Number of trials that must all pass, at least 1.

    Raises
    ------
    ParamsError
        When `skill` or `k` is out of range.

    Source
    ------
    pass^k as in the tau-bench paper, arXiv:2406.12045.
    """
    if k < 1:
        raise ParamsError(f"pass^{k} has no meaning.", next_step="Give a k of 1 or more.")
    chances = pass_probability(domain, skill).values()
    return sum(chance**k for chance in chances) / len(chances)
