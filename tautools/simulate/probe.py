"""Answers to requests that name no task: probes of a server, and anyone who talks to it.

Short and harmless: the word that was asked for, a call of the tool that was asked for, what a tool gave back. An agent
without a task is an agent of skill 0, so of many tools none is called unless the request names it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tautools.simulate.schema_value import SchemaFiller
from tautools.simulate.speech import Speech

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.simulate.requests import ChatRequest

__all__ = ["forced_call", "probe_answer"]

_FILLING = r"(?:only|just|exactly|with|the|single|one|word|words|text|string|following|this|in|token|back|to|me)"
_WORD_ASKED = re.compile(
    rf"\b(?:reply|answer|respond|say|write|return|output|repeat)\b(?:[\s:]+{_FILLING}\b)*[\s:]+[\"'“`*]*([\w-]+)",
    re.IGNORECASE,
)
_PLAIN = "This is a simulated model: I can play a task of the benchmark when the request names one."


def probe_answer(request: ChatRequest) -> Speech:
    """Answer a request without a task."""
    last = request.messages[-1]
    said = _text(last)
    if last["role"] == "tool":
        return Speech(text=f"The tool answered: {said[:400]}")
    tool = _tool_asked(said, request.tools)
    if tool is not None:
        return _call(tool, said)
    asked = _WORD_ASKED.search(said)
    return Speech(text=asked.group(1) if asked else _PLAIN)


def forced_call(request: ChatRequest) -> Speech:
    """Call the tool that `tool_choice` forces, with arguments that fit its schema."""
    named = [tool for tool in request.tools if tool["function"]["name"] == request.forced_tool]
    said = next((_text(item) for item in reversed(request.messages) if item["role"] == "user"), "")
    return _call((named or request.tools)[0], said)


def _call(tool: Mapping[str, Any], said: str) -> Speech:
    schema = tool["function"].get("parameters") or {"type": "object"}
    arguments = SchemaFiller(said, schema).value({"type": "object", **schema})
    return Speech(tool=tool["function"]["name"], arguments=json.dumps(arguments))


def _tool_asked(said: str, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    words = set(re.findall(r"[a-z]{4,}", said.lower()))
    for tool in tools:
        name = tool["function"]["name"]
        # A single tool is called when its subject is spoken of; of many, only the one that is named.
        if name in said or (len(tools) == 1 and words & set(re.findall(r"[a-z]{4,}", name.lower()))):
            return tool
    return None


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)
