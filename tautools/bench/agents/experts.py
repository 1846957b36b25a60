"""`experts`: an orchestrating model that may hand its turn to expert models.

As in ToolOrchestra's evaluation of tau2: the orchestrator is offered one more tool, `call_expert`, whose argument is
an expert's name. The expert is shown policy, tools and conversation, and its answer is the agent's turn: its text goes
to the customer, its call is run, and the orchestrator reads both in its history as if they were its own. The prompts
are ours, and so is the rule for an answer that cannot be read: the orchestrator is told so.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.fc import history_messages, turn_from_reply
from tautools.bench.types import Turn
from tautools.llm.types import ToolCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import AskModel, Expert, Observation
    from tautools.llm.types import Message, Reply, ToolSpec


_MESSAGE = re.compile(r"<message>(.*?)(?:</message>|\Z)", re.DOTALL)
_CALL = re.compile(r"<tool_call>\s*(?:```[a-z]*\s*)?")
_TAG = re.compile(r"</?(?:message|tool_call)>")


def read_tagged(text: str) -> Turn:
    """Read an answer in the tagged form; thinking is expected to be gone.

    The first call that can be read counts, and a call goes before words: words beside it stay with the agent. Without a
    call the last message counts, or, in an answer without any tag, the whole text. A call that cannot be read and an
    answer that is empty are unusable.
    """
    marks = list(_CALL.finditer(text))
    for mark in marks:
        call = _decode_tagged_call(text[mark.end() :])
        if call is not None:
            return Turn(calls=(call,), wrote=_tagged_text(text))
    said = _tagged_text(text)
    return Turn(said=said, unusable=bool(marks) or not said, wrote=said)


def _tagged_text(text: str) -> str:
    found = [said for each in _MESSAGE.finditer(text) if (said := each[1].strip())]
    if found:
        return found[-1]
    return "" if _TAG.search(text) else text.strip()


def _decode_tagged_call(text: str) -> ToolCall | None:
    try:
        value: Any = json.JSONDecoder(strict=False).raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments)
    return ToolCall(id=_new_call_id(), name=value["name"], arguments=arguments) if isinstance(arguments, str) else None


def _new_call_id() -> str:
    """Return an id for a call that came without one: the history needs it."""
    return f"call_{secrets.token_hex(8)}"


EXPERT_PROMPTS_VERSION = 1

CALL_EXPERT = "call_expert"
"""Name of the tool by which an expert is called; ToolOrchestra's."""

_TOOL_DESCRIPTION = """\
Hand the next step over to an expert. The expert reads the policy, the tools and the whole conversation, and takes the
step in your place: either it speaks to the customer or it makes one call of a tool. Use it when an expert is likelier
than you to take this step rightly."""

_EXPERT_PROMPT = """\
You are an expert whom the agent of this conversation has called in. Take exactly the next step in the agent's place:
either say something to the customer or make one call of a tool.

Words for the customer stand between <message> and </message>:
<message>what the customer reads</message>

A call of a tool stands between <tool_call> and </tool_call>, as one JSON object:
<tool_call>{"name": "<tool>", "arguments": {"<argument>": <value>}}</tool_call>
"""

_THINKING_PROMPT = """
You may think before that, between <think> and </think>; nobody else reads it.
"""


def expert_prompt(*, thinks: bool) -> str:
    """Return what an expert is told after the bench's own system prompt; one that is to think is told where."""
    return _EXPERT_PROMPT + _THINKING_PROMPT if thinks else _EXPERT_PROMPT


def expert_tool(experts: Sequence[Expert]) -> ToolSpec:
    """Return the tool that calls an expert, with a description of each."""
    told = [f"{each.name}: {each.description}" if each.description else each.name for each in experts]
    parameters = {
        "type": "object",
        "properties": {
            "expert": {
                "type": "string",
                "enum": [each.name for each in experts],
                "description": f"Who takes the step. {'; '.join(told)}.",
            }
        },
        "required": ["expert"],
    }
    return {
        "type": "function",
        "function": {"name": CALL_EXPERT, "description": _TOOL_DESCRIPTION, "parameters": parameters},
    }


