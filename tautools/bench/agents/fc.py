"""Tool calling: the model's own calls, as inspect's agents and simulated customers use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.agents.move import Move

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.agents.move import Ask
    from tautools.bench.types import Observation
    from tautools.llm.types import Message, ToolCall, ToolSpec

__all__ = ["ToolCaller"]


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
        reply = await ask(self.messages, self.tools)
        if reply.tool_calls:
            return Move(calls=reply.tool_calls, wrote=reply.text)
        return Move(said=reply.text, unusable=not reply.text.strip(), wrote=reply.text)

    def acted(self, move: Move, observations: Sequence[Observation]) -> None:
        """Append the answer and one tool message for each call."""
        pairs = list(zip(move.calls, observations, strict=True))
        message: Message = {"role": "assistant", "content": move.wrote}
        if pairs:
            message["tool_calls"] = [_echo(call, seen) for call, seen in pairs]
        results = [{"role": "tool", "tool_call_id": call.id, "content": seen.text} for call, seen in pairs]
        self.messages += [message, *results]


def _echo(call: ToolCall, seen: Observation) -> Message:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": seen.arguments}}
