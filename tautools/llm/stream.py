"""The lean streaming client for OpenAI-compatible servers, and the parser of what arrives.

Servers with a reasoning parser stream thinking in a field of its own; those without leave it in the text, between
`<think>` and `</think>`. Templates of Qwen and others open the tag in the prompt, so the text may hold the closing tag
alone. The whole text is cut at once, when it is complete: how the tags were spread over chunks does not matter.
"""

import asyncio
import re
import secrets
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import orjson

from tautools.errors import CallFault, ModelCallError
from tautools.http import StreamedResponse, StreamHttp
from tautools.llm.faults import excerpt, refusal
from tautools.llm.types import Completion, Endpoint, ToolCall

_TAG = re.compile(r"(</?think>)")
_UNREADABLE = (orjson.JSONDecodeError, AttributeError, TypeError, KeyError, IndexError)
"""What is raised where a chunk is no JSON, or has not the form of a chunk."""


def split_thinking(text: str) -> tuple[str, str]:
    """Return `text` without its thinking, and the thinking.

    What stands before a closing tag was thought, with or without an opening one; what follows an opening tag that is
    never closed was thought too. A text without tags is returned as it is.
    """
    if "think>" not in text:
        return text, ""
    spoken: list[str] = []
    thoughts: list[str] = []
    thinking = False
    for part in _TAG.split(text):
        if part == "<think>":
            thinking = True
        elif part == "</think>":
            if not thinking and spoken:
                thoughts.append(spoken.pop())
            thinking = False
        else:
            (thoughts if thinking else spoken).append(part)
    if len(spoken) == 1 and not thoughts:
        return text, ""
    return "".join(spoken).strip(), "".join(thoughts).strip()


@dataclass(slots=True)
class _PartialCall:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class ToolCallParts:
    """Merges deltas by their index.

    Three habits of servers are allowed for: a missing index (the delta goes on with the last call, or begins one when
    it has a new id), several whole calls that all say index 0, and a fresh id in every delta of one call. A delta
    begins a call of its own only when it has both another id and a name.
    """

    def __init__(self) -> None:
        self._calls: list[_PartialCall] = []
        self._at: dict[int, _PartialCall] = {}

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

    def _target(self, delta: dict[str, Any], function: dict[str, Any]) -> _PartialCall:
        index = delta.get("index")
        parts = self._at.get(index) if index is not None else (self._calls[-1] if self._calls else None)
        new_id = delta.get("id")
        if parts is None or (new_id and new_id != parts.id and function.get("name") and parts.name):
            parts = _PartialCall()
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


