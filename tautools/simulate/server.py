"""The simulated model server: routes, key, start and end."""

from __future__ import annotations

import hmac
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web

import tautools
from tautools.errors import ServerError
from tautools.params.models import SimulateParams
from tautools.simulate.chat import Chat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType
    from typing import Self

__all__ = ["MARK", "SimulatedServer"]

MARK = "SIMULATED"
_LARGEST_BODY = 256 * 1024 * 1024
_HEADER = "X-Tautools-Simulated"


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
        self.chat = Chat(self.params, self.names, self.version)
        self._key = key
        self._runner: web.AppRunner | None = None

    @property
    def base_url(self) -> str:
        """The address that clients use, ending in `/v1`."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::", ""} else self.host  # noqa: S104 - told, not bound here
        return f"http://[{host}]:{self.port}/v1" if ":" in host else f"http://{host}:{self.port}/v1"

    async def start(self) -> Self:
        """Bind and answer.

        Raises
        ------
        ServerError
            When the address cannot be bound; a port that another server holds is never shared.
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
                next_step="Choose another --port, or stop what holds this one.",
            ) from error
        self._runner = runner
        self.port = runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        """Break off what is being answered, as vLLM does, and release the port."""
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
        application.router.add_get("/version", self._tell_version)
        application.router.add_get("/metrics", self._tell_metrics)
        application.router.add_get("/v1/models", self._tell_models)
        application.router.add_post("/v1/chat/completions", self.chat.handle)
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Ask for the key under `/v1`; answer what is not there as vLLM does."""
        if request.path.startswith("/v1") and not self._may_enter(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        try:
            return await handler(request)
        except web.HTTPException as error:
            return web.json_response({"detail": error.reason}, status=error.status)

    def _may_enter(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "")
        return not self._key or hmac.compare_digest(given.encode(), f"Bearer {self._key}".encode())

    async def _mark(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers[_HEADER] = self.version

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _tell_version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": self.version})

    async def _tell_metrics(self, _request: web.Request) -> web.Response:
        text = self.chat.metrics.text(f"{self.version}: no model stands behind these figures.")
        return web.Response(text=text, content_type="text/plain")

    async def _tell_models(self, _request: web.Request) -> web.Response:
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
