"""One answer while it arrives: its parts, and when they came."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tautools.errors import CallFault, ModelCallError
from tautools.llm.faults import excerpt, refusal
from tautools.llm.thinking import separate
from tautools.llm.tool_calls import ToolCallParts

if TYPE_CHECKING:
    from tautools.llm.types import ToolCall

__all__ = ["Incoming", "Said"]


@dataclass(frozen=True, slots=True)
class Said:
    """What an answer says."""

    text: str
    thinking: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str


class Incoming:
    """Takes chunks of an OpenAI-compatible stream; what was taken stays readable when the stream breaks.

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
        except (orjson.JSONDecodeError, AttributeError, TypeError, KeyError, IndexError):
            raise self._malformed("sends chunks that cannot be read", payload) from None

    def take(self, event: dict[str, Any], now: float) -> None:
        """Take one chunk, parsed."""
        if not self._opened:
            self._opened = True
            self.fingerprint = event.get("system_fingerprint") or ""
        choices = event.get("choices")
        if choices:
            self._choice(choices[0], now)
        if event.get("error") or event.get("object") == "error":
            raise self._error_event(event)
        if event.get("usage"):
            self.usage = event["usage"]
        if event.get("metrics"):
            self.metrics = event["metrics"]

    def _choice(self, choice: dict[str, Any], now: float) -> None:
        delta = choice.get("delta")
        if delta and self._delta(delta):
            if self.first is None:
                self.first = now
            else:
                self.gaps.append(now - self.last)
            self.last = now
        reason = choice.get("finish_reason")
        if reason:
            self.finish_reason = reason

    def _delta(self, delta: dict[str, Any]) -> bool:
        """Keep the parts of a delta; return whether it carries a token."""
        told = False
        text = delta.get("content")
        if text:
            self._text.append(text)
            told = True
        thought = delta.get("reasoning") or delta.get("reasoning_content")
        if thought:
            self._thoughts.append(thought)
            told = True
        calls = delta.get("tool_calls")
        if calls:
            self._calls.add(calls)
            told = True
        return told

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
        except (orjson.JSONDecodeError, AttributeError, TypeError, KeyError, IndexError):
            raise self._malformed("sends an answer that cannot be read", text.encode()) from None
        self.first = None

    def finish(self, *, asked_to_think: bool = False) -> Said:
        """Return what was said, once the stream is over.

        Parameters
        ----------
        asked_to_think : bool
            Whether thinking was switched on: then a text cut off by its length before any closing tag, with nothing
            in a field for thinking, is taken as unfinished thinking (templates open the tag in the prompt).

        Raises
        ------
        ModelCallError
            When the stream was not a whole answer.
        """
        self._check()
        try:
            text, thinking = separate("".join(self._text))
            thinking = "".join(self._thoughts) + thinking
            calls = self._calls.whole()
        except TypeError:
            raise self._malformed("sends text that is no text", b"") from None
        if asked_to_think and not thinking and not calls and self.finish_reason == "length":
            text, thinking = "", text
        return Said(text, thinking, calls, self.finish_reason)

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
        """Return the error that an event tells: by its code when that is an HTTP status, else the server's fault."""
        error = event.get("error") or event
        code = error.get("code") if isinstance(error, dict) else None
        text = orjson.dumps({"error": error}).decode()
        status = int(str(code)) if str(code).isdigit() else 500
        if code == "context_length_exceeded":
            status = 400
        return refusal(self.where, status, text)
