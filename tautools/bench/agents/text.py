"""`act` and `react`: tools by plain text, for models that cannot call tools or should not.

tau2 has no such agents; these are ours, versioned, and no `tools` are sent. The model writes

    Action:
    {"name": <tool or respond>, "arguments": {...}}

and, for react, a line `Thought:` before it. The result of a tool comes back as a user message. An answer that is plain
text goes to the user; so does one whose action cannot be read, which also counts as an unusable answer.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from tautools.bench.types import AskModel, Domain, Observation, Participant, Turn
from tautools.files import packaged_yaml
from tautools.llm.types import ToolCall
from tautools.records import Strategy

TEXT_PROMPTS_VERSION = 1
"""Raise it with any change of the prompts: it changes what scores mean."""


@cache
def text_prompts() -> dict[Strategy, str]:
    """Return each strategy's system prompt, with `{{policy}}` and `{{tools}}` to be filled in."""
    parts = packaged_yaml("tautools.bench", "prompts.yaml")
    return {strategy: parts["role"] + parts[strategy.value] for strategy in (Strategy.ACT, Strategy.REACT)}


RESPOND = "respond"
"""The action that speaks to the user; its argument is `content`."""


def text_of_respond_call(name: str, arguments: str) -> str | None:
    """Return what a model says by calling a tool `respond`, which does not exist but v1 obeys; None for other calls."""
    if name != RESPOND:
        return None
    try:
        content = json.loads(arguments)["content"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return content if isinstance(content, str) else None


TOOL_OUTPUT = "API output: "
"""How a tool's output begins, which goes to the model as a user message."""

_MARKER = re.compile(r"^[ \t>*#]*Action:[ \t*]*", re.MULTILINE)
_FENCE = re.compile(r"\s*(?:```[a-z]*)?\s*")


class TextAgent(Participant):
    """An agent that reads its tools in the system prompt and writes its actions as text."""

    async def next_turn(self, ask: AskModel) -> Turn:
        """Ask once; return the first action that can be read, and without one the text."""
        reply = await ask(self.messages)
        return replace(read_action(reply.text), raw_text=reply.text)

    def observe(self, turn: Turn, observations: Sequence[Observation]) -> None:
        """Append the answer as it was written and, for a tool, its output as a user message."""
        self.messages.append({"role": "assistant", "content": turn.raw_text})
        self.messages += [{"role": "user", "content": f"{TOOL_OUTPUT}{result.text}"} for result in observations]


def text_system_prompt(domain: Domain, strategy: Strategy) -> str:
    """Return the system prompt: our instructions around the bench's policy and tools."""
    tools = "\n".join(json.dumps(tool["function"]) for tool in domain.tools)
    return text_prompts()[strategy].replace("{{policy}}", domain.policy).replace("{{tools}}", tools)


def read_action(text: str) -> Turn:
    """Read an answer of `act` or `react`.

    The first `Action:` at the start of a line that is followed by a readable action counts; what comes after that
    action is ignored. Without a readable one the text after the last `Action:`, or else all of it, goes to the user.
    """
    marks = list(_MARKER.finditer(text))
    for mark in marks[:MAX_TRIES]:
        action = _decode_action(text, mark.end())
        if action is not None and action[0] == RESPOND:
            return Turn.of_text(str(action[1]["content"]), "")
        if action is not None:
            return Turn(calls=(ToolCall(id="", name=action[0], arguments=json.dumps(action[1])),))
    rest = text[marks[-1].end() :].strip() if marks else text.strip()
    return Turn(rest, unusable=bool(marks) or not rest)


MAX_TRIES = 100
"""Most places of one answer at which an action is looked for: an answer may be nothing but such places."""


def object_at(text: str, start: int) -> dict[str, Any]:
    """Return the JSON object that stands at a place of a text, in a fence or not; an empty one when there is none."""
    fence = _FENCE.match(text, start)
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(text, fence.end() if fence else start)
        json.dumps(value)  # what can be read cannot always be written: it nests deeper then
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _decode_action(text: str, start: int) -> tuple[str, dict[str, Any]] | None:
    value = object_at(text, start)
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return None if name == RESPOND and not isinstance(arguments.get("content"), str) else (name, arguments)
