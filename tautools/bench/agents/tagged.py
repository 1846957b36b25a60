"""The tagged form of an answer: `<message>…</message>` for words, `<tool_call>{json}</tool_call>` for a call."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

from tautools.bench.agents.move import Move
from tautools.llm.types import ToolCall

__all__ = ["read_tagged"]

_MESSAGE = re.compile(r"<message>(.*?)(?:</message>|\Z)", re.DOTALL)
_CALL = re.compile(r"<tool_call>\s*(?:```[a-z]*\s*)?")
_TAG = re.compile(r"</?(?:message|tool_call)>")


def read_tagged(text: str) -> Move:
    """Read an answer in the tagged form; thinking is expected to be gone.

    The first call that can be read counts, and a call goes before words: words beside it stay with the agent. Without a
    call the last message counts, or, in an answer without any tag, the whole text. A call that cannot be read and an
    answer that is empty are unusable.
    """
    marks = list(_CALL.finditer(text))
    for mark in marks:
        call = _decode(text[mark.end() :])
        if call is not None:
            return Move(calls=(call,), wrote=_words(text))
    said = _words(text)
    return Move(said=said, unusable=bool(marks) or not said, wrote=said)


def _words(text: str) -> str:
    found = [said for each in _MESSAGE.finditer(text) if (said := each[1].strip())]
    if found:
        return found[-1]
    return "" if _TAG.search(text) else text.strip()


def _decode(text: str) -> ToolCall | None:
    try:
        value: Any = json.JSONDecoder(strict=False).raw_decode(text)[0]
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments)
    return ToolCall(id=_id(), name=value["name"], arguments=arguments) if isinstance(arguments, str) else None


def _id() -> str:
    """Return an id for a call that came without one: the history needs it."""
    return f"call_{secrets.token_hex(8)}"
