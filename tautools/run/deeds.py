"""What was done in a stored conversation; read off its messages where the record does not say it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.text import RESPOND, read_action
from tautools.errors import RecordError
from tautools.records import Deed, Strategy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tautools.records import Conversation, Setting

__all__ = ["deeds_in", "deeds_of"]

_TEXT = {Strategy.ACT, Strategy.REACT}


def deeds_of(conversation: Conversation, setting: Setting) -> list[Deed]:
    """Return the calls of a conversation and the agent's words to the user, in order.

    Records of before `Conversation.deeds`, and those of other programs, are read by the rules of their benchmark.

    Raises
    ------
    RecordError
        When the customer made calls whose place between the agent's is not recorded.
    """
    if conversation.deeds:
        return conversation.deeds
    if any(message.get("tool_calls") for message in conversation.user_messages):
        raise RecordError(
            f"What was done in task {conversation.task_id}, trial {conversation.trial} cannot be put in order.",
            evidence="The customer called tools, and the record does not say when.",
            next_step="Run it anew with this version, which records it.",
        )
    said = (message for message in conversation.messages if message["role"] == "assistant")
    return [deed for message in said for deed in deeds_in(message, setting.strategy, setting.bench)]


def deeds_in(message: Mapping[str, Any], strategy: Strategy, bench: str) -> Iterator[Deed]:
    """Yield what one message of an agent did, by the rules of its benchmark."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    text = str(message.get("content") or "")
    if calls and bench == "tau-bench":
        yield _called_v1(calls[0])
    elif calls:
        yield from (Deed(call=call["name"], arguments=call["arguments"]) for call in calls)
    elif strategy not in _TEXT:
        yield Deed(said=text)
    elif bench == "tau-bench":
        yield _read_v1(text)
    else:
        move = read_action(text)
        yield from (Deed(call=call.name, arguments=call.arguments) for call in move.calls)
        if not move.calls:
            yield Deed(said=move.said)


def _called_v1(call: Mapping[str, Any]) -> Deed:
    """Read a call as tau-bench does: one of `respond`, which is no tool, is words."""
    made = Deed(call=call["name"], arguments=call["arguments"])
    if made.call != RESPOND:
        return made
    try:
        return Deed(said=str(json.loads(made.arguments)["content"]))
    except (ValueError, TypeError, KeyError):
        return made


def _read_v1(text: str) -> Deed:
    """Read an answer as tau-bench does: what follows the last `Action:` is an action if it is JSON, else words."""
    written = text.rsplit("Action:", maxsplit=1)[-1].strip()
    try:
        action = json.loads(written)
        name, arguments = action["name"], action["arguments"]
    except (ValueError, TypeError, KeyError):
        return Deed(said=written)
    if name == RESPOND:
        return Deed(said=str(arguments.get("content", "")) if isinstance(arguments, dict) else written)
    return Deed(call=str(name), arguments=json.dumps(arguments))