class StreamParser:
    """Parser of an OpenAI-compatible stream; what it has taken stays readable when the stream breaks.

    Times are `time.perf_counter()` [s]: `started` when the request is sent, `first` and `last` token, `ended`.
    `gaps` are the seconds between chunks that carry tokens.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.started = time.perf_counter()
        self.first: float | None = None
        self.last = 0.0
        self.ended: float | None = None
        self.gaps: list[float] = []
        self.source = "streamed"
        self.status: int | None = None
        self.finish_reason = ""
        self.usage: dict[str, Any] = {}
        self.metrics: dict[str, Any] = {}
        self.fingerprint = ""
        self.cost_usd: float | None = None
        self.done = False
        self._opened = False
        self._garbage = b""
        self._rest = b""
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._calls = ToolCallParts()

    @property
    def chunks(self) -> int:
        """Chunks with tokens so far."""
        return 0 if self.first is None else len(self.gaps) + 1

    def feed(self, data: bytes, now: float) -> None:
        """Take raw bytes of a server-sent event stream that arrived at `now`.

        Raises
        ------
        ModelCallError
            For an error event, and for what is not an event of such a stream (`MALFORMED`).
        """
        lines = (self._rest + data if self._rest else data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._payload(line[5:].strip(), now)
            elif line.strip() and not line.startswith((b":", b"event:", b"id:", b"retry:")) and not self._garbage:
                self._garbage = line
        if len(self._rest) > 2**24:
            raise self._malformed("sends a line without end", self._rest)

    def _payload(self, payload: bytes, now: float) -> None:
        if payload == b"[DONE]":
            self.done = True
            return
        if not payload:
            return
        try:
            self.take(orjson.loads(payload), now)
        except _UNREADABLE:
            raise self._malformed("sends chunks that cannot be read", payload) from None

    def take(self, event: dict[str, Any], now: float) -> None:
        """Take one chunk, parsed."""
        if not self._opened:
            self._opened = True
            self.fingerprint = event.get("system_fingerprint") or ""
        choices = event.get("choices")
        if choices:
            choice = choices[0]
            delta = choice.get("delta")
            if delta and self._delta(delta):
                if self.first is None:
                    self.first = now
                else:
                    self.gaps.append(now - self.last)
                self.last = now
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if event.get("error") or event.get("object") == "error":
            raise self._error_event(event)
        if event.get("usage"):
            self.usage = event["usage"]
        if event.get("metrics"):
            self.metrics = event["metrics"]

    def _delta(self, delta: dict[str, Any]) -> object:
        """Keep the parts of a delta; return something true when it carries a token."""
        text = delta.get("content")
        if text:
            self._text.append(text)
        thought = delta.get("reasoning") or delta.get("reasoning_content")
        if thought:
            self._thoughts.append(thought)
        calls = delta.get("tool_calls")
        if calls:
            self._calls.add(calls)
        return text or thought or calls

    def take_whole(self, text: str, now: float) -> None:
        """Take an answer that came as one JSON object although a stream was asked for: it has no first token."""
        self.source = "wall"
        self.done = True
        try:
            event = orjson.loads(text)
            choices = event.get("choices") or []
            if choices:
                choices[0]["delta"] = choices[0]["message"]
            self.take(event, now)
        except _UNREADABLE:
            raise self._malformed("sends an answer that cannot be read", text.encode()) from None
        self.first = None

    def finish(self, *, asked_to_think: bool = False) -> Completion:
        """Return the answer, once the stream is over; `ModelCallError` when it was not a whole answer.

        With `asked_to_think`, a text cut off by its length before any closing tag, with nothing in a field for
        thinking, is taken as unfinished thinking (templates open the tag in the prompt).
        """
        self._check()
        try:
            text, thinking = split_thinking("".join(self._text))
            thinking = "".join(self._thoughts) + thinking
            calls = self._calls.whole()
        except TypeError:
            raise self._malformed("sends text that is no text", b"") from None
        if asked_to_think and not thinking and not calls and self.finish_reason == "length":
            text, thinking = "", text
        return Completion(text, calls, self.finish_reason, thinking)

    def _check(self) -> None:
        if self.finish_reason == "abort":
            raise self._broken("broke the answer off")
        if self.finish_reason == "error":
            raise refusal(self.where, 500, "finish_reason is error")
        if self.finish_reason or (self.done and self.first is not None):
            return
        if self.done:
            raise self._malformed("sent an answer without choices", self._garbage)
        if not self._opened:
            raise self._malformed("did not send a stream of events", self._garbage or self._rest)
        raise self._broken("ended the answer in the middle")

    def _broken(self, did: str) -> ModelCallError:
        evidence = f"{self.chunks} chunks had come; no finish_reason, no [DONE]." if not self.finish_reason else ""
        return ModelCallError(f"{self.where} {did}.", fault=CallFault.BROKEN_STREAM, evidence=evidence)

    def _malformed(self, did: str, seen: bytes) -> ModelCallError:
        evidence = excerpt(seen.decode(errors="replace"))
        return ModelCallError(f"{self.where} {did}.", fault=CallFault.MALFORMED, status=self.status, evidence=evidence)

    def _error_event(self, event: dict[str, Any]) -> ModelCallError:
        """Return the error of an error event: by its code when that is an HTTP status, else the server's fault."""
        error = event.get("error") or event
        code = error.get("code") if isinstance(error, dict) else None
        text = orjson.dumps({"error": error}).decode()
        status = int(str(code)) if str(code).isdigit() else 500
        if code == "context_length_exceeded":
            status = 400
        return refusal(self.where, status, text)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait [s]; the defaults allow for a queue of long prompts on a busy server."""

    connect_s: float = 10.0
    first_token_s: float = 600.0
    """From sending the request to the first token."""
    idle_s: float = 120.0
    """Between two chunks."""
    total_s: float = 1800.0
    """From sending the request to the end of the answer."""


class StreamTimeouts:
    """Enforces `Timeouts` on one answer, as an async context manager around it.

    Every chunk only notes when it came (`touch`); one timer of the event loop checks now and then, so that a chunk
    costs next to nothing.

    Raises
    ------
    ModelCallError
        `TIME_OUT`, naming which of the limits was passed.
    """

    def __init__(self, timeouts: Timeouts, what: str) -> None:
        self._timeouts = timeouts
        self._what = what
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._started = self._loop.time()
        self._last: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._problem = ""

    def touch(self) -> None:
        """Note that data came after the first token."""
        first = self._last is None
        self._last = self._loop.time()
        if first:  # from here on another limit counts, which may end sooner than the one the timer waits for
            self._check_limits()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._check_limits()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            next_step = "See whether the server is overloaded or stuck; the limits are in tautools.llm.Timeouts."
            raise ModelCallError(self._problem, fault=CallFault.TIME_OUT, next_step=next_step) from None

    def _check_limits(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due, self._problem = self._due()
        if due <= self._loop.time():
            self._scope.reschedule(due)
        else:
            self._timer = self._loop.call_at(due, self._check_limits)

    def _due(self) -> tuple[float, str]:
        limits = self._timeouts
        total = self._started + limits.total_s, f"{self._what} did not finish within {limits.total_s:g} s."
        if self._last is None:
            first = self._started + limits.first_token_s
            return min(total, (first, f"{self._what} gave no first token within {limits.first_token_s:g} s."))
        idle = self._last + limits.idle_s
        return min(total, (idle, f"{self._what} fell silent in mid-answer for {limits.idle_s:g} s."))


async def ask_server(
    http: StreamHttp, endpoint: Endpoint, body: dict[str, Any], parser: StreamParser, timeouts: Timeouts
) -> None:
    """Send `body` (as `chat_body` makes it) and take the whole answer into `parser`.

    Raises
    ------
    ModelCallError
        With the class of what went wrong; what had arrived by then is in `parser`.
    """
    url = endpoint.base_url.rstrip("/") + "/chat/completions"
    data = orjson.dumps(body)
    async with StreamTimeouts(timeouts, parser.where) as watch:
        parser.started = time.perf_counter()
        async with http.post(url, data, key=endpoint.key) as answer:
            parser.status = answer.status
            if answer.status != 200:
                raise refusal(parser.where, answer.status, await answer.text(), headers=answer.headers)
            if answer.content_type == "application/json":
                parser.take_whole(await answer.text(2**24), time.perf_counter())
            elif answer.content_type == "text/event-stream":
                await _read_events(answer, parser, watch)
            else:
                raise ModelCallError(
                    f"{parser.where} did not send a stream of events but {answer.content_type}.",
                    fault=CallFault.MALFORMED,
                    status=answer.status,
                    evidence=excerpt(await answer.text(2048)),
                    next_step=f"See what listens there: `tautools server test {endpoint.base_url}`. It may be a "
                    "proxy or a login page.",
                )
    parser.ended = parser.ended or time.perf_counter()


async def _read_events(answer: StreamedResponse, parser: StreamParser, watch: StreamTimeouts) -> None:
    read, feed, touch, clock = answer.read, parser.feed, watch.touch, time.perf_counter
    while data := await read():
        feed(data, clock())
        if parser.done:
            parser.ended = clock()
            await answer.linger()
            return
        if parser.first is not None:
            touch()
