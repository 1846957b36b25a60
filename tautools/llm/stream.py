"""The lean streaming client for OpenAI-compatible servers, and the parser of what arrives.

How each habit of servers is read is in the table of `docs/fidelity.md`, How streams are read.

Servers with a reasoning parser stream thinking in a field of its own; those without leave it in the text, between
`<think>` and `</think>`. Templates of Qwen and others open the tag in the prompt, so the text may hold the closing tag
alone. The whole text is cut at once, when it is complete: how the tags were spread over chunks does not matter.
"""

import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import orjson

from tautools.errors import CallFault, ModelCallError
from tautools.http_stream import StreamedResponse, StreamHttp
from tautools.llm.events import LONGEST_LINE, UNREADABLE, EventLines, loads
from tautools.llm.faults import error_in_stream, excerpt, refusal
from tautools.llm.tool_calls import ToolCallParts, sound_text
from tautools.llm.types import Completion, Endpoint

_TAG = re.compile(r"(</?think>)")
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
"""Fields of a delta that hold thinking; a server that fills several says the same in each."""
_SPOKEN = {"content", "refusal"}
_PART_TEXTS = ("text", "refusal", "thinking", "reasoning", "summary", "content")
"""Fields of a part of a content that hold its text."""

_COUNTS = (
    ("prompt_tokens", ("prompt_tokens", "input_tokens")),
    ("cached_tokens", ("cached", "cached_tokens", "prompt_cache_hit_tokens")),
    ("output_tokens", ("completion_tokens", "output_tokens")),
)
"""What servers call the counts of a usage object, by our names."""


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


