"""`tautools simulate` as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COMMAND = [sys.executable, "-m", "tautools", "simulate"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(*words: str, key: str = "") -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Start a server process, wait until it is healthy, and end it at last."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--port", str(port), *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "VLLM_API_KEY": key},
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            while process.returncode is None:
                try:
                    async with session.get(f"http://127.0.0.1:{port}/health"):
                        break
                except aiohttp.ClientConnectorError:
                    await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_serves_what_its_flags_say_and_ends_cleanly_on_sigterm() -> None:
    flags = ["--model", "Qwen/Qwen3-4B", "--alias", "a1", "--alias", "a2", "--max-model-len", "4096"]
    bearer = {"Authorization": "Bearer k"}
    async with serving(*flags, key="k") as (url, process):
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/models", headers=bearer) as answer:
            cards = (await answer.json())["data"]
        process.send_signal(signal.SIGTERM)
        words, errors = await process.communicate()
    assert [card["id"] for card in cards] == ["Qwen/Qwen3-4B", "a1", "a2"]
    assert {card["max_model_len"] for card in cards} == {4096}
    assert process.returncode == 0
    assert b"SIMULATED model server" in words
    assert errors == b""


async def test_a_stream_that_is_on_its_way_at_sigterm_ends_in_an_error_event() -> None:
    async with serving("--model", "m", "--ttft-ms", "1", "--itl-ms", "60000") as (url, process):
        async with aiohttp.ClientSession() as session:
            body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                await answer.content.readline()
                process.send_signal(signal.SIGTERM)
                rest = (await answer.content.read()).decode()
        _, errors = await process.communicate()
    events = [line.removeprefix("data: ") for line in rest.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["code"] == 500
    assert process.returncode == 0
    assert b"Traceback" not in errors


async def test_a_taken_port_ends_the_start_with_a_clear_line() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        process = await asyncio.create_subprocess_exec(*COMMAND, "--port", str(port), stderr=asyncio.subprocess.PIPE)
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}".encode() in errors
    assert b"Next: Choose another --port" in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize("words", [["--skill", "2"], ["--speed", "-1"], ["--max-model-len", "7"], ["--no-such-flag"]])
async def test_a_flag_out_of_range_ends_the_start_with_status_two(words: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*COMMAND, *words, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert words[0].encode() in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize(("key", "told"), [("k", "from VLLM_API_KEY"), ("", "none; set VLLM_API_KEY")])
async def test_the_command_tells_its_address_the_mark_and_where_the_key_is_from(key: str, told: str) -> None:
    async with serving("--model", "demo", "--skill", "0.5", key=key) as (url, process):
        process.send_signal(signal.SIGINT)
        words, errors = await process.communicate()
    assert words.decode().startswith("SIMULATED model server, skill 0.5.")
    assert f"Base URL: {url}/v1" in words.decode()
    assert told in words.decode()
    assert (process.returncode, errors) == (0, b"")


async def test_importing_the_room_loads_nothing_heavy() -> None:
    told = "import sys, tautools.simulate; print([n for n in ('inspect_ai', 'litellm', 'pandas') if n in sys.modules])"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", told, stdout=asyncio.subprocess.PIPE)
    words, _ = await process.communicate()
    assert words.decode().strip() == "[]"
