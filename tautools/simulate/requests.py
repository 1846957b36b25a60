"""Read a chat request, strictly enough to refuse what vLLM refuses in vLLM's words, and find the task it names.

Loading an env takes seconds, most of them for importing the benchmark's package, so it never happens on the event loop.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from tautools.bench.types import Domain, Task
from tautools.errors import TautoolsError
from tautools.records import BenchRef, Role

_log = logging.getLogger(__name__)

_USUAL_ENVS = (BenchRef("tau2", "retail"), BenchRef("tau2", "airline"), BenchRef("tau2", "telecom"))
"""What most runs use."""
_SWITCH_S = 0.0005
"""How long a thread may keep the interpreter while tasks are loaded [s]; with Python's own 5 ms, requests crawl."""


class ApiError(Exception):
    """A refusal, with the status and the body that vLLM would send; `param` is the field that is refused."""

    def __init__(self, status: int, message: str, *, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}

    def response(self) -> web.Response:
        """Return it as the answer to a request."""
        return web.json_response(self.body, status=self.status)


@dataclass(frozen=True, slots=True)
class TaskField:
    """The documented request field `tautools_task`: which conversation this request belongs to.

    It is the only way in which the server learns what it plays. Real servers ignore it.
    """

    ref: BenchRef
    task_id: str
    trial: int
    role: Role
    strategy: str
    seed: int | None

    @property
    def conversation(self) -> str:
        """What makes the conversation this one and no other; the same for all its requests."""
        ref = self.ref
        return f"{ref.bench}/{ref.env}/{ref.split}/{self.task_id}/{self.trial}/{self.strategy}/{self.seed}"


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
    seed: object
    """As it came; with the same seed the same prompt takes the same time."""
    thinking: bool
    task: TaskField | None


def read_request(raw: bytes) -> ChatRequest:
    """Read a request body.

    Raises
    ------
    ApiError
        400 when the body is not JSON, lacks what a chat needs, or forces a tool that it does not offer.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"The request body is not JSON: {error}", kind="Bad Request", param="body") from error
    if not isinstance(body, dict):
        raise ApiError(400, "The request body must be a JSON object.", kind="Bad Request", param="body")
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
        seed=body.get("seed"),
        thinking=_thinks(template, messages),
        task=_task_field(body.get("tautools_task")),
    )


def text_of(message: Mapping[str, Any]) -> str:
    """Return the text of a message, whose content may come in parts."""
    content = message.get("content") or ""
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return str(content)


def _thinks(template: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the model is to think: by the template's variable or, with the last word, by Qwen3's `/think`."""
    last = next((text_of(each) for each in reversed(messages) if each["role"] == "user"), "")
    for mark, thinks in (("/no_think", False), ("/think", True)):
        if last.endswith(mark):
            return thinks
    return any(template.get(name) is True for name in ("enable_thinking", "thinking"))


def _max_tokens(body: Mapping[str, Any]) -> int | None:
    name = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    value = body.get(name)
    if value is None or (isinstance(value, int) and value >= 1):
        return value
    raise ApiError(400, f"{name} must be at least 1, got {value}.", param=name)


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
        named = {name: str(value.get(name) or "") for name in BenchRef._fields}
        return TaskField(
            ref=BenchRef(**named | {"bench": str(value["bench"]), "env": str(value["env"])}),
            task_id=str(value["task_id"]),
            trial=int(value["trial"]),
            role=Role(value["role"]),
            strategy=str(value.get("strategy") or ""),
            seed=value.get("seed"),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ApiError(400, f"The field tautools_task cannot be read: {error}", param="tautools_task") from error


class TaskLibrary:
    """Finds the task that a request names."""

    def __init__(self) -> None:
        self._loads: dict[BenchRef, Future[Domain]] = {}
        self._one_at_a_time = threading.Lock()

    async def find(self, field: TaskField) -> tuple[Domain, Task]:
        """Return the env and the task that `field` names, loading the env once.

        Raises
        ------
        ApiError
            400 when there is no such bench, env, split or task.
        """
        try:
            domain = await self._domain(field.ref)
        except TautoolsError as error:
            raise ApiError(400, f"tautools_task: {error.problem}", param="tautools_task") from error
        task = domain.tasks.get(field.task_id)
        if task is None:
            message = f"tautools_task: there is no task {field.task_id!r} in {field.ref.env}."
            raise ApiError(400, message, param="tautools_task")
        return domain, task

    async def warm(self) -> None:
        """Load the usual envs before a request needs them; what cannot be loaded is named in the log."""
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        try:
            for ref in _USUAL_ENVS:
                try:
                    await self._domain(ref)
                except TautoolsError as error:
                    _log.warning("%s cannot be loaded: %s", ref.env, error)
        finally:
            sys.setswitchinterval(usual)

    async def _domain(self, ref: BenchRef) -> Domain:
        if ref not in self._loads:
            self._loads[ref] = self._load(ref)
        try:
            return await asyncio.wrap_future(self._loads[ref])
        except TautoolsError:
            self._loads.pop(ref, None)
            raise

    def _load(self, ref: BenchRef) -> Future[Domain]:
        """Load an env in a thread that does not delay the end of the server."""
        loaded: Future[Domain] = Future()
        loaded.set_running_or_notify_cancel()  # a client that leaves must not cancel what others wait for

        def work() -> None:
            from tautools.bench import open_domain

            with self._one_at_a_time:
                try:
                    loaded.set_result(open_domain(ref))
                except Exception as error:  # noqa: BLE001 - raised again in the coroutines that wait
                    loaded.set_exception(error)

        threading.Thread(target=work, name=f"load {ref.env}", daemon=True).start()
        return loaded
