"""How an agent speaks to its model, and how its answers are read: tool calling here, plain text and experts beside it.

inspect's agents and simulated customers call tools as `ToolCallingParticipant` does.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tautools.bench.types import AskModel, Observation, Participant, Turn
from tautools.llm.types import Message, Reply, ToolSpec


class ToolCallingParticipant(Participant):
    """A participant whose model is offered tools and answers with calls or text.

    Text next to calls stays in its own history and does not reach the other participant, as in inspect. Calls are sent
    back with the arguments as the bench read them: a server refuses a request whose arguments are not JSON.
    """

    def __init__(self, system_prompt: str, tools: Sequence[ToolSpec]) -> None:
        super().__init__(system_prompt)
        self.tools: Sequence[ToolSpec] | None = list(tools) or None

    async def next_turn(self, ask: AskModel) -> Turn:
        """Ask once; return the calls when there are any, else the text."""
        return turn_from_reply(await ask(self.messages, self.tools))

    def observe(self, turn: Turn, observations: Sequence[Observation]) -> None:
        """Append the answer and one tool message for each call."""
        self.messages += history_messages(turn, observations)


def turn_from_reply(reply: Reply) -> Turn:
    """Return what an answer means under tool calling: its calls when there are any, else its text."""
    return Turn(calls=reply.tool_calls, raw_text=reply.text) if reply.tool_calls else Turn.of_text(reply.text)


def history_messages(turn: Turn, observations: Sequence[Observation]) -> list[Message]:
    """Return a turn as messages of a history: the answer, and one tool message for each of its calls."""
    pairs = list(zip(turn.calls, observations, strict=True))
    message: Message = {"role": "assistant", "content": turn.raw_text}
    if pairs:
        message["tool_calls"] = [call.as_message(result.arguments) for call, result in pairs]
    return [message, *({"role": "tool", "tool_call_id": call.id, "content": result.text} for call, result in pairs)]