def unusable_answer_text(name: str, wrote: str) -> str:
    """Return what the orchestrator is told when an expert's answer holds no step."""
    said = f"It wrote: {wrote.strip()[:300]}" if wrote.strip() else "It wrote nothing."
    return f"Error: the answer of {name} holds no step that can be taken. {said}"


def unknown_expert_text(name: str, names: Sequence[str]) -> str:
    """Return what the orchestrator is told when it calls an expert that is not there."""
    return f"Error: there is no expert {name!r}. There are: {', '.join(names)}."


MAX_CONSULTATIONS = 3
"""How often one move may be handed to an expert; after so many answers that cannot be read it counts as unusable."""

_EXPERT_KEY = "expert"
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

    def receive(self, text: str) -> None:
        """Take in what the other party said."""
        self.messages.append({"role": "user", "content": text})

    async def next_turn(self, ask: AskModel) -> Turn:
        """Ask until there is a move, the orchestrator's own or an expert's."""
        self._mover = ""
        for _ in range(MAX_CONSULTATIONS):
            reply = await ask([_without_expert_key(message) for message in self.messages], self._offered)
            call = next((each for each in reversed(reply.tool_calls) if each.name == CALL_EXPERT), None)
            if call is None:
                return turn_from_reply(reply)
            next_turn = await self._consult(call, reply, ask)
            if next_turn is not None:
                return next_turn
        return Turn(unusable=True)

    def observe(self, next_turn: Turn, observations: Sequence[Observation]) -> None:
        """Append the move, with the name of the expert who made it, and what its calls gave back."""
        first, *results = history_messages(next_turn, observations)
        self.messages += [first | {_EXPERT_KEY: self._mover} if self._mover else first, *results]

    def _shared(self) -> list[Message]:
        """Return what an expert sees of the conversation."""
        return [_without_expert_key(each) for at, each in enumerate(self.messages) if at and at not in self._asides]

    async def _consult(self, call: ToolCall, reply: Reply, ask: AskModel) -> Turn | None:
        """Return the move of the expert that was called; None when there is none, which the orchestrator was told."""
        name, arguments = _named_expert(call.arguments)
        expert = self._experts.get(name)
        if expert is None:
            self._tell(call, arguments, reply, unknown_expert_text(name, list(self._experts)))
            return None
        instructed = f"{self._system}\n\n{expert_prompt(thinks=expert.thinks)}"
        answer = await ask([{"role": "system", "content": instructed}, *self._shared()], self._tools, expert=name)
        next_turn = turn_from_reply(answer) if answer.tool_calls else read_tagged(answer.text)
        if next_turn.unusable:
            self._tell(call, arguments, reply, unusable_answer_text(name, answer.text))
            return None
        self._mover = name
        return next_turn

    def _tell(self, call: ToolCall, arguments: str, reply: Reply, text: str) -> None:
        function = {"name": CALL_EXPERT, "arguments": arguments}
        self._asides |= {len(self.messages), len(self.messages) + 1}
        self.messages += [
            {
                "role": "assistant",
                "content": reply.text,
                "tool_calls": [{"id": call.id, "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": call.id, "content": text},
        ]


def expert_prompt_hashes(experts: Sequence[Expert]) -> dict[str, str]:
    """Return the sha256 of what orchestrator and experts are shown beside the bench's own texts, by versioned name."""
    texts = {f"experts_tool-v{EXPERT_PROMPTS_VERSION}": json.dumps(expert_tool(experts), sort_keys=True)}
    texts |= {f"expert-v{EXPERT_PROMPTS_VERSION}:{each.name}": expert_prompt(thinks=each.thinks) for each in experts}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def _without_expert_key(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != _EXPERT_KEY} if _EXPERT_KEY in message else message


def _named_expert(arguments: str) -> tuple[str, str]:
    """Return the expert that a call names, and the call's arguments as they can be sent back."""
    try:
        read: Any = json.loads(arguments)
    except ValueError:
        return arguments.strip()[:80], "{}"
    name = read.get("expert") if isinstance(read, dict) else read
    return str(name), json.dumps(read) if isinstance(read, dict) else "{}"
