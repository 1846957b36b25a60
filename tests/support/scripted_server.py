"""A real OpenAI-compatible server that says what a test tells it to, well or badly.

In an async test::

    async with ScriptedServer(["Hello.", Say(calls=[("get_order", {"order_id": "#W1"})])]) as server:
        ...  # server.base_url ends in /v1; answers are given in order, the last one again and again
    server.requests[0].body["messages"]; server.requests[0].headers["Authorization"]

`answers` is a list, one answer, or a function `(request: Request) -> Say | str` (it may be async), so that an answer
can depend on the messages. A `str` is `Say(text=...)`.

Around blocking code (a run, a subprocess), in a thread of its own::

    with serve_in_thread(lambda request: "ok") as server:
        ...

As a process of its own, for benchmarks; it prints `READY <port>`::

    python tests/support/scripted_server.py --port 8123 --chunks 100 --gap-ms 1

What can go wrong on purpose, all in `Say`: a `status` other than 200 with `headers` (Retry-After) and `body`; `first_s`
(slow first token), `gap_s` (slow tokens), `hang_after` (silent for ever after so many chunks), `cut_after` (the
connection is cut), `error_after` with `error` (an error event in mid-stream, then [DONE], as vLLM does when it is
stopped), `end_after` (the stream ends early but in good order), `raw` (these bytes and nothing else), `usage=None`
(no usage), `whole=True` (one JSON object although a stream was asked for).

`await server.arrived(3)` waits for the third request; `server.key` makes it demand a key; `server.kill()` cuts every
connection and closes the port; `server.most_at_once` is the largest number of requests that were in work at one time,
`server.connections` the connections they came over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import inspect
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

__all__ = ["Request", "Say", "ScriptedServer", "serve_in_thread"]

AUTO: dict[str, Any] = {"auto": True}
"""Stands for usage numbers made from the answer itself."""


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire."""

    body: dict[str, Any]
    headers: Mapping[str, str]
    at: float
    """Monotonic time of arrival [s]."""


@dataclass(frozen=True)
class Say:
    """One scripted answer."""

    text: str = ""
    calls: Sequence[tuple[str, Mapping[str, Any] | str]] = ()
    """Tool calls: name and arguments, the latter as a mapping or as the raw text."""
    thinking: str = ""
    thinking_field: str = "reasoning"
    chunk_chars: int = 4
    first_s: float = 0.0
    gap_s: float = 0.0
    at_once: bool = False
    """Whether all chunks leave with one network write."""
    finish_reason: str | None = None
    """`stop` or `tool_calls` by what the answer is, when not given."""
    usage: Mapping[str, Any] | None = field(default_factory=lambda: AUTO)
    metrics: Mapping[str, Any] | None = None
    fingerprint: str = "scripted"
    deltas: Sequence[Mapping[str, Any]] | None = None
    """Exact deltas to stream, in place of those made from text, thinking and calls."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = ""
    hang_after: int | None = None
    cut_after: int | None = None
    error_after: int | None = None
    error: Any = field(default_factory=lambda: {"message": "EngineCore encountered an issue.", "code": 500})
    end_after: int | None = None
    raw: bytes | Sequence[bytes] | None = None
    whole: bool = False

    @property
    def finish(self) -> str:
        """The finish reason that is sent."""
        return self.finish_reason or ("tool_calls" if self.calls else "stop")

    def chunks(self) -> list[Mapping[str, Any]]:
        """Return the deltas of the stream, after the one with the role."""
        if self.deltas is not None:
            return list(self.deltas)
        made: list[Mapping[str, Any]] = [{self.thinking_field: piece} for piece in self._cut(self.thinking)]
        made += [{"content": piece} for piece in self._cut(self.text)]
        for index, (name, arguments) in enumerate(self.calls):
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            function = {"name": name, "arguments": ""}
            made.append(
                {"tool_calls": [{"index": index, "id": f"call_{index}", "type": "function", "function": function}]}
            )
            made += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in self._cut(text)]
        return made

    def _cut(self, text: str) -> Iterator[str]:
        width = self.chunk_chars or max(1, len(text))
        return (text[start : start + width] for start in range(0, len(text), width))

    def usage_told(self) -> dict[str, Any] | None:
        """Return the usage object, if one is sent."""
        if self.usage is None:
            return None
        if "auto" not in self.usage:
            return dict(self.usage)
        made = len(self.chunks())
        details = {"cached_tokens": 7}
        return {
            "prompt_tokens": 11,
            "completion_tokens": made,
            "total_tokens": 11 + made,
            "prompt_tokens_details": details,
        }

    def message(self) -> dict[str, Any]:
        """Return the answer as one message, for `whole`."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None}
        if self.thinking:
            message[self.thinking_field] = self.thinking
        if self.calls:
            message["tool_calls"] = [
                {
                    "id": f"call_{index}",
                    "type": "function",
                    "function": {
                        "name": name,
                        "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
                    },
                }
                for index, (name, arguments) in enumerate(self.calls)
            ]
        return message


