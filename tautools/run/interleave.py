"""A conversation as it happened: the agent's messages, and the customer's own calls where it made them.

The agent never sees what a customer with tools calls, so its messages do not hold it; those of the customer do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tautools.run.count import is_tool_output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.records import Conversation

__all__ = ["interleaved", "is_customers"]


def interleaved(conversation: Conversation) -> list[dict[str, Any]]:
    """Return the messages in the order they happened; the customer's calls and their results carry `by: user`."""
    made = _calls_before_words(conversation.user_messages)
    if not any(made):
        return conversation.messages
    found: list[dict[str, Any]] = []
    for message in conversation.messages:
        if message["role"] == "user" and not is_tool_output(message) and made:
            found += made.pop(0)
        found.append(message)
    return [*found, *(message for calls in made for message in calls)]


def is_customers(message: Mapping[str, Any]) -> bool:
    """Whether a message is a call that the customer made, or what its tool gave back."""
    return message.get("by") == "user"


def _calls_before_words(messages: Sequence[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return, for each time that the customer spoke, the calls that it made before; those after its last words last."""
    made: list[list[dict[str, Any]]] = [[]]
    for message in messages:
        if message["role"] == "tool" or message.get("tool_calls"):
            made[-1].append({**message, "by": "user"})
        elif message["role"] == "assistant":
            made.append([])
    return made
