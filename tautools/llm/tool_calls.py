"""Tool calls put together from the pieces in which they are streamed."""

from __future__ import annotations

import secrets
from typing import Any

import orjson

from tautools.llm.types import ToolCall

__all__ = ["ToolCallParts"]


class _Parts:
    __slots__ = ("arguments", "id", "name")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []


class ToolCallParts:
    """Merges deltas by their index.

    Three habits of servers are allowed for: a missing index (the delta goes on with the last call, or begins one when
    it has a new id), several whole calls that all say index 0, and a fresh id in every delta of one call. A delta
    begins a call of its own only when it has both another id and a name.
    """

    def __init__(self) -> None:
        self._calls: list[_Parts] = []
        self._at: dict[int, _Parts] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, deltas: list[dict[str, Any]]) -> None:
        """Take the `tool_calls` of one chunk."""
        for delta in deltas:
            function = delta.get("function") or {}
            parts = self._target(delta, function)
            parts.id = parts.id or delta.get("id") or ""
            parts.name = parts.name or function.get("name") or ""
            arguments = function.get("arguments")
            if isinstance(arguments, str):
                parts.arguments.append(arguments)
            elif arguments is not None:
                parts.arguments.append(orjson.dumps(arguments).decode())

    def _target(self, delta: dict[str, Any], function: dict[str, Any]) -> _Parts:
        index = delta.get("index")
        parts = self._at.get(index) if index is not None else (self._calls[-1] if self._calls else None)
        new_id = delta.get("id")
        if parts is None or (new_id and new_id != parts.id and function.get("name") and parts.name):
            parts = _Parts()
            self._calls.append(parts)
            if index is not None:
                self._at[index] = parts
        return parts

    def whole(self) -> tuple[ToolCall, ...]:
        """Return the calls; one that came without an id gets one."""
        return tuple(
            ToolCall(parts.id or f"call_{secrets.token_hex(8)}", parts.name, "".join(parts.arguments))
            for parts in self._calls
        )
