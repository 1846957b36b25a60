"""The door to the network, against real servers on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from scripted_server import Say, ScriptedServer, serve_in_thread

from tautools.errors import CallFault, ModelCallError
from tautools.http import ConnectError, http_get, http_post
from tautools.http_stream import StreamHttp


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serve_in_thread("hello", key="sesame-123") as running:
        yield running


def _closed_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_any_status_is_returned(server: ScriptedServer) -> None:
    assert http_get(f"{server.base_url}/models").status == 401
    assert http_get(f"{server.base_url}/nothing").status == 404
    models = http_get(f"{server.base_url}/models", key="sesame-123")
    assert (models.status, models.json()["data"][0]["id"]) == (200, "scripted")
    assert models.headers["content-type"].startswith("application/json")


def test_a_body_is_posted_as_json_with_the_key(server: ScriptedServer) -> None:
    body = {"messages": [], "model": "scripted"}
    answer = http_post(f"{server.base_url}/chat/completions", body, key="sesame-123")
    assert answer.json()["choices"][0]["message"]["content"] == "hello"
    assert server.requests[0].body == body
    assert server.requests[0].headers["Authorization"] == "Bearer sesame-123"


def test_a_closed_port_is_unreachable() -> None:
    with pytest.raises(ConnectError, match="cannot be reached") as raised:
        http_get(f"http://127.0.0.1:{_closed_port()}/health")
    assert raised.value.fault is CallFault.UNREACHABLE


@pytest.mark.parametrize("address", ["http://", "ftp://127.0.0.1/", "127.0.0.1:80", "http://no such host/"])
def test_what_is_no_address_is_unreachable(address: str) -> None:
    with pytest.raises(ModelCallError) as raised:
        http_get(address)
    assert raised.value.fault is CallFault.UNREACHABLE


def test_a_silent_server_is_a_time_out() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ModelCallError, match=r"did not answer within 0\.1 s") as raised:
            http_get(f"http://127.0.0.1:{silent.getsockname()[1]}/health", timeout_s=0.1)
    assert raised.value.fault is CallFault.TIME_OUT


def test_proxies_of_the_environment_are_not_used(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = f"http://127.0.0.1:{_closed_port()}"
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, dead)
    assert http_get(server.base_url.replace("/v1", "/health")).status == 200

    async def stream() -> int:
        async with StreamHttp() as http, http.post(f"{server.base_url}/chat/completions", b"{}") as answer:
            return answer.status

    assert asyncio.run(stream()) == 401


async def test_a_stream_gives_bytes_as_they_come() -> None:
    async with (
        ScriptedServer(Say(raw=[b"one", b"two"], gap_s=0.1)) as server,
        StreamHttp() as http,
        http.post(f"{server.base_url}/chat/completions", b'{"stream": true}') as answer,
    ):
        pieces: list[bytes] = []
        await answer.read_into(pieces.append)
    assert pieces == [b"one", b"two"]


async def test_a_stream_outside_the_block_is_refused() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        async with StreamHttp().post("http://127.0.0.1:9/", b""):
            pass


async def test_what_does_not_speak_http_is_malformed() -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener, StreamHttp() as http:
        with pytest.raises(ModelCallError, match="does not answer in HTTP") as raised:
            async with http.post(f"http://127.0.0.1:{port}/v1/chat/completions", b"{}"):
                pass
    assert raised.value.fault is CallFault.MALFORMED


async def test_the_key_does_not_follow_a_redirect() -> None:
    async with ScriptedServer("stolen") as thief:
        there = {"Location": f"{thief.base_url}/chat/completions"}
        async with (
            ScriptedServer(Say(status=307, headers=there, body="")) as server,
            StreamHttp() as http,
            http.post(f"{server.base_url}/chat/completions", b"{}", key="sesame-123") as answer,
        ):
            assert answer.status == 307
        assert thief.requests == []
