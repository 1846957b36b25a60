"""A client whose models answer by a script, and which keeps every request as it was sent."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tautools.errors import CallFault, ModelCallError
from tautools.llm.types import CallTag, Message, Reply, ToolCall, ToolSpec
from tautools.records import CallRecord, Role

Line = str | ModelCallError | list[tuple[str, str]]
"""Words, a fault, or calls as (name, arguments as JSON text)."""


@dataclass
class Request:
    """One request as it was sent."""

    tag: CallTag
    messages: list[Message]
    tools: list[ToolSpec] | None


@dataclass
class ScriptedClient:
    """Answers each role from its own list of lines; when a list is used up, its last line is said again."""

    agent: list[Line]
    user: list[Line] = field(default_factory=lambda: ["Hello, please help me.", "###STOP###"])
    expert: list[Line] = field(default_factory=list)
    judge: list[Line] = field(default_factory=list)
    slow_s: float = 0.0
    simulated: bool = False
    requests: list[Request] = field(default_factory=list)

    def of(self, role: Role) -> list[Request]:
        """Return the requests of one role."""
        return [request for request in self.requests if request.tag.role is role]

    async def complete(
        self, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None
    ) -> Reply:
        """Answer with the next line of the role's script."""
        lines = {Role.AGENT: self.agent, Role.EXPERT: self.expert, Role.JUDGE: self.judge}.get(tag.role, self.user)
        line = lines[min(len(self.of(tag.role)), len(lines) - 1)]
        sent = copy.deepcopy(list(messages))
        self.requests.append(Request(tag, sent, None if tools is None else list(tools)))
        await asyncio.sleep(self.slow_s)
        if isinstance(line, ModelCallError):
            raise line
        text = line if isinstance(line, str) else ""
        calls = () if isinstance(line, str) else tuple(_call(index, *each) for index, each in enumerate(line))
        return Reply(text, calls, "tool_calls" if calls else "stop", "", self._record(tag))

    def _record(self, tag: CallTag) -> CallRecord:
        return CallRecord(role=tag.role, simulated=self.simulated)


def _call(index: int, name: str, arguments: str) -> ToolCall:
    return ToolCall(id=f"call_{index}", name=name, arguments=arguments)


def fault(kind: CallFault) -> ModelCallError:
    """Return a fault of that kind."""
    return ModelCallError(f"It is {kind}.", fault=kind)


def action(name: str, /, **arguments: Any) -> str:
    """Return what a model of `act` writes."""
    return f"Action:\n{json.dumps({'name': name, 'arguments': arguments})}"
