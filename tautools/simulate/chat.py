"""The chat endpoint: check the request as vLLM does, ask the brain, send the answer when its tokens are due."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from tautools.simulate.brain import Brain
from tautools.simulate.metrics import Metrics
from tautools.simulate.pacing import ServerEndingError, Waiting
from tautools.simulate.requests import ApiError, read_request
from tautools.simulate.timing import due_times
from tautools.simulate.tokens import PrefixCache, prompt_parts
from tautools.simulate.wire import DONE, Answer, deltas_of, sse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.params.models import SimulateParams
    from tautools.simulate.requests import ChatRequest

__all__ = ["Chat"]

_KV_CAPACITY_PROMPTS = 8
"""Full-length prompts that the imagined KV cache holds."""
_ENDING = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@dataclass(slots=True)
class _Exchange:
    """One request on its way to an answer."""

    http: web.Request
    request: ChatRequest
    answer: Answer
    arrived: float
    due: Sequence[float]
    """When each token is to be sent, from the arrival [s]."""
    sent: list[float] = field(default_factory=list)
    """When each token was sent, from the arrival [s]."""
    response: web.StreamResponse | None = None
    """The stream, once its head was sent."""


class Chat:
    """Answers `/v1/chat/completions`.

    Parameters
    ----------
    params : SimulateParams
        Skill, times, seed, longest prompt.
    names : sequence of str
        Served names; the first is the model's.
    fingerprint : str
        Marks every answer as simulated.
    """

    def __init__(self, params: SimulateParams, names: Sequence[str], fingerprint: str) -> None:
        self.params = params
        self.names = tuple(names)
        self.fingerprint = fingerprint
        capacity = _KV_CAPACITY_PROMPTS * params.max_model_len
        self.metrics = Metrics(self.names[0], capacity)
        self.waiting = Waiting()
        self._cache = PrefixCache(capacity)
        self.brain = Brain(params.skill, params.seed)

    async def handle(self, http: web.Request) -> web.StreamResponse:
        """Answer one request."""
        arrived = asyncio.get_running_loop().time()
        try:
            request = read_request(await http.read())
            self._check_model(request)
            exchange = await self._prepare(http, request, arrived)
        except ApiError as error:
            return web.json_response(error.body, status=error.status)
        reason = "abort"
        try:
            response = await (self._stream(exchange) if request.stream else self._whole(exchange))
            reason = "length" if exchange.answer.finish_reason == "length" else "stop"
        except ServerEndingError:
            response = await self._broken_off(exchange)
            reason = "error"
        finally:
            self.metrics.ended(exchange.answer.prompt_tokens, exchange.sent, reason)
        return response

    def _check_model(self, request: ChatRequest) -> None:
        if request.model not in self.names:
            raise ApiError(
                404,
                f"The model `{request.model}` does not exist. Valid aliases: {', '.join(self.names)}",
                kind="NotFoundError",
                param="model",
            )

    async def _prepare(self, http: web.Request, request: ChatRequest, arrived: float) -> _Exchange:
        parts = prompt_parts(request.messages, request.tools)
        prompt_tokens, cached_tokens = self._cache.admit(parts)
        room = self._room(request, prompt_tokens)
        speech = await self.brain.answer(request)
        mark = hashlib.blake2b(b"".join(parts), digest_size=12).hexdigest()
        deltas, cut = deltas_of(speech, room, mark)
        called = bool(speech.tool) and not cut
        # vLLM says "stop" after a tool that was named in the request, "tool_calls" after one that the model chose.
        reason = "length" if cut else "tool_calls" if called and not request.forced_tool else "stop"
        answer = Answer(self.names[0], self.fingerprint, deltas, reason, prompt_tokens, cached_tokens)
        self.metrics.admitted(prompt_tokens, cached_tokens)
        due = due_times(
            self.params,
            tokens=len(deltas),
            uncached_tokens=prompt_tokens - cached_tokens,
            seed=f"{self.params.seed}/{mark}",
        )
        return _Exchange(http, request, answer, arrived, due)

    def _room(self, request: ChatRequest, prompt_tokens: int) -> int:
        """Return the most tokens that the answer may have; refuse what does not fit, in vLLM's words."""
        longest, asked = self.params.max_model_len, request.max_tokens
        if asked is not None and asked > longest:
            raise ApiError(400, f"max_tokens={asked} cannot be greater than max_model_len={longest}. Please request "
                           "fewer output tokens.", param="max_tokens")  # fmt: skip
        wanted = asked or 1
        if prompt_tokens + wanted > longest:
            raise ApiError(
                400,
                f"This model's maximum context length is {longest} tokens. However, you requested {wanted} output "
                f"tokens and your prompt contains at least {prompt_tokens} input tokens, for a total of at least "
                f"{prompt_tokens + wanted} tokens. Please reduce the length of the input prompt or the number of "
                "requested output tokens.",
                param="input_tokens",
            )
        return asked or longest - prompt_tokens

    async def _whole(self, exchange: _Exchange) -> web.Response:
        await self.waiting.until(exchange.arrived + exchange.due[-1])
        exchange.sent += exchange.due[: len(exchange.answer.deltas)]
        return web.json_response(exchange.answer.completion())

    async def _stream(self, exchange: _Exchange) -> web.StreamResponse:
        clock = asyncio.get_running_loop().time
        answer, arrived = exchange.answer, exchange.arrived
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        exchange.response = response
        await response.prepare(exchange.http)
        ready = answer.first_chunk()
        at = 0
        while at < len(answer.deltas):
            await self.waiting.until(arrived + exchange.due[at])
            passed = clock() - arrived
            # Tokens that are due by now go out in one write, so a busy machine does not stretch the answer.
            while at < len(answer.deltas) and exchange.due[at] <= passed:
                ready += answer.token_chunk(at)
                exchange.sent.append(passed)
                at += 1
            if at < len(answer.deltas):
                await response.write(ready)
                ready = b""
        await response.write(ready + answer.last_chunks(usage=exchange.request.include_usage))
        await response.write_eof()
        return response

    async def _broken_off(self, exchange: _Exchange) -> web.StreamResponse:
        """End an answer as vLLM does when it is stopped: an error event in mid-stream, or a 500."""
        error = {"error": {"message": _ENDING, "type": "InternalServerError", "param": None, "code": 500}}
        response = exchange.response
        if response is None:
            return web.json_response(error, status=500)
        await response.write(sse(error) + DONE)
        await response.write_eof()
        return response
