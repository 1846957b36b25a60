"""HTTP as servers really speak it, from a socket that sends the bytes as they are, cut anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import Say, ScriptedServer

from tautools.errors import CallFault, ModelCallError, ParamsError
from tautools.http import ConnectError, http_post
from tautools.http_stream import StreamHttp

_BODY = b"data: one\n\ndata: two\n\n"
_CHUNKED = b"B\r\n" + _BODY[:11] + b"\r\nb;ext=1\r\n" + _BODY[11:] + b"\r\n0\r\nX-Trailer: 1\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
_PACKED = gzip.compress(_BODY)

_ANSWERS = {
    "chunks": _OK + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKED,
    "a length": _OK + b"Content-Length: 22\r\n\r\n" + _BODY,
    "until it closes": _OK + b"\r\n" + _BODY,
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + _BODY,
    "a reason that is empty": b"HTTP/1.1 200\r\nContent-Length: 22\r\n\r\n" + _BODY,
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: y\r\n\r\n"
    + _OK
    + b"Content-Length:22\r\n\r\n"
    + _BODY,
    "gzip": _OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(_PACKED) + _PACKED,
    "deflate, until it closes": _OK + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(_BODY),
}


@contextlib.asynccontextmanager
async def _speaking(pieces: Sequence[bytes], *, stay: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Give the address of a server that answers each connection with `pieces`, and what it was asked."""
    asked: list[bytes] = []
    busy: set[asyncio.Task[None] | None] = set()

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        busy.add(asyncio.current_task())
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                asked.append(await reader.readuntil(b"\r\n\r\n{}"))
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if not stay:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    listener = await asyncio.start_server(speak, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", asked
        await asyncio.wait([each for each in busy if each], timeout=5) if busy else None


async def _read(http: StreamHttp, url: str, **options: Any) -> bytes:
    got = bytearray()
    async with http.post(url, b"{}", **options) as answer:
        assert answer.status == 200
        await answer.read_into(got.extend)
    return bytes(got)


@pytest.mark.parametrize("kind", _ANSWERS)
@pytest.mark.parametrize("width", [1, 5, 10_000])
async def test_a_body_is_read_however_it_is_cut_and_packed(kind: str, width: int) -> None:
    whole = _ANSWERS[kind]
    async with (
        _speaking([whole[at : at + width] for at in range(0, len(whole), width)]) as (url, _),
        StreamHttp() as http,
    ):
        assert await _read(http, url) == _BODY


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(_ANSWERS["chunks"])), max_size=6), st.sampled_from(["chunks", "gzip", "a length"]))
def test_cuts_change_nothing(cuts: list[int], kind: str) -> None:
    whole = _ANSWERS[kind]
    ends = [0, *sorted(cuts), len(whole)]

    async def read() -> bytes:
        pieces = [whole[start:end] for start, end in itertools.pairwise(ends)]
        async with _speaking(pieces) as (url, _), StreamHttp() as http:
            return await _read(http, url)

    assert asyncio.run(read()) == _BODY


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", CallFault.MALFORMED, id="another protocol"),
        pytest.param(b"HTTP/1.1 OK\r\n\r\n", CallFault.MALFORMED, id="no status"),
        pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, CallFault.MALFORMED, id="a head without end"),
        pytest.param(_OK + b"Content-Length: -1\r\n\r\nx", CallFault.MALFORMED, id="a length that is none"),
        pytest.param(
            _OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nx", CallFault.MALFORMED, id="a chunk of less than nothing"
        ),
        pytest.param(_OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx", CallFault.MALFORMED, id="a size that is none"),
        pytest.param(
            _OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 9000, CallFault.MALFORMED, id="a size without end"
        ),
        pytest.param(_OK + b"Content-Encoding: gzip\r\n\r\nrubbish", CallFault.MALFORMED, id="gzip that is none"),
        pytest.param(
            _OK + b"Content-Encoding: br\r\n\r\nx", CallFault.MALFORMED, id="an encoding that was not asked for"
        ),
        pytest.param(
            _OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(2**27)), CallFault.MALFORMED, id="a bomb"
        ),
        pytest.param(b"", CallFault.BROKEN_STREAM, id="nothing"),
        pytest.param(b"HTTP/1.1 200", CallFault.BROKEN_STREAM, id="half a head"),
        pytest.param(_OK + b"Content-Length: 99\r\n\r\n" + _BODY, CallFault.BROKEN_STREAM, id="less than its length"),
        pytest.param(
            _OK + b"Transfer-Encoding: chunked\r\n\r\n" + _CHUNKED[:-2], CallFault.BROKEN_STREAM, id="no last line"
        ),
    ],
)
async def test_what_is_no_whole_answer_has_its_fault(answer: bytes, fault: CallFault) -> None:
    async with _speaking([answer]) as (url, _), StreamHttp() as http:
        with pytest.raises(ModelCallError) as raised:
            await _read(http, url)
    assert raised.value.fault is fault


