"""The simulated model server: routes, key, the chat endpoint, start and end."""

import asyncio
import hashlib
import hmac
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from aiohttp import web

import tautools
from tautools.errors import ServerError
from tautools.params.models import SimulateParams
from tautools.simulate.metrics import SimulatedMetrics
from tautools.simulate.reply import DONE, ChatAnswer, deltas_of, sse_event
from tautools.simulate.requests import ApiError, ChatRequest, read_request
from tautools.simulate.responder import Responder
from tautools.simulate.tokens import PendingWaits, PrefixCache, due_times, prompt_parts

MARK = "SIMULATED"
_LARGEST_BODY = 256 * 1024 * 1024
_HEADER = "X-Tautools-Simulated"
_KV_CAPACITY_PROMPTS = 8
"""Full-length prompts that fit into the imagined KV cache."""
_ENGINE_ENDED = ApiError(
    500, "EngineCore encountered an issue. See stack trace (above) for the root cause.", kind="InternalServerError"
)
"""What vLLM says to requests that are being answered when it is stopped."""


class SimulatedServer:
    """An OpenAI-compatible server without a model; it answers inside `async with`.

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
        capacity = _KV_CAPACITY_PROMPTS * self.params.max_model_len
        self.metrics = SimulatedMetrics(model, capacity)
        self.responder = Responder(self.params.skill, self.params.seed)
        self._cache = PrefixCache(capacity)
        self._waiting = PendingWaits()
        self._key = key
        self._runner: web.AppRunner

    @property
    def base_url(self) -> str:
        """The address that clients use, ending in `/v1`."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 - shown, not bound here
        return f"http://[{host}]:{self.port}/v1" if ":" in host else f"http://{host}:{self.port}/v1"

    async def __aenter__(self) -> Self:
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

    async def __aexit__(self, *_: object) -> None:
        """Break off the running answers, as vLLM does, and release the port."""
        self._waiting.end()
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=_LARGEST_BODY, middlewares=[self._guard])
        application.on_response_prepare.append(self._mark)
        told = ("/health", "/ping", "/version", "/metrics", "/v1/models")
        application.add_routes([web.get(path, self._tell) for path in told])
        application.add_routes([web.post("/v1/chat/completions", self._chat)])
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

    async def _tell(self, request: web.Request) -> web.Response:
        match request.path:
            case "/version":
                return web.json_response({"version": self.version})
            case "/metrics":
                return web.Response(text=self.metrics.text(self.version), content_type="text/plain")
            case "/v1/models":
                return web.json_response({"object": "list", "data": [self._card(name) for name in self.names]})
        return web.Response()

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

    async def _chat(self, http: web.Request) -> web.StreamResponse:
        arrived = asyncio.get_running_loop().time()
        try:
            request = read_request(await http.read())
            answer = await self._answer(request)
        except ApiError as error:
            return error.response()
        self.metrics.admitted(answer.prompt_tokens, answer.cached_tokens)
        reason = "abort"
        try:
            deliver = self._stream if request.stream else self._send
            response, whole = await deliver(http, answer, arrived)
            reason = ("length" if answer.finish_reason == "length" else "stop") if whole else "error"
        finally:
            self.metrics.ended(answer.prompt_tokens, answer.sent, reason)
        return response

    async def _answer(self, request: ChatRequest) -> ChatAnswer:
        if request.model not in self.names:
            message = f"The model `{request.model}` does not exist. Valid aliases: {', '.join(self.names)}"
            raise ApiError(404, message, kind="NotFoundError", param="model")
        parts = prompt_parts(request.messages, request.tools)
        prompt_tokens, cached_tokens = self._cache.admit(parts)
        room = self._room(request, prompt_tokens)
        reply = await self.responder.answer(request)
        mark = hashlib.blake2b(b"".join(parts), digest_size=12).hexdigest()
        deltas, cut = deltas_of(reply, room, mark)
        uncached, seed = prompt_tokens - cached_tokens, f"{self.params.seed}/{mark}/{request.seed}"
        return ChatAnswer(
            model=self.names[0],
            fingerprint=self.version,
            deltas=deltas,
            due=due_times(self.params, tokens=len(deltas), uncached_tokens=uncached, seed=seed),
            # vLLM says "stop" after a tool that was named in the request, "tool_calls" after one that the model chose.
            finish_reason="length" if cut else "tool_calls" if reply.tool and not request.forced_tool else "stop",
            prompt_tokens=prompt_tokens,
            cached_tokens=cached_tokens,
            include_usage=request.include_usage,
        )

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

    async def _send(self, _http: web.Request, answer: ChatAnswer, arrived: float) -> tuple[web.StreamResponse, bool]:
        """Send an answer in one piece when it is due; also return whether it was sent before the server ended."""
        if not await self._waiting.until(arrived + answer.due[-1]):
            return _ENGINE_ENDED.response(), False
        answer.sent += answer.due[: len(answer.deltas)]
        return web.json_response(answer.completion()), True

    async def _stream(self, http: web.Request, answer: ChatAnswer, arrived: float) -> tuple[web.StreamResponse, bool]:
        """Send each token when it is due; a server that ends breaks the stream off with an error event, as vLLM."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(http)
        ready = answer.chunk({"role": "assistant", "content": ""})
        while whole := await self._waiting.until(arrived + answer.due[len(answer.sent)]):
            passed = asyncio.get_running_loop().time() - arrived
            # Tokens that are due by now go out in one write, so a busy machine does not stretch the answer.
            while len(answer.sent) < len(answer.deltas) and answer.due[len(answer.sent)] <= passed:
                ready += answer.chunk(answer.deltas[len(answer.sent)])
                answer.sent.append(passed)
            if len(answer.sent) == len(answer.deltas):
                break
            await response.write(ready)
            ready = b""
        await response.write(ready + answer.last_chunks() if whole else sse_event(_ENGINE_ENDED.body) + DONE)
        await response.write_eof()
        return response, whole


async def serve_until_signal(server: SimulatedServer, on_start: Callable[[SimulatedServer], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end cleanly; `on_start` is called once the server answers.

    Raises
    ------
    ServerError
        When the address cannot be bound.
    """
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with server:
        on_start(server)
        warming = asyncio.create_task(server.responder.library.warm())
        await ended.wait()
        warming.cancel()