Scripted = Say | str
Answers = Scripted | Sequence[Scripted] | Callable[[Request], Scripted | Awaitable[Scripted]]


class ScriptedServer:
    """The server; use it as an async context manager."""

    def __init__(
        self,
        answers: Answers = "ok",
        *,
        model: str = "scripted",
        key: str = "",
        port: int = 0,
        max_model_len: int = 32768,
        models_status: int = 200,
    ) -> None:
        self.answers = answers
        self.model = model
        self.key = key
        self.port = port
        self.max_model_len = max_model_len
        self.models_status = models_status
        self.requests: list[Request] = []
        self.connections: set[object] = set()
        self._arrival = asyncio.Event()
        self.in_work = 0
        self.most_at_once = 0
        self._runner: web.AppRunner | None = None
        self._given = 0

    @property
    def base_url(self) -> str:
        """Address ending in `/v1`."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/health", self._health)
        app.router.add_get("/version", self._version)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def kill(self) -> None:
        """Cut every connection and close the port."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        for connection in list(runner.server.connections if runner.server else []):
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()

    async def arrived(self, number: int = 1) -> None:
        """Wait until `number` requests have arrived."""
        while len(self.requests) < number:
            self._arrival.clear()
            await self._arrival.wait()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": "0.0.scripted"})

    async def _models(self, request: web.Request) -> web.Response:
        if not self._admits(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        if self.models_status != 200:
            return web.json_response({"detail": "Not Found"}, status=self.models_status)
        entry = {"id": self.model, "object": "model", "owned_by": "scripted", "max_model_len": self.max_model_len}
        return web.json_response({"object": "list", "data": [entry]})

    def _admits(self, request: web.Request) -> bool:
        return not self.key or request.headers.get("Authorization") == f"Bearer {self.key}"

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        if not self._admits(request):
            return web.json_response({"error": "Unauthorized"}, status=401)
        seen = Request(await request.json(), dict(request.headers), time.monotonic())
        self.requests.append(seen)
        self._arrival.set()
        self.connections.add(request.transport and request.transport.get_extra_info("peername"))
        self.in_work += 1
        self.most_at_once = max(self.most_at_once, self.in_work)
        try:
            return await self._respond(request, seen, await self._next(seen))
        finally:
            self.in_work -= 1

    async def _next(self, seen: Request) -> Say:
        answers = self.answers
        if callable(answers):
            given = answers(seen)
            said = await given if inspect.isawaitable(given) else given
        elif isinstance(answers, Say | str):
            said = answers
        else:
            said = answers[min(self._given, len(answers) - 1)]
            self._given += 1
        return Say(said) if isinstance(said, str) else said

    async def _respond(self, request: web.Request, seen: Request, say: Say) -> web.StreamResponse:
        if say.status != 200 or say.body is not None:
            text = say.body if isinstance(say.body, str) else json.dumps(say.body)
            kind = say.content_type or "application/json"
            return web.Response(status=say.status, text=text, headers=dict(say.headers), content_type=kind)
        if say.whole or not seen.body.get("stream"):
            await asyncio.sleep(say.first_s)
            return web.json_response(_whole(say, self.model), headers=dict(say.headers))
        response = web.StreamResponse(headers={"Content-Type": say.content_type or "text/event-stream", **say.headers})
        await response.prepare(request)
        cork = getattr(socket, "TCP_CORK", None)
        wire = request.transport.get_extra_info("socket") if request.transport and say.at_once and cork else None
        if wire:
            wire.setsockopt(socket.IPPROTO_TCP, cork, 1)
        with contextlib.suppress(ConnectionError):
            async for piece in self._stream(request, seen, say):
                await response.write(piece)
            if wire:
                wire.setsockopt(socket.IPPROTO_TCP, cork, 0)
        return response

    async def _stream(self, request: web.Request, seen: Request, say: Say) -> AsyncIterator[bytes]:
        if say.raw is not None:
            for piece in [say.raw] if isinstance(say.raw, bytes) else say.raw:
                yield piece
                await asyncio.sleep(say.gap_s)
            return
        if say.first_s:
            await asyncio.sleep(say.first_s)
        deltas: list[Mapping[str, Any]] = [{"role": "assistant", "content": ""}, *say.chunks()]
        for sent, delta in enumerate(deltas):
            if await self._ends_here(request, say, sent - 1):
                if say.error_after is not None and sent - 1 >= say.error_after:
                    yield _event({"error": say.error}) + b"data: [DONE]\n\n"
                return
            if say.gap_s and sent > 1:
                await asyncio.sleep(say.gap_s)
            yield _event(_chunk(say, self.model, [{"index": 0, "delta": delta, "finish_reason": None}]))
        if await self._ends_here(request, say, len(deltas) - 1):
            return
        yield _event(_chunk(say, self.model, [{"index": 0, "delta": {}, "finish_reason": say.finish}]))
        usage = say.usage_told()
        if usage is not None and (seen.body.get("stream_options") or {}).get("include_usage"):
            further = {"metrics": say.metrics} if say.metrics else {}
            yield _event({**_chunk(say, self.model, []), "usage": usage, **further})
        yield b"data: [DONE]\n\n"

    async def _ends_here(self, request: web.Request, say: Say, sent: int) -> bool:
        if say.hang_after is not None and sent >= say.hang_after:
            await asyncio.sleep(3600)
        if say.cut_after is not None and sent >= say.cut_after:
            await asyncio.sleep(0.02)
            if request.transport is not None:
                request.transport.abort()
            return True
        if say.error_after is not None and sent >= say.error_after:
            return True
        return say.end_after is not None and sent >= say.end_after


@contextlib.contextmanager
def serve_in_thread(answers: Answers = "ok", **options: Any) -> Iterator[ScriptedServer]:
    """Run a scripted server in a thread with a loop of its own, for tests of blocking code."""
    server = ScriptedServer(answers, **options)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.kill(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def _event(value: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _chunk(say: Say, model: str, choices: list[Any]) -> dict[str, Any]:
    kind = "chat.completion.chunk"
    head = {"id": "chatcmpl-scripted", "object": kind, "created": 1, "model": model}
    return {**head, "system_fingerprint": say.fingerprint, "choices": choices}


def _whole(say: Say, model: str) -> dict[str, Any]:
    choice = {"index": 0, "message": say.message(), "finish_reason": say.finish}
    usage = say.usage_told()
    further = {"usage": usage} if usage is not None else {}
    return {**_chunk(say, model, [choice]), "object": "chat.completion", **further}


async def _serve_for_ever(options: argparse.Namespace) -> None:
    def answer(request: Request) -> Say:
        chunks = request.body.get("max_tokens", options.chunks)
        # Not one word again and again: litellm takes a hundred equal chunks for a broken model.
        return Say(
            "".join(f"{number % 10_000:04d}" for number in range(chunks)),
            gap_s=options.gap_ms / 1000,
            at_once=not options.gap_ms,
        )

    async with ScriptedServer(answer, port=options.port) as server:
        server.requests = _Forgetful()
        print("READY", server.port, flush=True)
        await asyncio.Event().wait()


class _Forgetful(list[Request]):
    """Keeps nothing: a benchmark's requests would fill the memory."""

    def append(self, _: Request) -> None:
        """Forget the request."""


def _main() -> None:
    parser = argparse.ArgumentParser(description="Answer every chat request with the same streamed text.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--chunks", type=int, default=100, help="chunks per answer, unless max_tokens says it")
    parser.add_argument("--gap-ms", type=float, default=0.0, help="milliseconds between chunks")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_for_ever(parser.parse_args()))


if __name__ == "__main__":
    _main()
