"""What a chat request asks for, read strictly enough to refuse what vLLM refuses, in vLLM's words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tautools.records import Role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ApiError", "ChatRequest", "TaskField", "read_request"]


class ApiError(Exception):
    """A refusal, with the status and the body that vLLM would send.

    Parameters
    ----------
    status : int
        HTTP status.
    message : str
        What is refused, and why.
    kind : str
        The error's `type` in the body.
    param : str, optional
        The field of the request that is refused.
    """

    def __init__(self, status: int, message: str, *, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


@dataclass(frozen=True, slots=True)
class TaskField:
    """The documented request field `tautools_task`: which conversation this request belongs to.

    It is the only way in which the server learns what it plays. Real servers ignore it.
    """

    bench: str
    env: str
    split: str
    task_id: str
    trial: int
    role: Role
    strategy: str
    seed: int | None
    source: str = ""
    """Where the benchmark is loaded from, its usual place when empty; `path` and `python` are of a checkout."""
    path: str = ""
    python: str = ""

    @property
    def conversation(self) -> str:
        """What makes the conversation this one and no other; the same for all its requests."""
        return f"{self.bench}/{self.env}/{self.split}/{self.task_id}/{self.trial}/{self.strategy}/{self.seed}"


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request to `/v1/chat/completions`."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Mapping[str, Any]]
    forced_tool: str | None
    """Name of the tool that must be called; empty text when any tool must be called; None when none must be."""
    stream: bool
    include_usage: bool
    max_tokens: int | None
    thinking: bool
    task: TaskField | None


def read_request(raw: bytes) -> ChatRequest:
    """Read a request body.

    Raises
    ------
    ApiError
        400 when the body is not JSON, lacks what a chat needs, or forces a tool that it does not offer.
    """
    body = _body(raw)
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(item, dict) and "role" in item for item in messages):
        raise ApiError(400, "Field required: messages, a list of objects with a role", kind="Bad Request",
                       param="body.messages")  # fmt: skip
    if not messages:
        raise ApiError(400, "At least one message is needed.", param="messages")
    if body.get("n") not in (None, 1):
        raise ApiError(400, "The simulated server gives one choice; n must be 1.", param="n")
    choice = body.get("tool_choice")
    tools = [] if choice == "none" else list(body.get("tools") or [])
    template = body.get("chat_template_kwargs") or {}
    return ChatRequest(
        model=str(body.get("model") or ""),
        messages=messages,
        tools=tools,
        forced_tool=_forced_tool(choice, tools),
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        max_tokens=_max_tokens(body),
        thinking=_thinks(template, messages),
        task=_task_field(body.get("tautools_task")),
    )


def _thinks(template: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the model is to think: by the template's variable or, with the last word, by Qwen3's `/think`."""
    last = next((str(each.get("content") or "") for each in reversed(messages) if each["role"] == "user"), "")
    for mark, thinks in (("/no_think", False), ("/think", True)):
        if last.endswith(mark):
            return thinks
    return any(template.get(name) is True for name in ("enable_thinking", "thinking"))


def _body(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The request body is not JSON: {error}", kind="Bad Request", param="body") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The request body must be a JSON object.", kind="Bad Request", param="body")
    return body


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or value < 1:
            raise ApiError(400, f"{name} must be at least 1, got {value}.", param=name)
        return value
    return None


def _forced_tool(choice: object, tools: Sequence[Mapping[str, Any]]) -> str | None:
    if choice in (None, "auto", "none"):
        return None
    if choice == "required":
        if not tools:
            raise ApiError(400, "When using `tool_choice`, `tools` must be set.", param="tool_choice")
        return ""
    name = (choice.get("function") or {}).get("name") if isinstance(choice, dict) else None
    if name not in [tool.get("function", {}).get("name") for tool in tools]:
        raise ApiError(400, "The tool specified in `tool_choice` does not match any of the specified `tools`.",
                       param="tool_choice")  # fmt: skip
    return str(name)


def _task_field(value: object) -> TaskField | None:
    if value is None:
        return None
    try:
        if not isinstance(value, dict):
            raise TypeError("it is not an object")
        return TaskField(
            bench=str(value["bench"]),
            env=str(value["env"]),
            split=str(value.get("split") or ""),
            task_id=str(value["task_id"]),
            trial=int(value["trial"]),
            role=Role(value["role"]),
            strategy=str(value.get("strategy") or ""),
            seed=value.get("seed"),
            source=str(value.get("source") or ""),
            path=str(value.get("path") or ""),
            python=str(value.get("python") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(400, f"The field tautools_task cannot be read: {error}", param="tautools_task") from error
