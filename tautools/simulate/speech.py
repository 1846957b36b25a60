"""What the simulated model says: words or one tool call, and how each strategy writes them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tautools.bench.agents.expert_words import TOOL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.simulate.requests import ChatRequest

__all__ = ["Do", "Say", "Speech", "Step", "called_last", "hand_over", "moves_of", "render", "render_tagged"]

_ACTION = re.compile(r"Action:\s*(\{.*\})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Say:
    """Words for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Do:
    """One tool call."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


Step: TypeAlias = Say | Do


@dataclass(frozen=True, slots=True)
class Speech:
    """One answer as it goes over the wire."""

    text: str = ""
    tool: str = ""
    arguments: str = ""
    """Of the tool call, as JSON text."""
    reasoning: str = ""


def render(step: Step, thought: str, strategy: str) -> Speech:
    """Write a step as the strategy wants it: a tool call for `fc`, text for `act` and `react`."""
    if strategy not in {"act", "react"}:
        if isinstance(step, Say):
            return Speech(text=step.text)
        return Speech(tool=step.name, arguments=json.dumps(dict(step.arguments)))
    action = {
        "name": "respond" if isinstance(step, Say) else step.name,
        "arguments": {"content": step.text} if isinstance(step, Say) else dict(step.arguments),
    }
    text = f"Action:\n{json.dumps(action)}"
    if strategy == "react":
        text = f"Thought:\n{thought}\n{text}"
    return Speech(text=text)


def render_tagged(step: Step) -> Speech:
    """Write a step as an expert does: words or a call between tags."""
    if isinstance(step, Say):
        return Speech(text=f"<message>{step.text}</message>")
    action = {"name": step.name, "arguments": dict(step.arguments)}
    return Speech(text=f"<tool_call>{json.dumps(action)}</tool_call>")


def hand_over(expert: str) -> Speech:
    """Call an expert, as an orchestrating agent does."""
    return Speech(tool=TOOL, arguments=json.dumps({"expert": expert}))


def moves_of(request: ChatRequest, strategy: str) -> list[str]:
    """Return what the agent did so far: names of tools, and empty text where it spoke to the user.

    What stands before the user's first words (a fixed greeting) is not the model's doing and is left out.
    """
    moves: list[str] = []
    opened = False
    for message in request.messages:
        opened = opened or message["role"] == "user"
        if opened and message["role"] == "assistant":
            moves.append(_move(message, strategy))
    return moves


def called_last(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the name of the tool whose answer is the last message; empty text when the last is something else."""
    called = [message for message in messages if message.get("tool_calls")]
    return _move(called[-1], "") if called and messages[-1]["role"] == "tool" else ""


def _move(message: Mapping[str, Any], strategy: str) -> str:
    calls: Sequence[Mapping[str, Any]] = message.get("tool_calls") or []
    if calls:
        return str(calls[0].get("function", {}).get("name", ""))
    if strategy not in {"act", "react"}:
        return ""
    found = _ACTION.search(str(message.get("content") or ""))
    try:
        name = json.loads(found.group(1))["name"] if found else ""
    except (ValueError, KeyError, TypeError):
        return ""  # cut short: it was said to the user as it stood
    return "" if name == "respond" else str(name)