class StreamParser(EventLines):
    """Parser of an OpenAI-compatible stream; what it has taken stays readable when the stream breaks.

    Times are `time.perf_counter()` [s]: `started` when the request is sent, `first` and `last` token, `ended`.
    `gaps` are the seconds between chunks that carry tokens.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
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
        self._opened_at: float | None = None
        self._text: list[str] = []
        self._thoughts: list[str] = []
        self._calls = ToolCallParts()

    @property
    def chunks(self) -> int:
        """Chunks with tokens so far."""
        return 0 if self.first is None else len(self.gaps) + 1

    def take(self, event: dict[str, Any], now: float) -> None:
        """Take one chunk, parsed; raises `TypeError` and the like for what is none."""
        if not self.opened:
            self.opened = True
            self.fingerprint = sound_text(str(event.get("system_fingerprint") or ""))
        choices = event.get("choices")
        choice: dict[str, Any] = {}
        reason = None
        if choices:
            choice = choices[0]
            if choice is None or choice.get("index"):
                choice = _first_choice(choices)
            delta = choice.get("delta") or (self.first is None and choice.get("message"))
            if delta and self._take_delta(delta):
                if self.first is None:
                    # Servers hold the first tokens of a call back until they know that it is one.
                    self.first = now if self._text or self._thoughts else self._opened_at or now
                else:
                    self.gaps.append(now - self.last)
                self.last = now
            elif self._opened_at is None:
                self._opened_at = now
            reason = choice.get("finish_reason")
        if usage := event.get("usage"):
            self._take_usage(usage)
        if reason or not choices or event.get("error"):
            if reason:
                self.last = now  # the end token comes with it, and without text
            self._take_rest(event, choice)

    def _take_rest(self, event: dict[str, Any], choice: dict[str, Any]) -> None:
        """Take what only the last chunks have, or an error."""
        says_error = event.get("error") or event.get("object") == "error"
        if says_error or (not event.get("choices") and (event.get("message") or event.get("detail"))):
            raise self.error_of(event)
        if reason := choice.get("finish_reason"):
            self.finish_reason = sound_text("" + reason)
        for place in (choice, event.get("x_groq") or {}):
            self._take_usage(place.get("usage"))
        if isinstance(metrics := event.get("metrics"), dict):
            self.metrics = metrics

    def _take_usage(self, usage: Any) -> None:
        """Keep the last usage that says something; some servers send nulls or zeros after it."""
        if isinstance(usage, dict) and any(usage.values()):
            self.usage |= {name: value for name, value in usage.items() if value is not None}

    def _take_delta(self, delta: dict[str, Any]) -> bool:
        """Keep the parts of a delta; return whether it carries a token."""
        text = delta.get("content")
        if text.__class__ is str and text and len(delta) == 1:
            self._text.append(text)
            return True
        token = False
        for name, value in delta.items():
            if not value or name == "role":
                continue
            if name == "content" and type(value) is str:
                self._text.append(value)
            elif name == "tool_calls":
                self._calls.add(value)
            elif name == "function_call":
                self._calls.add([{"index": 0, "function": value}])
            elif name in _SPOKEN or name == next((each for each in _THOUGHTS if delta.get(each)), ""):
                for thought, text in _texts(value, thought=name in _THOUGHTS):
                    (self._thoughts if thought else self._text).append(text)
            else:
                continue
            token = True
        return token

    def take_whole(self, body: str, now: float) -> None:
        """Take an answer that came as one JSON object although a stream was asked for: it has no first token.

        A stream of events that is called JSON is read too.
        """
        self.source = "wall"
        try:
            if body.lstrip("\ufeff\r\n\t ").startswith(("data:", "event:", ":")):
                self.feed(body.encode() + b"\n\n", now)
            else:
                event = loads(body.encode())
                if choices := event.get("choices"):
                    choices[0]["message"]
                self.take(event, now)
                self.done = True
        except UNREADABLE:
            raise self.malformed("sends an answer that cannot be read", body[:2000].encode()) from None
        self.first = None
        self.gaps.clear()

    def finish(self, *, asked_to_think: bool = False) -> Completion:
        """Return the answer, once the stream is over; `ModelCallError` when it was not a whole answer.

        With `asked_to_think`, a text cut off by its length before any closing tag, with nothing in a field for
        thinking, is taken as unfinished thinking (templates open the tag in the prompt).
        """
        self._check()
        text, thinking = split_thinking(sound_text("".join(self._text)))
        thinking = sound_text("".join(self._thoughts)) + thinking
        calls = self._calls.whole()
        if asked_to_think and not thinking and not calls and self.finish_reason == "length":
            text, thinking = "", text
        return Completion(text, calls, self.finish_reason, thinking)

    def _check(self) -> None:
        """Raise when the answer is not whole; `[DONE]` is no end of an answer that does not say why it ends."""
        if self.finish_reason == "abort":
            raise self._broken("broke the answer off")
        if self.finish_reason == "error":
            raise refusal(self.where, 500, "finish_reason is error")
        if self.finish_reason:
            return
        if not self.opened:
            raise self.malformed("did not send a stream of events", b"".join(self._held))
        if self.done and self.first is None:
            raise self.malformed("sent an answer without choices", b"")
        raise self._broken("ended the answer in the middle")

    def _broken(self, did: str) -> ModelCallError:
        end = "[DONE] but no finish_reason" if self.done else "no finish_reason, no [DONE]"
        evidence = "" if self.finish_reason else f"{self.chunks} chunks had come; {end}."
        return ModelCallError(f"{self.where} {did}.", fault=CallFault.BROKEN_STREAM, evidence=evidence)

    def malformed(self, did: str, seen: bytes) -> ModelCallError:
        """Return the error for what cannot be read: what the server did, and the bytes that show it."""
        evidence = excerpt(seen[:2000].decode(errors="replace"))
        return ModelCallError(f"{self.where} {did}.", fault=CallFault.MALFORMED, status=self.status, evidence=evidence)

    def error_of(self, event: dict[str, Any]) -> ModelCallError:
        """Return the error that an error event says."""
        error = event.get("error")
        error = error if isinstance(error, dict | str) and error else event
        fields = error if isinstance(error, dict) else {"message": error}
        said = next((fields[name] for name in ("message", "detail", "error") if fields.get(name)), None)
        text = said if isinstance(said, str) else json.dumps(error)
        return error_in_stream(self.where, fields.get("code"), sound_text(text[:4000]))


def _first_choice(choices: list[Any]) -> dict[str, Any]:
    """Return the choice that was asked for, number 0; empty when it is not among them."""
    return next((each for each in choices if each and str(each.get("index") or 0) == "0"), {})


def _texts(value: Any, *, thought: bool) -> Iterator[tuple[bool, str]]:
    """Yield the texts in a content that may be a list of parts, each with whether it is thinking."""
    if isinstance(value, str):
        yield thought, value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, thought=thought)
    elif isinstance(value, dict):
        name = next((each for each in _PART_TEXTS if value.get(each)), "")
        yield from _texts(
            value.get(name), thought=thought or name in _THOUGHTS or "reasoning" in str(value.get("type"))
        )
    elif value is not None:
        raise TypeError("text that is no text")


def token_counts(usage: dict[str, Any]) -> dict[str, int]:
    """Return the counts of a usage object by our names; what is not told or no number is left out."""
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    told = {**usage, **({"cached": details.get("cached_tokens")} if isinstance(details, dict) else {})}
    told = {ours: next((told[each] for each in names if told.get(each) is not None), "") for ours, names in _COUNTS}
    return {name: int(float(count)) for name, count in told.items() if re.fullmatch(r"\d{1,15}(\.0)?", str(count))}


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
    http: StreamHttp,
    endpoint: Endpoint,
    body: dict[str, Any],
    parser: StreamParser,
    timeouts: Timeouts,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Send `body` (as `chat_body` makes it), with further `headers`, and take the whole answer into `parser`.

    Raises
    ------
    ModelCallError
        With the class of what went wrong; what had arrived by then is in `parser`.
    """
    url = endpoint.base_url.rstrip("/") + "/chat/completions"
    data = orjson.dumps(body)
    async with StreamTimeouts(timeouts, parser.where) as watch:
        parser.started = time.perf_counter()
        async with http.post(url, data, key=endpoint.key, headers=headers) as answer:
            parser.status = answer.status
            if answer.status != 200:
                raise refusal(parser.where, answer.status, await answer.text(), headers=answer.headers)
            if answer.content_type == "application/json":
                parser.take_whole(await answer.text(LONGEST_LINE), time.perf_counter())
            elif answer.content_type != "text/html":
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
    feed, touch, clock = parser.feed, watch.touch, time.perf_counter

    def take(data: bytes) -> bool:
        now = clock()
        feed(data, now)
        if parser.first is not None:
            touch()
        if parser.done:
            parser.ended = now
        return parser.done

    await answer.read_into(take)
    if not parser.done:
        parser.end(clock())
