"""Answers to requests that name no task: probes of a server, and anyone who talks to it.

Short and harmless: the word that was asked for, a call of the tool that was asked for, what a tool gave back. An agent
without a task is an agent of skill 0: of many tools it calls none unless the request names it, and it gives up. A
customer reads the scenario in its prompt, with a task or without.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tautools.simulate.errands import customer_answer
from tautools.simulate.schema_value import SchemaFiller
from tautools.simulate.speech import Speech

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.simulate.requests import ChatRequest

__all__ = ["forced_call", "probe_answer"]

_FILLING = r"(?:only|just|exactly|with|the|single|one|word|words|text|string|following|this|in|token|back|to|me)"
_WORD_ASKED = re.compile(
    rf"\b(?:reply|answer|respond|say|write|output|repeat)\b(?:[\s:]+{_FILLING}\b)*[\s:]+[\"'“`*]*([\w-]+)",
    re.IGNORECASE,
)
_PLAINLY_ASKED = re.compile(r"\b(?:word|exactly|only|just)\b", re.IGNORECASE)
_LONGEST_PROBE = 200
"""Characters; who writes more talks about something, and does not ask for a word."""
_SCENARIO = "<scenario>"
_NO_TASK = "I am sorry, I am unable to do that. Is there anything else I can help you with?"
_PLAIN = "This is a simulated model: I can play a task of the benchmark when the request names one."


def probe_answer(request: ChatRequest) -> Speech:
    """Answer a request without a task."""
    last = request.messages[-1]
    said = _text(last)
    if _SCENARIO in _instructions(request):
        return customer_answer(request.messages, request.tools)
    if last["role"] == "tool":
        return Speech(text=f"The tool answered: {said[:400]}")
    tool = _tool_asked(said, request.tools)
    if tool is not None:
        return _call(tool, said)
    return Speech(text=_words(request, said))


def _words(request: ChatRequest, said: str) -> str:
    instructions = _instructions(request)
    asked = _WORD_ASKED.search(said) if len(said) <= _LONGEST_PROBE else None
    # Somebody who was given a role hears customers, who seldom ask for a word.
    if asked and (not instructions or _PLAINLY_ASKED.search(asked.group())):
        return asked.group(1)
    return _NO_TASK if instructions else _PLAIN


def _instructions(request: ChatRequest) -> str:
    return " ".join(_text(message) for message in request.messages if message["role"] == "system")


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
