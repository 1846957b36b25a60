"""Where our loop does something else than the original on purpose. Everything that is not here is a difference.

`docs/fidelity.md` says the same for people; a test holds the two together.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from tautools.bench.fidelity.spoken import (
    BREAKING_CALLS,
    BREAKING_CUSTOMER,
    BREAKING_TEXTS,
    BROKEN_REFLECTION,
    SILENT,
)
from tautools.records import Outcome, UserStrategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.fidelity.scripts import Case
    from tautools.bench.fidelity.trace import Trace

__all__ = ["REASONS", "Deviation", "deviation_of", "raised"]


class Deviation(StrEnum):
    """A kind of intended difference between the two sides of one conversation."""

    CONSTRUCTOR = "constructor-requests"
    AGENT_UNREADABLE = "agent-answer-unreadable"
    CUSTOMER_UNREADABLE = "customer-answer-unreadable"
    CUSTOMER_SILENT = "customer-silent"
    ERROR_LIMIT = "error-limit"


REASONS = {
    Deviation.CONSTRUCTOR: "The original asks its user model while an env is made, about no task: one draft (two with "
    "the react user) and its checks. Nothing of the conversation depends on the answers. Ours makes no such request.",
    Deviation.AGENT_UNREADABLE: "The original raises at this answer of the agent and scores the task 0. Ours tells the "
    "model what was wrong, or says the words to the customer, and counts an unusable answer.",
    Deviation.CUSTOMER_UNREADABLE: "The original raises at this answer of the customer's model and scores the task 0. "
    "Ours is a `user_error` without a reward: it says nothing about the agent.",
    Deviation.CUSTOMER_SILENT: "The original hands empty words to the agent. Ours is a `user_error` without a reward.",
    Deviation.ERROR_LIMIT: "After ten unusable answers of the agent ours ends with `agent_error` and reward 0. The "
    "original has no such limit.",
}


def deviation_of(case: Case, original: Trace, ours: Trace) -> Deviation | None:
    """Return why two conversations may end differently; None when they may not.

    The script must hold the cause at the place where the one side ended: an end without it is no intended difference.
    """
    if raised(original):
        role, kind = _last_heard(case, original)
        if role == "agent" and kind in {*BREAKING_CALLS, *BREAKING_TEXTS}:
            return Deviation.AGENT_UNREADABLE
        breaking = {*BREAKING_CUSTOMER[UserStrategy.REACT], BROKEN_REFLECTION} - {SILENT}
        return Deviation.CUSTOMER_UNREADABLE if role != "agent" and kind in breaking else None
    if ours.end.startswith(Outcome.USER_ERROR) and SILENT in _heard(case, ours, "user"):
        return Deviation.CUSTOMER_SILENT
    if ours.end.startswith(Outcome.AGENT_ERROR):
        return Deviation.ERROR_LIMIT
    return None


def _last_heard(case: Case, trace: Trace) -> tuple[str, str]:
    """Return who answered last and what was odd about it."""
    role = trace.requests[-1].role if trace.requests else ""
    heard = _heard(case, trace, role)
    return role, heard[-1] if heard else ""


def _heard(case: Case, trace: Trace, role: str) -> Sequence[str]:
    """Return what was odd about each answer of a role that was heard; an answer after the script's end is not."""
    asked = sum(each.role == role for each in trace.requests)
    kinds = case.odd.get(role, ())
    return [*kinds[:asked], *[""] * (asked - len(kinds))]


def raised(trace: Trace) -> bool:
    """Whether the original lost the conversation to an exception."""
    return bool(trace.end) and trace.end != "step_limit"
