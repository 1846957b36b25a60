"""How a run is to be played, and whether a benchmark can be played so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.types import Approach, Expert
from tautools.errors import BenchError
from tautools.records import Strategy, Thinking

if TYPE_CHECKING:
    from tautools.bench.types import Domain
    from tautools.params.models import RunParams

__all__ = ["approach_of", "check_approach"]


def approach_of(run: RunParams) -> Approach:
    """Return how a run is to be played; experts belong to the strategy `experts` alone."""
    experts: tuple[Expert, ...] = ()
    if run.strategy is Strategy.EXPERTS:
        experts = tuple(
            Expert(name, role.description, role.thinking is Thinking.ON) for name, role in run.experts.items()
        )
    return Approach(run.strategy, run.user_strategy, run.few_shot_displays, experts)


def check_approach(domain: Domain, approach: Approach) -> None:
    """Refuse a strategy that the benchmark does not have, or that lacks its models.

    Raises
    ------
    BenchError
        Naming those that it has.
    """
    for kind, wanted, known in (
        ("strategy", approach.strategy, domain.strategies),
        ("user strategy", approach.user_strategy, domain.user_strategies),
    ):
        if wanted not in known:
            raise BenchError(
                f"{domain.bench} has no {kind} {wanted.value}.",
                evidence=f"It has {', '.join(each.value for each in known)}.",
                next_step=f"Choose another {kind}, or a benchmark that has this one.",
            )
    if approach.strategy is Strategy.EXPERTS and not approach.experts:
        raise BenchError(
            "The strategy experts has no experts.",
            next_step="Name them with --expert NAME=SERVER, or under `experts:` in the file.",
        )
