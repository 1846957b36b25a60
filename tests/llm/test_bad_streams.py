"""Whatever a server sends: an answer or a classified fault, in bounded time and memory, and never anything else."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from scripted_server import Request, Say, ScriptedServer

from tautools.errors import CallFault, ModelCallError
from tautools.llm import Retry, Timeouts
from tautools.llm.stream import StreamParser, token_counts

_BODIES = [
    case["body"].encode() for case in json.loads((Path(__file__).parent / "streams.json").read_text(encoding="utf-8"))
]
_EVENTS = b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
_WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}


async def _fault(open_client: Any, say: Say, **options: Any) -> ModelCallError:
    async with ScriptedServer(say) as server, open_client(server, **options) as opened:
        with pytest.raises(ModelCallError) as raised:
            await opened.ask()
    assert opened.records[-1].fault == raised.value.fault.value
    return raised.value


@pytest.mark.parametrize(
    ("raw", "headers"),
    [
        pytest.param(gzip.compress(_EVENTS), {"Content-Encoding": "gzip"}, id="gzip, although not asked for"),
        pytest.param(_EVENTS, {"Content-Type": "text/event-stream; charset=utf-8"}, id="a charset"),
        pytest.param(_EVENTS, {"Content-Type": "TEXT/EVENT-STREAM"}, id="capitals"),
        pytest.param(_EVENTS, {"Content-Type": ""}, id="no content type"),
        pytest.param(_EVENTS, {"Content-Type": "text/plain"}, id="plain text"),
        pytest.param(_EVENTS, {"Content-Type": "application/json"}, id="events that are called JSON"),
        pytest.param(orjson.dumps(_WHOLE), {"Content-Type": "application/json; charset=utf-8"}, id="one object"),
    ],
)
async def test_a_body_is_read_by_what_it_is(open_client: Any, raw: bytes, headers: dict[str, str]) -> None:
    async with ScriptedServer(Say(raw=raw, headers=headers)) as server, open_client(server) as opened:
        reply = await opened.ask()
    assert (reply.text, reply.finish_reason) == ("hi", "stop")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"error": {"message": "gone", "code": 400}}, CallFault.SERVER_FAULT),
        ({"error": "gone"}, CallFault.SERVER_FAULT),
        ({"error": {"message": "This model's maximum context length is 10 tokens."}}, CallFault.CONTEXT_OVERFLOW),
        ({"detail": "Internal Server Error"}, CallFault.SERVER_FAULT),
        ({"choices": [{"index": 0, "finish_reason": "stop"}]}, CallFault.MALFORMED),
        ([1], CallFault.MALFORMED),
    ],
)
async def test_one_object_that_is_no_answer(open_client: Any, body: Any, fault: CallFault) -> None:
    assert (await _fault(open_client, Say(body=json.dumps(body)))).fault is fault


async def test_an_error_in_mid_answer_is_asked_again_and_the_conversation_goes_on(open_client: Any) -> None:
    words = {
        "message": 'unexpected tokens remaining in message header: Some("x")',
        "type": "BadRequestError",
        "code": 400,
    }
    script = [Say("half an answer", error_after=1, error=words), Say("whole")]
    async with ScriptedServer(script) as server, open_client(server, retry=Retry(first_wait_s=0.01)) as opened:
        reply = await opened.ask()
    assert reply.text == "whole"
    assert [(record.fault, record.status, record.chunks) for record in opened.records] == [
        ("server_fault", 400, 1),
        ("", 200, 2),
    ]


async def test_an_error_that_repeats_is_raised_with_the_servers_words(open_client: Any) -> None:
    say = Say(
        "half an answer", error_after=1, error={"message": "unexpected tokens remaining in message header", "code": 400}
    )
    async with ScriptedServer(say) as server, open_client(server, retry=Retry(attempts=3, first_wait_s=0.01)) as opened:
        with pytest.raises(ModelCallError, match="tokens remaining") as raised:
            await opened.ask()
    assert (raised.value.fault, len(opened.records)) == (CallFault.SERVER_FAULT, 3)


async def test_ten_megabytes_in_one_line_are_an_answer(open_client: Any) -> None:
    text = "x" * 10_000_000
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": "stop"}]}
    async with (
        ScriptedServer(Say(raw=b"data: " + orjson.dumps(chunk) + b"\n\n")) as server,
        open_client(server) as opened,
    ):
        assert (await opened.ask()).text == text


async def test_a_line_without_end_is_malformed_and_its_beginning_is_shown(open_client: Any) -> None:
    error = await _fault(open_client, Say(raw=[b"data: oh"] + [b"x" * 2**20] * 20))
    assert (error.fault, "sends a line without end" in error.problem) == (CallFault.MALFORMED, True)
    assert error.evidence.startswith("data: ohx")
    assert len(error.evidence) <= 400


async def test_an_answer_without_end_is_malformed(open_client: Any) -> None:
    line = b"data: " + orjson.dumps({"choices": [{"delta": {}}], "x": "y" * 2**20}) + b"\n\n"
    error = await _fault(open_client, Say(raw=[line] * 140))
    assert (error.fault, "sends an answer without end" in error.problem) == (CallFault.MALFORMED, True)


async def test_comments_without_end_are_no_answer(open_client: Any) -> None:
    say = Say(raw=[b": still here\n\n"] * 1000, gap_s=0.01)
    error = await _fault(open_client, say, timeouts=Timeouts(first_token_s=0.2))
    assert (error.fault, "gave no first token" in error.problem) == (CallFault.TIME_OUT, True)


async def test_an_answer_that_never_ends_is_a_time_out(open_client: Any) -> None:
    async def for_ever(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while True:
            await response.write(b'data: {"choices":[{"index":0,"delta":{"content":"x"}}]}\n\n' * 50)
            await asyncio.sleep(0.01)

    class Endless(ScriptedServer):
        _chat = staticmethod(for_ever)

    async with Endless() as server, open_client(server, timeouts=Timeouts(total_s=0.5)) as opened:
        with pytest.raises(ModelCallError, match="did not finish within") as raised:
            await opened.ask()
    assert raised.value.fault is CallFault.TIME_OUT
    assert opened.records[0].chunks > 1


def _mutated(draw: random.Random) -> bytes:
    """Return a body with some bytes or words of it changed, lost, doubled or taken from another."""
    body = bytearray(draw.choice(_BODIES))
    for _ in range(draw.randrange(1, 6)):
        at, other = draw.randrange(len(body) + 1), draw.choice(_BODIES)
        start = draw.randrange(len(other))
        piece = draw.choice(
            [
                bytes([draw.randrange(256)]),
                other[start : start + draw.randrange(80)],
                b"\r",
                b"\n",
                b"\n\n",
                b"\xef\xbb\xbf",
                b"null",
                b"[]",
                b"{}",
                b'"',
                b"0",
                b"-1",
                b"1e999",
                b"NaN",
                b"9" * 400,
                b"true",
                b"\\ud83d",
                b"\\u0000",
                b"[" * 2000,
                b'data: {"error": ',
                b"event: error\n",
                b"error: ",
                b"data: [DONE]\n\n",
                b'"usage":[{}],',
                b'"function":null,',
            ]
        )
        body[at : at + draw.randrange(len(piece) + 1)] = piece
    return bytes(body)


def _made_of(body: bytes, draw: random.Random) -> None:
    """Read a body in random cuts as the client does; raise what the client would raise."""
    parser, at = StreamParser("here"), 0
    while at < len(body) and not parser.done:
        width = draw.choice((1, 7, 100, 5000))
        parser.feed(body[at : at + width], 1.0)
        at += width
    parser.end(1.0)
    answer = parser.finish()
    orjson.dumps([answer.text, answer.thinking, answer.finish_reason, parser.fingerprint, token_counts(parser.usage)])
    orjson.dumps([[call.id, call.name, call.arguments] for call in answer.tool_calls])


@pytest.mark.parametrize("seed", range(20))
def test_changed_bodies_are_an_answer_that_can_be_stored_or_a_fault(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(200):
        body = _mutated(draw)
        try:
            _made_of(body, draw)
        except ModelCallError as error:
            orjson.dumps([error.problem, error.evidence, error.status])


async def test_changed_bodies_over_http_leave_a_record_each(open_client: Any) -> None:
    draw = random.Random(0)

    def answer(_: Request) -> Say:
        body = _mutated(draw)
        cut = draw.randrange(len(body) + 1)
        return Say(raw=[body[:cut], body[cut:]], content_type=draw.choice(["", "application/json", "text/plain"]))

    async with ScriptedServer(answer) as server, open_client(server) as opened:
        for asked in range(1, 151):
            try:
                await opened.ask()
            except ModelCallError as error:
                raised = error.fault.value
            else:
                raised = ""
            assert (len(opened.records), opened.records[-1].fault) == (asked, raised)
            orjson.dumps(opened.records[-1].model_dump(mode="json"))
