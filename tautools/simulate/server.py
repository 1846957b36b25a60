"""The simulated model server: routes, key, the chat endpoint, start and end."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

import tautools
from tautools.errors import ServerError
from tautools.params.models import SimulateParams
from tautools.simulate.metrics import SimulatedMetrics
from tautools.simulate.reply import DONE, EncodedReply, deltas_of, sse_event
from tautools.simulate.requests import ApiError, read_request
from tautools.simulate.responder import Responder
from tautools.simulate.tokens import PendingWaits, PrefixCache, ServerEndingError, due_times, prompt_parts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from tautools.simulate.requests import ChatRequest

MARK = "SIMULATED"
_LARGEST_BODY = 256 * 1024 * 1024
_HEADER = "X-Tautools-Simulated"
_SWITCH_S = 0.0005
"""How long a thread may keep the interpreter while tasks are loaded [s]; with Python's own 5 ms, probes crawl."""
_KV_CAPACITY_PROMPTS = 8
"""Full-length prompts that fit into the imagined KV cache."""
_ENGINE_ENDED = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@dataclass(slots=True)
class _Exchange:
    """One request that is being answered."""

    http: web.Request
    request: ChatRequest
    answer: EncodedReply
    arrived: float
    due: Sequence[float]
    """When each token is to be sent, from the arrival [s]."""
    sent: list[float] = field(default_factory=list)
    """When each token was sent, from the arrival [s]."""
    response: web.StreamResponse | None = None
    """The stream, once its head was sent."""


class ChatEndpoint:
    """Answers `/v1/chat/completions` under the served names, the first of which is the model's.

    `fingerprint` marks every answer as simulated.
    """

    def __init__(self, params: SimulateParams, names: Sequence[str], fingerprint: str) -> None:
        self.params = params
        self.names = tuple(names)
        self.fingerprint = fingerprint
        capacity = _KV_CAPACITY_PROMPTS * params.max_model_len
        self.metrics = SimulatedMetrics(self.names[0], capacity)
        self.waiting = PendingWaits()
        self._cache = PrefixCache(capacity)
        self.responder = Responder(params.skill, params.seed)

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
            if request.stream:
                response = await self._stream(exchange)
            else:
                await self.waiting.until(arrived + exchange.due[-1])
                exchange.sent += exchange.due[: len(exchange.answer.deltas)]
                response = web.json_response(exchange.answer.completion())
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
        reply = await self.responder.answer(request)
        mark = hashlib.blake2b(b"".join(parts), digest_size=12).hexdigest()
        deltas, cut = deltas_of(reply, room, mark)
        # vLLM says "stop" after a tool that was named in the request, "tool_calls" after one that the model chose.
        reason = "length" if cut else "tool_calls" if reply.tool and not request.forced_tool else "stop"
        answer = EncodedReply(self.names[0], self.fingerprint, deltas, reason, prompt_tokens, cached_tokens)
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
        longest, output = self.params.max_model_len, request.max_tokens or 1
        if output > longest:
            raise ApiError(400, f"max_tokens={output} cannot be greater than max_model_len={longest}. Please request "
                           "fewer output tokens.", param="max_tokens")  # fmt: skip
        if prompt_tokens + output > longest:
            raise ApiError(
                400,
                f"This model's maximum context length is {longest} tokens. However, you requested {output} output "
                f"tokens and your prompt contains at least {prompt_tokens} input tokens, for a total of at least "
                f"{prompt_tokens + output} tokens. Please reduce the length of the input prompt or the number of "
                "requested output tokens.",
                param="input_tokens",
            )
        return request.max_tokens or longest - prompt_tokens

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
        error = {"error": {"message": _ENGINE_ENDED, "type": "InternalServerError", "param": None, "code": 500}}
        response = exchange.response
        if response is None:
            return web.json_response(error, status=500)
        await response.write(sse_event(error) + DONE)
        await response.write_eof()
        return response


class SimulatedServer:
    """An OpenAI-compatible server without a model; an async context manager, or `start` and `stop`.

    Parameters
    ----------
    params : SimulateParams
        How the model behaves.
    model : str
        Served model name.
    aliases : sequence of str
        Further names that it is served under.
    key : str
        What requests under `/v1` must carry; empty for none.
    host : str
        Address to bind.
    port : int
        0 for a free one.

    Examples
    --------
    >>> import asyncio
    >>> async def address() -> str:
    ...     async with SimulatedServer() as server:
    ...         return server.base_url
    >>> asyncio.run(address())  # doctest: +ELLIPSIS
    'http://127.0.0.1:.../v1'
    """

    def __init__(
        self,
        params: SimulateParams | None = None,
        *,
        model: str = "simulated",
        aliases: Sequence[str] = (),
        key: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.params = params or SimulateParams()
        self.names = (model, *aliases)
        self.host = host
        self.port = port
        self.version = f"{MARK}-{tautools.__version__}"
        self.chat = ChatEndpoint(self.params, self.names, self.version)
        self._key = key
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """The address that clients use, ending in `/v1`."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 - shown, not bound here
        return f"http://[{host}]:{self.port}/v1" if ":" in host else f"http://{host}:{self.port}/v1"

    async def start(self) -> Self:
        """Bind and answer.

        Raises
        ------
        ServerError
            When the address cannot be bound; a port that another server uses is never shared.
        """
        runner = web.AppRunner(self._application(), access_log=None, handler_cancellation=True, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port, reuse_port=False).start()
        except OSError as error:
            await runner.cleanup()
            raise ServerError(
                f"The simulated server cannot listen on {self.host}:{self.port}.",
                evidence=str(error),
                next_step="Choose another --port, or stop the program that uses this one.",
            ) from error
        self._runner = runner
        self.port = runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Break off the running answers, as vLLM does, and release the port."""
        if self._runner is not None:
            self.chat.waiting.end()
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_LARGEST_BODY, middlewares=[self._guard])
        application.on_response_prepare.append(self._mark)
        application.router.add_get("/health", self._alive)
        application.router.add_get("/ping", self._alive)
        application.router.add_get("/version", self._version)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/chat/completions", self.chat.handle)
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Ask for the key under `/v1`; answer unknown paths as vLLM does."""
        given = request.headers.get("Authorization", "").encode()
        refused = self._key and not hmac.compare_digest(given, f"Bearer {self._key}".encode())
        if refused and request.path.startswith("/v1"):
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.json_response({"detail": error.reason}, status=error.status)

    async def _mark(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers[_HEADER] = self.version

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _metrics(self, _request: web.Request) -> web.Response:
        text = self.chat.metrics.text(f"{self.version}: no model stands behind these figures.")
        return web.Response(text=text, content_type="text/plain")

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._card(name) for name in self.names]})

    def _card(self, name: str) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "tautools-simulate",
            "root": self.names[0],
            "parent": None,
            "max_model_len": self.params.max_model_len,
            "permission": [],
        }


def serve_until_signal(server: SimulatedServer, on_start: Callable[[SimulatedServer], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end cleanly; `on_start` is called once the server answers.

    Raises
    ------
    ServerError
        When the address cannot be bound.
    """
    asyncio.run(_serve(server, on_start))


async def _serve(server: SimulatedServer, on_start: Callable[[SimulatedServer], None]) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with server:
        on_start(server)
        warming = asyncio.create_task(_load_tasks(server))
        await ended.wait()
        warming.cancel()


async def _load_tasks(server: SimulatedServer) -> None:
    """Load the tasks while serving; the thread that loads must not keep requests waiting for the interpreter."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        await server.chat.responder.library.warm()
    finally:
        sys.setswitchinterval(usual)
