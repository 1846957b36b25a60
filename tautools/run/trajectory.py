"""What was done in a stored conversation, in order: its actions, and its messages with the user's own calls between."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.text import RESPOND, read_action
from tautools.errors import RecordError
from tautools.records import Strategy, TrajectoryAction
from tautools.run.ledger import is_tool_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tautools.records import Conversation, Setting

_TEXT = {Strategy.ACT, Strategy.REACT}


def actions_of(conversation: Conversation, setting: Setting) -> list[TrajectoryAction]:
    """Return the calls of a conversation and the agent's words to the user, in order.

    Records without `Conversation.actions`, such as those of other programs, are read by the rules of their benchmark.

    Raises
    ------
    RecordError
        When the user made calls whose place between the agent's is not recorded.
    """
    if conversation.actions:
        return conversation.actions
    if any(message.get("tool_calls") for message in conversation.user_messages):
        raise RecordError(
            f"What was done in task {conversation.task_id}, trial {conversation.trial} cannot be put in order.",
            evidence="The user called tools, and the record does not say when.",
            next_step="Run it again with this version, which records it.",
        )
    answers = (message for message in conversation.messages if message["role"] == "assistant")
    return [action for message in answers for action in actions_in(message, setting.strategy, setting.bench)]


def actions_in(message: Mapping[str, Any], strategy: Strategy, bench: str) -> Iterator[TrajectoryAction]:
    """Yield what one message of an agent did, by the rules of its benchmark."""
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    text = str(message.get("content") or "")
    if calls and bench == "tau-bench":
        yield _called_v1(calls[0])
    elif calls:
        yield from (TrajectoryAction(call=call["name"], arguments=call["arguments"]) for call in calls)
    elif strategy not in _TEXT:
        yield TrajectoryAction(text=text)
    elif bench == "tau-bench":
        yield _read_v1(text)
    else:
        turn = read_action(text)
        yield from (TrajectoryAction(call=call.name, arguments=call.arguments) for call in turn.calls)
        if not turn.calls:
            yield TrajectoryAction(text=turn.text)


def _called_v1(call: Mapping[str, Any]) -> TrajectoryAction:
    """Read a call as tau-bench does: one of `respond`, which is no tool, is words."""
    made = TrajectoryAction(call=call["name"], arguments=call["arguments"])
    if made.call != RESPOND:
        return made
    try:
        return TrajectoryAction(text=str(json.loads(made.arguments)["content"]))
    except (ValueError, TypeError, KeyError):
        return made


def _read_v1(text: str) -> TrajectoryAction:
    """Read an answer as tau-bench does: what follows the last `Action:` is an action if it is JSON, else words."""
    written = text.rsplit("Action:", maxsplit=1)[-1].strip()
    try:
        action = json.loads(written)
        name, arguments = action["name"], action["arguments"]
    except (ValueError, TypeError, KeyError):
        return TrajectoryAction(text=written)
    if name == RESPOND:
        return TrajectoryAction(text=str(arguments.get("content", "")) if isinstance(arguments, dict) else written)
    return TrajectoryAction(call=str(name), arguments=json.dumps(arguments))


def interleaved(conversation: Conversation) -> list[dict[str, Any]]:
    """Return the messages in the order in which they happened; the user's calls and their results carry `by: user`.

    The agent does not see what a user with tools calls, so its messages do not contain it; those of the user do.
    """
    # For each message of the user to the agent, its calls before it; calls after the last message stand last.
    user_calls: list[list[dict[str, Any]]] = [[]]
    for message in conversation.user_messages:
        if message["role"] == "tool" or message.get("tool_calls"):
            user_calls[-1].append({**message, "by": "user"})
        elif message["role"] == "assistant":
            user_calls.append([])
    messages: list[dict[str, Any]] = []
    for message in conversation.messages:
        if message["role"] == "user" and not is_tool_output(message) and user_calls:
            messages += user_calls.pop(0)
        messages.append(message)
    return [*messages, *(message for calls in user_calls for message in calls)]


def made_by_user(message: Mapping[str, Any]) -> bool:
    """Whether a message is a call that the user made, or what its tool gave back."""
    return message.get("by") == "user"
