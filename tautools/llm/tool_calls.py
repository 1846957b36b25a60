"""Tool calls as they stream in: which delta belongs to which call, and what its arguments say.

Servers number, name and cut the calls of an answer in many ways (`docs/fidelity.md`, How streams are read). What is put
right here is the server's writing; what the model wrote is kept, readable or not.
"""

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from tautools.llm.types import ToolCall


def sound_text(text: str) -> str:
    """Return `text` with each half of a surrogate pair that stands alone replaced: nothing could store or send it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def read_arguments(text: str) -> str:
    """Return the arguments of a call as JSON text.

    Nothing and `null` are no arguments, an object that was encoded twice is decoded, half a surrogate pair is replaced.
    Everything else is what the model wrote and stays as it is, readable or not.
    """
    plain = text.strip()
    if plain in {"", "null"}:
        return "{}"
    if not plain.startswith(('"', "{")):
        return sound_text(text)
    try:
        value = json.loads(plain)
        if isinstance(value, str):
            inner = read_arguments(value)
            return inner if _is_object(inner) else sound_text(text)
        whole = json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError):
        return sound_text(text)
    sound = sound_text(whole)
    return text if sound == whole else sound


def _is_object(text: str) -> bool:
    """Whether `text` is one whole JSON object."""
    if not text.rstrip().endswith("}"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


@dataclass(slots=True)
class _PartialCall:
    index: Any = None
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    unsure: bool = False
    """Whether it may be no call: the end of the one before it, which named its tool once more."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def is_followed_by(self, name: str, changed: bool, arguments: str) -> bool:
        """Whether a delta with that name, with another id or not, and that piece of arguments begins the next call."""
        if not name:
            return False
        if not self.name:
            return changed
        if self.id and not (changed or self.pieces or arguments):
            return False  # the name comes in pieces, under one id
        if name != self.name or (self.pieces and self.pieces[-1].rstrip().endswith("}") and _is_object(self.text)):
            return True
        return changed and bool(self.pieces) and _is_object(arguments)


class ToolCallParts:
    """Puts the deltas of an answer's tool calls together.

    A delta belongs to the call with its index; among several with one index, or without any, to the one with its id,
    else to the last. It begins a call of its own when it names a tool and the call it would go on with has another
    name, or has all its arguments. So calls are told apart when all say index 0, have no index, no id, an id for all or
    a fresh one in every delta, or repeat the tool's name in every delta.
    """

    def __init__(self) -> None:
        self._calls: list[_PartialCall] = []

    def add(self, deltas: Any) -> None:
        """Take the `tool_calls` of one chunk; raises `TypeError` or `AttributeError` for what are none."""
        if isinstance(deltas, dict):  # one call, or calls by their numbers
            deltas = [deltas] if {"function", "name", "id"} & deltas.keys() else list(deltas.values())
        for delta in deltas:
            if delta:
                self._add(delta)

    def _add(self, delta: dict[str, Any]) -> None:
        function = delta.get("function") or delta
        name, arguments = function.get("name") or "", function.get("arguments")
        if not isinstance(name, str):
            raise TypeError("a tool's name is no text")
        if not isinstance(arguments, str):
            # Some languages write an empty object as an empty list.
            arguments = "" if arguments is None else json.dumps({} if arguments == [] else arguments)
        id_ = "" if delta.get("id") is None else str(delta["id"])
        call = self._call_for(delta.get("index"), id_, name, arguments)
        call.id = call.id or id_
        call.name = name if not call.name or name.startswith(call.name) else call.name + name * (name != call.name)
        if arguments:
            call.pieces.append(arguments)

    def _call_for(self, index: Any, id_: str, name: str, arguments: str) -> _PartialCall:
        there = [call for call in self._calls if index is None or call.index == index]
        same = [call for call in there if id_ and call.id == id_]
        call = next(reversed(same or there), None)
        if call is None and self._calls and not name and not id_ and not _is_object(self._calls[-1].text):
            return self._calls[-1]
        changed = bool(call and id_ and call.id and id_ != call.id)
        if call is None or call.is_followed_by(name, changed, arguments):
            unsure = call is not None and call.name == name and not changed and not arguments
            call = _PartialCall(index, unsure=unsure)
            self._calls.append(call)
        return call

    def whole(self) -> tuple[ToolCall, ...]:
        """Return the calls; one that came without an id, or with that of another, gets one."""
        made: dict[str, ToolCall] = {}
        for call in self._calls:
            text = call.text
            if not text and (call.unsure or not call.name):
                continue
            id_ = sound_text(call.id)
            if not id_ or id_ in made:
                id_ = f"call_{secrets.token_hex(8)}"
            made[id_] = ToolCall(id_, sound_text(call.name), read_arguments(text))
        return tuple(made.values())
