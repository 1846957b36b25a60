"""`experts`: an orchestrating model that may hand its move to expert models.

As in ToolOrchestra's evaluation of tau2: the orchestrator is offered one more tool, `call_expert`, whose argument is
an expert's name. The expert is shown policy, tools and conversation, and what it answers is the agent's move: its words
go to the customer, its call is run, and the orchestrator reads both in its history as if they were its own. The words
around it are ours (`expert_words`), and what becomes of an answer that cannot be read: the orchestrator is told so.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.expert_words import TOOL, VERSION, expert_instructions, expert_tool, fault_text, unknown_text
from tautools.bench.agents.fc import called, plainly_answered
from tautools.bench.agents.move import Move
from tautools.bench.agents.tagged import read_tagged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.agents.move import Ask
    from tautools.bench.types import Expert, Observation
    from tautools.llm.types import Message, Reply, ToolCall, ToolSpec

__all__ = ["Orchestrator", "expert_texts"]

CONSULTATIONS = 3
"""How often one move may be handed to an expert; after so many answers that cannot be read it counts as unusable."""

_BY = "expert"
"""Key that marks, in the record alone, an assistant message that an expert wrote."""


class Orchestrator:
    """An agent whose model calls tools, speaks, or lets an expert do either.

    An expert sees the orchestrator's history without the calls of experts in it, which came to nothing.
    """

    def __init__(self, system: str, tools: Sequence[ToolSpec], experts: Sequence[Expert]) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system}]
        self._tools = list(tools)
        self._experts = {expert.name: expert for expert in experts}
        self._offered = [*tools, expert_tool(experts)]
        self._asides: set[int] = set()
        """Where in the history calls of experts stand that came to nothing."""
        self._mover = ""
        self._system = system

    def hear(self, text: str) -> None:
        """Take in what the other party said."""
        self.messages.append({"role": "user", "content": text})

    async def move(self, ask: Ask) -> Move:
        """Ask until there is a move, the orchestrator's own or an expert's."""
        self._mover = ""
        for _ in range(CONSULTATIONS):
            reply = await ask([_plain(message) for message in self.messages], self._offered)
            call = next((each for each in reversed(reply.tool_calls) if each.name == TOOL), None)
            if call is None:
                return called(reply)
            move = await self._consult(call, reply, ask)
            if move is not None:
                return move
        return Move(unusable=True)

    def acted(self, move: Move, observations: Sequence[Observation]) -> None:
        """Append the move, with the name of the expert who made it, and what its calls gave back."""
        first, *results = plainly_answered(move, observations)
        self.messages += [first | {_BY: self._mover} if self._mover else first, *results]

    def _shared(self) -> list[Message]:
        """Return what an expert sees of the conversation."""
        return [_plain(each) for at, each in enumerate(self.messages) if at and at not in self._asides]

    async def _consult(self, call: ToolCall, reply: Reply, ask: Ask) -> Move | None:
        """Return the move of the expert that was called; None when there is none, which the orchestrator was told."""
        name, arguments = _named(call.arguments)
        expert = self._experts.get(name)
        if expert is None:
            self._tell(call, arguments, reply, unknown_text(name, list(self._experts)))
            return None
        instructed = f"{self._system}\n\n{expert_instructions(thinks=expert.thinks)}"
        answer = await ask([{"role": "system", "content": instructed}, *self._shared()], self._tools, expert=name)
        move = called(answer) if answer.tool_calls else read_tagged(answer.text)
        if move.unusable:
            self._tell(call, arguments, reply, fault_text(name, answer.text))
            return None
        self._mover = name
        return move

    def _tell(self, call: ToolCall, arguments: str, reply: Reply, text: str) -> None:
        function = {"name": TOOL, "arguments": arguments}
        self._asides |= {len(self.messages), len(self.messages) + 1}
        self.messages += [
            {
                "role": "assistant",
                "content": reply.text,
                "tool_calls": [{"id": call.id, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": call.id, "content": text},
        ]


def expert_texts(experts: Sequence[Expert]) -> dict[str, str]:
    """Return the sha256 of what orchestrator and experts are shown beside the bench's own texts, by versioned name."""
    texts = {f"experts_tool-v{VERSION}": json.dumps(expert_tool(experts), sort_keys=True)}
    texts |= {f"expert-v{VERSION}:{each.name}": expert_instructions(thinks=each.thinks) for each in experts}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def _plain(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != _BY} if _BY in message else message


def _named(arguments: str) -> tuple[str, str]:
    """Return the expert that a call names, and the call's arguments as they can be sent back."""
    try:
        read: Any = json.loads(arguments)
    except ValueError:
        return arguments.strip()[:80], "{}"
    name = read.get("expert") if isinstance(read, dict) else read
    return str(name), json.dumps(read) if isinstance(read, dict) else "{}"
