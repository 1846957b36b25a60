"""`experts`: an orchestrating model that may hand its turn to expert models.

As in ToolOrchestra's evaluation of tau2: the orchestrator is offered one more tool, `call_expert`, whose argument is
an expert's name. The expert is shown policy, tools and conversation, and its answer is the agent's turn: its text goes
to the customer, its call is run, and the orchestrator reads both in its history as if they were its own. The prompts
are ours, and so is the rule for an answer that cannot be read: the orchestrator gets an error.
"""

import json
import re
import secrets
from collections.abc import Sequence
from typing import Any

from tautools.bench.agents import history_messages, turn_from_reply
from tautools.bench.agents.text import MAX_TRIES, object_at
from tautools.bench.types import AskModel, Expert, Observation, Participant, Turn, text_hashes
from tautools.llm.types import Message, Reply, ToolCall, ToolSpec

_MESSAGE = re.compile(r"<message>(.*?)(?:</message>|\Z)", re.DOTALL)
_CALL = re.compile("<tool_call>")
_TAG = re.compile(r"</?(?:message|tool_call)>")


def read_tagged(text: str) -> Turn:
    """Read an answer in the tagged form; its thinking is taken out before.

    The first call that can be read counts, and a call goes before text: text next to it stays with the agent. Without a
    call the last message counts, or, in an answer without any tag, the whole text. A call that cannot be read and an
    answer that is empty are unusable.
    """
    messages = [message for match in _MESSAGE.finditer(text) if (message := match[1].strip())]
    message = messages[-1] if messages else "" if _TAG.search(text) else text.strip()
    marks = list(_CALL.finditer(text))
    for mark in marks[:MAX_TRIES]:
        call = _decode_tagged_call(text, mark.end())
        if call is not None:
            return Turn(calls=(call,), raw_text=message)
    return Turn(message, unusable=bool(marks) or not message, raw_text=message)


def _decode_tagged_call(text: str, start: int) -> ToolCall | None:
    value = object_at(text, start)
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments)
    if not isinstance(value.get("name"), str) or not isinstance(arguments, str):
        return None
    # The history needs an id, and such a call comes without one.
    return ToolCall(f"call_{secrets.token_hex(8)}", value["name"], arguments)


EXPERT_PROMPTS_VERSION = 1
"""Raise it with any change of the prompts: it changes what scores mean."""

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
    """Return what follows the bench's system prompt for an expert; one that thinks gets a place for it."""
    return _EXPERT_PROMPT + _THINKING_PROMPT if thinks else _EXPERT_PROMPT


def expert_tool(experts: Sequence[Expert]) -> ToolSpec:
    """Return the tool that calls an expert, with a description of each."""
    names = [f"{each.name}: {each.description}" if each.description else each.name for each in experts]
    parameters = {
        "type": "object",
        "properties": {
            "expert": {
                "type": "string",
                "enum": [each.name for each in experts],
                "description": f"Who takes the step. {'; '.join(names)}.",
            }
        },
        "required": ["expert"],
    }
    return {
        "type": "function",
        "function": {"name": CALL_EXPERT, "description": _TOOL_DESCRIPTION, "parameters": parameters},
    }


MAX_CONSULTATIONS = 3
"""How often one turn may be handed to an expert; after so many answers that cannot be read it counts as unusable."""

_EXPERT_KEY = "expert"
"""Key that marks, in the record alone, an assistant message that an expert wrote."""


class Orchestrator(Participant):
    """An agent whose model calls tools, speaks, or lets an expert do either.

    An expert sees the orchestrator's history without the calls of experts that came to nothing.
    """

    def __init__(self, system_prompt: str, tools: Sequence[ToolSpec], experts: Sequence[Expert]) -> None:
        super().__init__(system_prompt)
        self._tools = list(tools)
        self._experts = {expert.name: expert for expert in experts}
        self._offered = [*tools, expert_tool(experts)]
        self._failed_consultations: set[int] = set()
        """Indices in the history of calls of experts that came to nothing, and of their answers."""
        self._acting_expert = ""

    async def next_turn(self, ask: AskModel) -> Turn:
        """Ask until there is a turn, the orchestrator's own or an expert's."""
        self._acting_expert = ""
        for _ in range(MAX_CONSULTATIONS):
            reply = await ask([_without_expert_key(message) for message in self.messages], self._offered)
            call = next((each for each in reversed(reply.tool_calls) if each.name == CALL_EXPERT), None)
            if call is None:
                return turn_from_reply(reply)
            turn = await self._consult(call, reply, ask)
            if turn is not None:
                return turn
        return Turn(unusable=True)

    def observe(self, turn: Turn, observations: Sequence[Observation]) -> None:
        """Append the turn, with the name of the expert who took it, and what its calls gave back."""
        first, *results = history_messages(turn, observations)
        self.messages += [first | {_EXPERT_KEY: self._acting_expert} if self._acting_expert else first, *results]

    async def _consult(self, call: ToolCall, reply: Reply, ask: AskModel) -> Turn | None:
        """Return the turn of the expert that was called; None when there is none, and the history says why."""
        name, arguments = _named_expert(call.arguments)
        expert = self._experts.get(name)
        if expert is None:
            problem = f"Error: there is no expert {name!r}. There are: {', '.join(self._experts)}."
        else:
            system = {**self.messages[0]}
            system["content"] += f"\n\n{expert_prompt(thinks=expert.thinks)}"
            hidden = self._failed_consultations
            shared = [_without_expert_key(each) for at, each in enumerate(self.messages) if at and at not in hidden]
            answer = await ask([system, *shared], self._tools, expert=name)
            turn = turn_from_reply(answer) if answer.tool_calls else read_tagged(answer.text)
            if not turn.unusable:
                self._acting_expert = name
                return turn
            written = answer.text.strip()[:300]
            problem = f"Error: the answer of {name} holds no step that can be taken. " + (
                f"It wrote: {written}" if written else "It wrote nothing."
            )
        self._failed_consultations |= {len(self.messages), len(self.messages) + 1}
        self.messages += [
            {"role": "assistant", "content": reply.text, "tool_calls": [call.as_message(arguments)]},
            {"role": "tool", "tool_call_id": call.id, "content": problem},
        ]
        return None


def expert_prompt_hashes(experts: Sequence[Expert]) -> dict[str, str]:
    """Return the sha256 of our own texts for orchestrator and experts, by versioned name."""
    texts = {f"experts_tool-v{EXPERT_PROMPTS_VERSION}": json.dumps(expert_tool(experts), sort_keys=True)}
    texts |= {f"expert-v{EXPERT_PROMPTS_VERSION}:{each.name}": expert_prompt(thinks=each.thinks) for each in experts}
    return text_hashes(texts)


def _without_expert_key(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != _EXPERT_KEY}


def _named_expert(arguments: str) -> tuple[str, str]:
    """Return the expert that a call names, and the call's arguments as they can be sent back."""
    try:
        value: Any = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments.strip()[:80], "{}"
    if isinstance(value, dict):
        return str(value.get("expert")), json.dumps(value)
    return str(value), "{}"
