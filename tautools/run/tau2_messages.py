"""A conversation's messages in the form in which tau2-bench keeps them: one list, both sides' calls in it, with times.

The agent's history and the customer's are two views on one conversation. Here they are put together: what the customer
did before its words stands before them, as it happened.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.text import read_action
from tautools.records import Role, Strategy
from tautools.run.count import is_tool_output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.records import CallRecord, Conversation

__all__ = ["iso_time", "trajectory"]

Message = dict[str, Any]
_ROLES = {"assistant": Role.AGENT, "user": Role.USER}


def trajectory(conversation: Conversation, strategy: Strategy, calls: Sequence[CallRecord]) -> list[Message]:
    """Return the messages of a conversation as tau2-bench writes them.

    Parameters
    ----------
    conversation : Conversation
        What was kept of it.
    strategy : Strategy
        How the agent was prompted: under `act` and `react` its calls are read from its text.
    calls : sequence of CallRecord
        Its model calls, for times and tokens; those of attempts that were lost do no harm.
    """
    by_text = strategy in {Strategy.ACT, Strategy.REACT}
    customer = _customer(conversation.user_messages)
    messages: list[Message] = []
    for message in conversation.messages:
        if message["role"] == "system":
            continue
        if message["role"] == "user" and not (by_text and is_tool_output(message)):
            messages += next(customer, []) or [_spoken("user", message.get("content"))]
        else:
            messages += _agent(message, messages, by_text=by_text)
    for unheard in customer:
        messages += unheard
    _mark_errors(messages, conversation)
    _set_times(messages, conversation, calls)
    return [{**message, "turn_idx": index} for index, message in enumerate(messages)]


def iso_time(unix_s: float) -> str:
    """Return a time as tau2-bench writes it: local, without a zone."""
    return datetime.fromtimestamp(unix_s, UTC).astimezone().replace(tzinfo=None).isoformat()


def _customer(history: Sequence[Message]) -> Iterator[list[Message]]:
    """Yield what the customer did up to each of its words; at the end what was never followed by words."""
    part: list[Message] = []
    for message in history:
        if message["role"] == "assistant":
            part.append(_from_openai(message, "user"))
            if not message.get("tool_calls"):
                yield part
                part = []
        elif message["role"] == "tool":
            part.append(_result(message.get("tool_call_id", ""), message.get("content"), "user"))
    if part:
        yield part


def _agent(message: Message, before: Sequence[Message], *, by_text: bool) -> list[Message]:
    if message["role"] == "tool":
        return [_result(message.get("tool_call_id", ""), message.get("content"), "assistant")]
    if message["role"] == "user":  # what a tool gave back under `act` and `react`
        asked = before[-1].get("tool_calls") if before else None
        text = str(message.get("content", "")).removeprefix("API output:").strip()
        return [_result(asked[0]["id"] if asked else "", text, "assistant")]
    return [_from_text(message, len(before)) if by_text else _from_openai(message, "assistant")]


def _from_openai(message: Message, requestor: str) -> Message:
    calls = [
        {
            "id": call.get("id") or "",
            "name": call["function"]["name"],
            "arguments": _object(call["function"]["arguments"]),
            "requestor": requestor,
        }
        for call in message.get("tool_calls") or ()
    ]
    return _spoken(requestor, message.get("content"), calls)


def _from_text(message: Message, index: int) -> Message:
    """Read an answer of `act` or `react`; the text as it was written is kept beside what it meant."""
    wrote = str(message.get("content") or "")
    move = read_action(wrote)
    calls = [
        {"id": f"text_{index}_{number}", "name": c.name, "arguments": _object(c.arguments), "requestor": "assistant"}
        for number, c in enumerate(move.calls)
    ]
    return {**_spoken("assistant", None if calls else move.said, calls), "raw_data": {"content": wrote}}


def _spoken(role: str, content: Any, calls: list[Message] | None = None) -> Message:
    return {"role": role, "content": content or None if calls else content or "", "tool_calls": calls or None}


def _result(call_id: str, content: Any, requestor: str) -> Message:
    return {"id": call_id, "role": "tool", "content": content, "requestor": requestor, "error": False}


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {"": text}
    return found if isinstance(found, dict) else {"": found}


def _mark_errors(messages: Sequence[Message], conversation: Conversation) -> None:
    """Say of each tool result whether it was a refusal, as the conversation kept it."""
    told = {side: iter([deed.error for deed in conversation.deeds if deed.call and deed.by == side]) for side in _ROLES}
    for message in messages:
        if message["role"] == "tool":
            message["error"] = next(told[message["requestor"]], str(message["content"]).startswith("Error"))


def _set_times(messages: Sequence[Message], conversation: Conversation, calls: Sequence[CallRecord]) -> None:
    """Give each message the time at which it was there, and to those of models what their request cost."""
    asked = _requests(conversation, calls)
    now = conversation.started_at
    for message in messages:
        side = _ROLES.get(message["role"])
        call = asked[side].pop(0) if side in asked and asked[side] and not _is_greeting(message, messages) else None
        if call is None:
            now += 1e-6  # in order, and no time of its own
        else:
            now = max(now + 1e-6, call.started_at + call.queue_s + (call.e2e_s or 0.0))
            message.update(_cost(call))
        message["timestamp"] = iso_time(min(now, conversation.finished_at))


def _is_greeting(message: Message, messages: Sequence[Message]) -> bool:
    return message is messages[0] and message["role"] == "assistant"


def _requests(conversation: Conversation, calls: Sequence[CallRecord]) -> dict[Role, list[CallRecord]]:
    """Return each side's requests in order, where there was one for each of its messages."""
    found: dict[Role, list[CallRecord]] = defaultdict(list)
    for call in calls:
        within = conversation.started_at - 1.0 <= call.started_at <= conversation.finished_at
        if call.role in _ROLES.values() and not call.fault and not call.expert and within:
            found[call.role].append(call)
    views = {Role.AGENT: conversation.messages, Role.USER: conversation.user_messages}
    greeted = bool(conversation.messages[1:2]) and conversation.messages[1]["role"] == "assistant"
    answers = {role: sum(each["role"] == "assistant" for each in view) for role, view in views.items()}
    answers[Role.AGENT] -= greeted
    return {role: sorted(each, key=_order) for role, each in found.items() if len(each) == answers[role]}


def _order(call: CallRecord) -> tuple[float, int]:
    return call.started_at, call.step


def _cost(call: CallRecord) -> Message:
    told: Message = {"generation_time_seconds": call.e2e_s, "cost": call.cost_usd}
    if call.prompt_tokens is not None and call.output_tokens is not None:
        told["usage"] = {"prompt_tokens": call.prompt_tokens, "completion_tokens": call.output_tokens}
    return told
