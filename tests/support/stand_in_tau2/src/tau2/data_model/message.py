"""Messages."""

from typing import Any

from pydantic import BaseModel


class ToolCall(BaseModel):
    id: str = ""
    name: str
    arguments: dict[str, Any]
    requestor: str = "assistant"


class ToolMessage(BaseModel):
    id: str
    role: str = "tool"
    content: str | None = None
    requestor: str = "assistant"
    error: bool = False


class _Spoken(BaseModel):
    role: str
    content: str | None = None
    tool_calls: list[ToolCall] | None = None


class AssistantMessage(_Spoken):
    pass


class UserMessage(_Spoken):
    pass
