"""The shapes in which an answer goes over the wire: pieces, chunks of a stream, one whole completion."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from tautools.simulate.tokens import pieces

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tautools.simulate.speech import Speech

__all__ = ["DONE", "Answer", "deltas_of", "sse"]

DONE = b"data: [DONE]\n\n"


def sse(value: Mapping[str, Any]) -> bytes:
    """Return one event of a stream."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def deltas_of(speech: Speech, most: int, mark: str) -> tuple[list[dict[str, Any]], bool]:
    """Cut an answer into one delta per token; return them and whether something was cut off.

    Parameters
    ----------
    speech : Speech
        The answer.
    most : int
        Most tokens that it may have.
    mark : str
        Names the request, and with it the answer's tool call: the same conversation has the same ids each time.
    """
    deltas = list(_deltas(speech, mark))
    if len(deltas) <= most:
        return deltas, False
    if speech.tool:
        # A call that was cut off reaches the caller as the raw text that the parser could not read, as from vLLM.
        raw = f'<tool_call>\n{{"name": {json.dumps(speech.tool)}, "arguments": {speech.arguments}}}\n</tool_call>'
        deltas = [{"content": piece} for piece in pieces(raw)]
    return deltas[:most], True


def _deltas(speech: Speech, mark: str) -> Iterator[dict[str, Any]]:
    for piece in pieces(speech.reasoning):
        yield {"reasoning": piece}
    for piece in pieces(speech.text):
        yield {"content": piece}
    if not speech.tool:
        return
    first = {"id": f"call_{mark}", "type": "function", "index": 0}
    yield {"tool_calls": [{**first, "function": {"name": speech.tool, "arguments": ""}}]}
    for piece in pieces(speech.arguments):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, ready to be sent."""

    model: str
    fingerprint: str
    deltas: Sequence[Mapping[str, Any]]
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    id: str = field(default_factory=lambda: f"chatcmpl-simulated-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def usage(self) -> dict[str, Any]:
        """Tokens of the request and the answer."""
        made = len(self.deltas)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": made,
            "total_tokens": self.prompt_tokens + made,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }

    def completion(self) -> dict[str, Any]:
        """Return the answer as one object."""
        message: dict[str, Any] = {"role": "assistant", "content": _joined(self.deltas, "content") or None}
        message["reasoning"] = _joined(self.deltas, "reasoning") or None
        calls = [delta["tool_calls"][0] for delta in self.deltas if "tool_calls" in delta]
        if calls:
            arguments = "".join(call["function"]["arguments"] for call in calls)
            function = {"name": calls[0]["function"]["name"], "arguments": arguments}
            message["tool_calls"] = [{"id": calls[0]["id"], "type": "function", "function": function}]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish_reason}
        return self._envelope("chat.completion", [choice], usage=self.usage)

    def first_chunk(self) -> bytes:
        """Return the event that opens the stream; it comes with the first token."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def token_chunk(self, index: int) -> bytes:
        """Return the event of one token."""
        return self._chunk(self.deltas[index], None)

    def last_chunks(self, *, usage: bool) -> bytes:
        """Return the events that close the stream."""
        end = self._chunk({}, self.finish_reason)
        if usage:
            end += sse(self._envelope("chat.completion.chunk", [], usage=self.usage))
        return end + DONE

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return sse(self._envelope("chat.completion.chunk", [choice]))

    def _envelope(self, kind: str, choices: list[dict[str, Any]], **further: Any) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
            **further,
        }


def _joined(deltas: Sequence[Mapping[str, Any]], part: str) -> str:
    return "".join(str(delta.get(part) or "") for delta in deltas)
