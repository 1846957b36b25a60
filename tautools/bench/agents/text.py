"""`act` and `react`: tools by plain text, for models that cannot call tools or shall not.

tau2 has no such agents; these are ours, versioned, and no `tools` are sent. The model writes

    Action:
    {"name": <tool or respond>, "arguments": {...}}

and, for react, a line `Thought:` before it. What a tool gives back comes as a user message. An answer that is plain
words is said to the user; so is one whose action cannot be read, which also counts as an unusable answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.instructions import TEMPLATES, VERSION
from tautools.bench.agents.move import Move
from tautools.llm.types import ToolCall

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.agents.move import Ask
    from tautools.bench.types import Domain, Observation
    from tautools.llm.types import Message
    from tautools.records import Strategy

__all__ = ["RESPOND", "TextAgent", "instructions_of", "read_action"]

RESPOND = "respond"
"""The action that speaks to the user; its argument is `content`."""

_MARKER = re.compile(r"^[ \t>*#]*Action:[ \t*]*", re.MULTILINE)
_FENCE = re.compile(r"\s*(?:```[a-z]*)?\s*")


class TextAgent:
    """An agent that reads its tools in the system prompt and writes its actions as text."""

    def __init__(self, domain: Domain, strategy: Strategy) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system_prompt(domain, strategy)}]

    def hear(self, text: str) -> None:
        """Take in what the user said."""
        self.messages.append({"role": "user", "content": text})

    async def move(self, ask: Ask) -> Move:
        """Ask once; return the first action that can be read, and without one the words."""
        reply = await ask(self.messages)
        return replace(read_action(reply.text), wrote=reply.text)

    def acted(self, move: Move, observations: Sequence[Observation]) -> None:
        """Append the answer as it was written and, for a tool, its output as a user message."""
        self.messages.append({"role": "assistant", "content": move.wrote})
        self.messages += [{"role": "user", "content": f"API output: {seen.text}"} for seen in observations]


def system_prompt(domain: Domain, strategy: Strategy) -> str:
    """Return the system prompt: our instructions around the bench's policy and tools."""
    tools = "\n".join(json.dumps(tool["function"]) for tool in domain.tools)
    return TEMPLATES[strategy].replace("{{policy}}", domain.policy).replace("{{tools}}", tools)


def instructions_of(strategy: Strategy) -> dict[str, str]:
    """Return the strategy's own text under its versioned name."""
    return {f"{strategy}-v{VERSION}": TEMPLATES[strategy]}


def read_action(text: str) -> Move:
    """Read an answer of `act` or `react`.

    The first `Action:` at the start of a line that is followed by a readable action counts; what comes after that
    action is not acted on. Without a readable one the words after the last `Action:`, or else all of them, are said.
    """
    marks = list(_MARKER.finditer(text))
    for mark in marks:
        action = _decode(text[mark.end() :])
        if action is not None:
            return _move(*action)
    said = text[marks[-1].end() :].strip() if marks else text.strip()
    return Move(said=said, unusable=bool(marks) or not said)


def _move(name: str, arguments: dict[str, Any]) -> Move:
    if name != RESPOND:
        return Move(calls=(ToolCall(id="", name=name, arguments=json.dumps(arguments)),))
    said = str(arguments["content"])
    return Move(said=said, unusable=not said.strip())


def _decode(text: str) -> tuple[str, dict[str, Any]] | None:
    opening = _FENCE.match(text)
    start = opening.end() if opening else 0
    try:
        value, _ = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (json.JSONDecodeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    name, arguments = value.get("name"), value.get("arguments")
    if not isinstance(name, str) or not isinstance(arguments, dict):
        return None
    return None if name == RESPOND and not isinstance(arguments.get("content"), str) else (name, arguments)
