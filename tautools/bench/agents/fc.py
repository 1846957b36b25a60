"""Tool calling: the model's own calls, as inspect's agents and simulated customers use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.types import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import AskModel, Observation
    from tautools.llm.types import Message, Reply, ToolCall, ToolSpec


class ToolCallingParticipant:
    """A party whose model is offered tools and answers with calls or words.

    Words beside calls stay in its own history and do not reach the other party, as in inspect. Calls are sent back with
    the arguments as the bench read them: a server that is sent arguments which are not JSON refuses the request.
    """

    def __init__(self, system: str, tools: Sequence[ToolSpec]) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system}]
        self.tools: Sequence[ToolSpec] | None = list(tools) or None

    def receive(self, text: str) -> None:
        """Take in what the other party said."""
        self.messages.append({"role": "user", "content": text})

    async def next_turn(self, ask: AskModel) -> Turn:
        """Ask once; return the calls when there are any, else the words."""
        return turn_from_reply(await ask(self.messages, self.tools))

    def observe(self, next_turn: Turn, observations: Sequence[Observation]) -> None:
        """Append the answer and one tool message for each call."""
        self.messages += history_messages(next_turn, observations)


def turn_from_reply(reply: Reply) -> Turn:
    """Return what an answer means under tool calling: its calls when there are any, else its words."""
    if reply.tool_calls:
        return Turn(calls=reply.tool_calls, wrote=reply.text)
    return Turn(said=reply.text, unusable=not reply.text.strip(), wrote=reply.text)


def history_messages(next_turn: Turn, observations: Sequence[Observation]) -> list[Message]:
    """Return a move as messages of a history: the answer, and one tool message for each of its calls."""
    pairs = list(zip(next_turn.calls, observations, strict=True))
    message: Message = {"role": "assistant", "content": next_turn.wrote}
    if pairs:
        message["tool_calls"] = [_sent_back(call, seen) for call, seen in pairs]
    return [message, *({"role": "tool", "tool_call_id": call.id, "content": seen.text} for call, seen in pairs)]


def _sent_back(call: ToolCall, seen: Observation) -> Message:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": seen.arguments}}
