"""Which of a task's facts the customer told: arguments and information that its scenario holds and the task needs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tautools.bench.persona_facts import leaves

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import Task

__all__ = ["coverage", "facts_to_tell"]

_SHORTEST = 3


def facts_to_tell(task: Task) -> frozenset[str]:
    """Return, in lower case, the values of the reference's arguments that stand in the customer's scenario."""
    scenario = task.user_system.lower()
    values = (value.strip().lower() for action in task.reference for value in leaves(dict(action.arguments)))
    return frozenset(value for value in values if len(value) >= _SHORTEST and _stands_in(value, scenario))


def coverage(task: Task, said: Sequence[str]) -> float | None:
    """Return the share of those facts that the customer said, in [0, 1]; None when the task has none."""
    facts = facts_to_tell(task)
    if not facts:
        return None
    heard = "\n".join(said).lower()
    return sum(_stands_in(fact, heard) for fact in facts) / len(facts)


def _stands_in(value: str, text: str) -> bool:
    return re.search(rf"(?<![a-z0-9_]){re.escape(value)}(?![a-z0-9_])", text) is not None
