"""Tool calling: the model's own calls, as inspect's agents and simulated customers use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.agents.move import Move

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.agents.move import Ask
    from tautools.bench.types import Observation
    from tautools.llm.types import Message, Reply, ToolCall, ToolSpec

__all__ = ["ToolCaller", "called", "plainly_answered"]


class ToolCaller:
    """A party whose model is offered tools and answers with calls or words.

    Words beside calls stay in its own history and do not reach the other party, as in inspect. Calls are sent back with
    the arguments as the bench read them: a server that is sent arguments which are not JSON refuses the request.
    """

    def __init__(self, system: str, tools: Sequence[ToolSpec]) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system}]
        self.tools: Sequence[ToolSpec] | None = list(tools) or None

    def hear(self, text: str) -> None:
        """Take in what the other party said."""
        self.messages.append({"role": "user", "content": text})

    async def move(self, ask: Ask) -> Move:
        """Ask once; return the calls when there are any, else the words."""
        return called(await ask(self.messages, self.tools))

    def acted(self, move: Move, observations: Sequence[Observation]) -> None:
        """Append the answer and one tool message for each call."""
        self.messages += plainly_answered(move, observations)


def called(reply: Reply) -> Move:
    """Return what an answer means under tool calling: its calls when there are any, else its words."""
    if reply.tool_calls:
        return Move(calls=reply.tool_calls, wrote=reply.text)
    return Move(said=reply.text, unusable=not reply.text.strip(), wrote=reply.text)


def plainly_answered(move: Move, observations: Sequence[Observation]) -> list[Message]:
    """Return a move as messages of a history: the answer, and one tool message for each of its calls."""
    pairs = list(zip(move.calls, observations, strict=True))
    message: Message = {"role": "assistant", "content": move.wrote}
    if pairs:
        message["tool_calls"] = [_echo(call, seen) for call, seen in pairs]
    return [message, *({"role": "tool", "tool_call_id": call.id, "content": seen.text} for call, seen in pairs)]


def _echo(call: ToolCall, seen: Observation) -> Message:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": seen.arguments}}
