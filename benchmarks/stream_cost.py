"""Processor time per streamed call and per chunk: our client next to a bare socket, httpx, the openai SDK and litellm.

All ask the same scripted server, which runs in a process of its own. Processor time of this process is taken over many
calls with answers of 1 and of 200 chunks; the slope is the cost of a chunk, the rest the cost of a call. In a `burst`
the server answers at once and many chunks arrive with one network read: that is the harness's own cost. `spaced` chunks
come 2 ms apart, one read each, as tokens do; then most of the time goes to the kernel and the event loop.

The yardstick is a bare asyncio socket that reads the same stream line by line with asyncio's own reader and keeps the
data lines as they are, unparsed: the least that anybody does who wants to see the chunks. The budget is a ratio to it,
since absolute figures move with the machine, and the two are measured in turn. A second bare socket throws the bytes
away unread: the floor of kernel and event loop.

Run `python benchmarks/stream_cost.py [--calls N] [--rounds N] [--json]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

SERVER = Path(__file__).parents[1] / "tests" / "support" / "scripted_server.py"
MESSAGES = [{"role": "system", "content": "You help customers. " * 200}, {"role": "user", "content": "Hello."}]
MODES = {"burst": 0.0, "spaced": 2.0}
"""Milliseconds between chunks."""
LONG = 200
CONCURRENT = 8
BUDGET = 1.25
"""Our processor time per chunk may be so many times that of the bare socket."""

Ask = Callable[[int], Awaitable[object]]


@contextlib.contextmanager
def server(gap_ms: float) -> Iterator[str]:
    process = subprocess.Popen(
        [sys.executable, str(SERVER), "--gap-ms", str(gap_ms)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().split()[1]}/v1"
    finally:
        process.terminate()
        process.wait()


@contextlib.asynccontextmanager
async def tautools_client(base_url: str) -> AsyncIterator[Ask]:
    from tautools.llm import ModelClient
    from tautools.llm.types import CallTag, Endpoint
    from tautools.records import ModelConfig, Role, Sampling

    endpoint = Endpoint(base_url, "scripted", key="k")
    roles = {1: Role.AGENT, LONG: Role.USER}
    models = {
        role: ModelConfig(model="scripted", sampling=Sampling(max_tokens=chunks)) for chunks, role in roles.items()
    }
    async with ModelClient(lambda _: [endpoint], models) as client:
        yield lambda chunks: client.complete(CallTag(role=roles[chunks]), MESSAGES)


@contextlib.asynccontextmanager
async def bare_lines(base_url: str) -> AsyncIterator[Ask]:
    async def ask(chunks: int) -> list[bytes]:
        seen = []
        reader, writer = await _post(base_url, chunks)
        async for line in reader:
            if line.startswith(b"data: "):
                seen.append(line)
                if line == b"data: [DONE]\n":
                    break
        writer.close()
        return seen

    yield ask


@contextlib.asynccontextmanager
async def bare_bytes(base_url: str) -> AsyncIterator[Ask]:
    async def ask(chunks: int) -> None:
        reader, writer = await _post(base_url, chunks)
        while not (await reader.read(65536)).endswith(b"0\r\n\r\n"):
            pass
        writer.close()

    yield ask


async def _post(base_url: str, chunks: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps(_body(chunks)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return reader, writer


@contextlib.asynccontextmanager
async def httpx_client(base_url: str) -> AsyncIterator[Ask]:
    import httpx

    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:

        async def ask(chunks: int) -> str:
            text = ""
            async with client.stream("POST", f"{base_url}/chat/completions", json=_body(chunks)) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        for choice in json.loads(line[6:])["choices"]:
                            text += choice["delta"].get("content") or ""
            return text

        yield ask


@contextlib.asynccontextmanager
async def openai_sdk(base_url: str) -> AsyncIterator[Ask]:
    import openai

    async with openai.AsyncOpenAI(base_url=base_url, api_key="k") as client:

        async def ask(chunks: int) -> str:
            text = ""
            async for chunk in await client.chat.completions.create(**_body(chunks)):
                if chunk.choices:
                    text += chunk.choices[0].delta.content or ""
            return text

        yield ask


@contextlib.asynccontextmanager
async def litellm_client(base_url: str) -> AsyncIterator[Ask]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    async def ask(chunks: int) -> str:
        text = ""
        body = {**_body(chunks), "model": "hosted_vllm/scripted", "api_base": base_url, "api_key": "k"}
        async for chunk in await litellm.acompletion(**body):
            text += chunk.choices[0].delta.content or ""
        return text

    yield ask


def _body(chunks: int) -> dict[str, Any]:
    options = {"include_usage": True}
    return {
        "model": "scripted",
        "messages": MESSAGES,
        "stream": True,
        "stream_options": options,
        "max_tokens": chunks,
    }


async def cpu_per_call_s(ask: Ask, chunks: int, calls: int) -> float:
    """Return processor seconds of this process per call, `CONCURRENT` calls at a time."""
    left = iter(range(calls))

    async def work() -> None:
        for _ in left:
            await ask(chunks)

    await asyncio.gather(*(ask(chunks) for _ in range(CONCURRENT)))
    before = time.process_time()
    await asyncio.gather(*(work() for _ in range(CONCURRENT)))
    return (time.process_time() - before) / calls


async def measure(base_url: str, calls: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return, by client, microseconds per call without its chunks and per chunk, for each round; clients in turn."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CLIENTS}
    async with contextlib.AsyncExitStack() as stack:
        asks = {name: await stack.enter_async_context(client(base_url)) for name, client in CLIENTS.items()}
        for turn in range(rounds):
            for name in CLIENTS if turn < OTHERS_ROUNDS else YARDSTICKS:
                short = await cpu_per_call_s(asks[name], 1, calls)
                chunk = (await cpu_per_call_s(asks[name], LONG, max(CONCURRENT, calls // 8)) - short) / (LONG - 1)
                found[name].append(((short - chunk) * 1e6, chunk * 1e6))
    return found


BARE, OURS = "bare socket, lines", "tautools client"
CLIENTS: dict[str, Callable[[str], Any]] = {
    BARE: bare_lines,
    OURS: tautools_client,
    "bare socket, unread": bare_bytes,
    "httpx + json": httpx_client,
    "openai SDK": openai_sdk,
    "litellm": litellm_client,
}
YARDSTICKS = list(CLIENTS)[:3]
OTHERS_ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=128, help="calls per measurement")
    parser.add_argument("--rounds", type=int, default=11, help="measurements of each; the others than sockets get 3")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {name: {} for name in CLIENTS}
    ratios = {}
    for mode, gap_ms in MODES.items():
        with server(gap_ms) as base_url:
            found = asyncio.run(measure(base_url, options.calls, options.rounds))
        for name, measured in found.items():
            call_us, chunk_us = (statistics.median(column) for column in zip(*measured, strict=True))
            rows[name] |= {f"call_{mode}_us": round(call_us, 1), f"chunk_{mode}_us": round(chunk_us, 2)}
        turns = zip(found[OURS], found[BARE], strict=True)
        ratios[mode] = round(statistics.median(ours[1] / bare[1] for ours, bare in turns), 2)
    if options.json:
        print(json.dumps({"clients": rows, "ratios": ratios}, indent=1))
        return
    print("processor time [us]             burst                 spaced chunks")
    print("client                 per call  per chunk    per call  per chunk")
    for name, row in rows.items():
        burst, spaced = ("".join(f"{row[f'{what}_{mode}_us']:11.1f}" for what in ("call", "chunk")) for mode in MODES)
        print(f"{name:<19} {burst} {spaced}")
    for mode, ratio in ratios.items():
        kept = "kept" if ratio <= BUDGET else "MISSED"
        print(f"per chunk, {mode}: {ratio:.2f} x the bare socket that reads lines; budget {BUDGET:g} ({kept})")


if __name__ == "__main__":
    main()
