"""Counts of model calls and tokens, by conversation, and which role's server has stopped answering."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tautools.errors import CallFault
from tautools.records import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.records import CallRecord, Conversation

__all__ = ["HOPELESS", "CallCounts", "DeadServerWatch", "is_tool_output", "tool_calls"]

_CALLS = {
    Role.AGENT: "agent_calls",
    Role.USER: "user_calls",
    Role.EXPERT: "expert_calls",
    Role.JUDGE: "judge_calls",
}

HOPELESS = frozenset({CallFault.UNREACHABLE, CallFault.AUTH, CallFault.NOT_FOUND, CallFault.REFUSED})
"""Faults that the next conversation will meet too: few of them in a row are enough to stop."""


def tool_calls(conversation: Conversation) -> int:
    """Return how often the agent called a tool, under any strategy."""
    return sum(is_tool_output(message) for message in conversation.messages)


def is_tool_output(message: Mapping[str, Any]) -> bool:
    """Whether a message is what a tool gave back; under `act` and `react` it comes as a user message."""
    return message["role"] == "tool" or (
        message["role"] == "user" and str(message.get("content", "")).startswith("API output:")
    )


class CallCounts:
    """Counts what each running conversation asks of the models."""

    def __init__(self) -> None:
        self.total = 0
        self._of: dict[tuple[str, int], Counter[str]] = {}

    def add(self, record: CallRecord) -> None:
        """Count one call; only those that succeeded count for the conversation."""
        self.total += 1
        if record.fault:
            return
        counts = self._of.setdefault((record.task_id, record.trial), Counter())
        if record.role in _CALLS:
            counts[_CALLS[record.role]] += 1
        counts["prompt_tokens"] += record.prompt_tokens or 0
        counts["cached_tokens"] += record.cached_tokens or 0
        counts["output_tokens"] += record.output_tokens or 0

    def pop(self, pair: tuple[str, int]) -> dict[str, int]:
        """Return a conversation's counts by the names of `CommitRow`, and forget them."""
        return dict(self._of.pop(pair, Counter()))


class DeadServerWatch:
    """Notices that a role's or expert's server no longer answers: many faulted conversations, no answered call between.

    Parameters
    ----------
    hopeless_limit : int
        Conversations in a row that end in a fault which will meet the next one too.
    limit : int
        Conversations in a row that end in any fault of the infrastructure.
    """

    def __init__(self, *, hopeless_limit: int, limit: int) -> None:
        self._hopeless_limit = hopeless_limit
        self._limit = limit
        self._hopeless: Counter[str] = Counter()
        self._any: Counter[str] = Counter()
        self._last_fault: dict[tuple[str, int], str] = {}

    def call(self, record: CallRecord) -> None:
        """Note one call."""
        part = f"{record.role.value} {record.expert}".strip()
        if record.fault:
            self._last_fault[record.task_id, record.trial] = part
        else:
            self._hopeless[part] = self._any[part] = 0

    def faulted(self, pair: tuple[str, int], fault: str) -> str:
        """Note a conversation lost to `fault`; return the cause to stop for, or an empty string."""
        part = self._last_fault.pop(pair, Role.AGENT.value)
        self._any[part] += 1
        self._hopeless[part] += fault in {each.value for each in HOPELESS}
        if self._hopeless[part] >= self._hopeless_limit or self._any[part] >= self._limit:
            lost = self._any[part]
            return f"The {part} model's server does not answer: {lost} conversations in a row ended in {fault}"
        return ""