async def test_a_connection_is_used_again_after_a_whole_answer_only() -> None:
    def connections(answer: Say, requests: int) -> Callable[[], Any]:
        async def count() -> int:
            async with ScriptedServer(answer) as server, StreamHttp() as http:
                for _ in range(requests):
                    async with http.post(f"{server.base_url}/chat/completions", b'{"stream": true}') as reply:
                        await reply.text(most=2 if answer.hang_after else 2**20)
                return len(server.connections)

        return count

    assert await connections(Say("abcdefgh"), 3)() == 1
    assert await connections(Say("abcdefgh", hang_after=1), 2)() == 2


async def test_a_server_that_says_close_or_closes_is_connected_to_anew() -> None:
    answer = _OK + b"Connection: close\r\nContent-Length: 22\r\n\r\n" + _BODY
    async with _speaking([answer]) as (url, asked), StreamHttp() as http:
        assert [await _read(http, url) for _ in range(2)] == [_BODY, _BODY]
    quiet = _OK + b"Content-Length: 22\r\n\r\n" + _BODY
    async with _speaking([quiet]) as (url, asked), StreamHttp() as http:
        await _read(http, url)
        await asyncio.sleep(0.05)  # its end arrives
        assert await _read(http, url) == _BODY
    assert len(asked) == 2


async def test_what_follows_a_whole_answer_is_no_part_of_the_next_one() -> None:
    answer = _OK + b"Content-Length: 22\r\n\r\n" + _BODY + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
    async with _speaking([answer], stay=True) as (url, _), StreamHttp() as http:
        assert [await _read(http, url) for _ in range(2)] == [_BODY, _BODY]


async def test_the_request_has_path_query_and_key() -> None:
    async with _speaking([_ANSWERS["a length"]]) as (url, asked), StreamHttp() as http:
        await _read(http, f"{url}/a b?api-version=1", key="sesame")
    lines = asked[0].split(b"\r\n")
    assert lines[0] == b"POST /v1/a%20b?api-version=1 HTTP/1.1"
    assert b"Authorization: Bearer sesame" in lines
    assert b"Content-Length: 2" in lines


async def test_a_name_and_password_in_the_address_are_sent_as_httpx_sends_them() -> None:
    answer = _OK + b"Content-Length: 22\r\nConnection: close\r\n\r\n" + _BODY
    async with _speaking([answer]) as (url, asked), StreamHttp() as http:
        address = url.replace("http://", "http://me:p%40ss@")
        await _read(http, address, key="sesame")
        await asyncio.to_thread(http_post, address, {}, key="sesame")
    sent = [
        [line for line in each.split(b"\r\n") if line.lower().startswith((b"authorization", b"host"))] for each in asked
    ]
    assert sent[0] == sorted(sent[1], reverse=True)
    assert b"Authorization: Basic bWU6cEBzcw==" in sent[0]


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://here/", "http://", "http://here:port/", "http://[::1/"])
async def test_what_is_no_address_cannot_be_reached(url: str) -> None:
    async with StreamHttp() as http:
        with pytest.raises(ConnectError, match="cannot be reached"):
            await _read(http, url)


async def test_a_key_that_no_header_can_carry_is_refused_and_not_shown() -> None:
    async with _speaking([_ANSWERS["a length"]]) as (url, asked), StreamHttp() as http:
        with pytest.raises(ParamsError, match="a line break") as raised:
            await _read(http, url, key="sesame\r\nX-Evil: 1")
    assert "sesame" not in str(raised.value)
    assert asked == []


async def test_what_the_reader_raises_is_raised_and_ends_the_connection() -> None:
    def refuse(_: bytes) -> None:
        raise LookupError("no")

    async with _speaking([_ANSWERS["chunks"]], stay=True) as (url, asked), StreamHttp() as http:
        with pytest.raises(LookupError):
            async with http.post(url, b"{}") as answer:
                await answer.read_into(refuse)
        assert await _read(http, url) == _BODY
    assert len(asked) == 2
