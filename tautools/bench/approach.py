"""Whether a benchmark can be played in the way that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.errors import BenchError

if TYPE_CHECKING:
    from tautools.bench.types import Approach, Domain

__all__ = ["check_approach"]


def check_approach(domain: Domain, approach: Approach) -> None:
    """Refuse a strategy that the benchmark does not have.

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
