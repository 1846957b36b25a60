"""Each way in which a request can go wrong has its class, shows evidence, and never shows the key."""

from __future__ import annotations

import asyncio
import socket
from email.utils import formatdate
from time import time
from typing import Any

import pytest
from scripted_server import Request, Say, ScriptedServer

from tautools.errors import CallFault, ModelCallError
from tautools.llm import ModelClient, Retry, Timeouts
from tautools.llm.types import CallTag, Endpoint
from tautools.records import ModelConfig, Role

_TOO_LONG = (
    "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 input tokens"
)
_ASKED_TOO_MUCH = "max_tokens=5000 cannot be greater than max_model_len=4096. Please request fewer output tokens."


def _requested(prompt: int, output: int) -> str:
    told = f"you requested {prompt + output} tokens ({prompt} in the messages, {output} in the completion)"
    return f"This model's maximum context length is 4096 tokens. However, {told}."


async def _fault(open_client: Any, say: Say, **options: Any) -> tuple[ModelCallError, Any]:
    async with ScriptedServer(say) as server, open_client(server, **options) as opened:
        with pytest.raises(ModelCallError) as raised:
            await opened.ask()
    assert len(opened.records) == 1
    return raised.value, opened.records[0]


@pytest.mark.parametrize(
    ("status", "body", "fault"),
    [
        (401, {"error": "Unauthorized"}, CallFault.AUTH),
        (403, {"detail": "Forbidden"}, CallFault.AUTH),
        (404, {"error": {"message": "The model `nope` does not exist.", "code": 404}}, CallFault.NOT_FOUND),
        (408, "", CallFault.TIME_OUT),
        (429, {"error": {"message": "slow down"}}, CallFault.OVERLOADED),
        (429, {"error": {"message": "pay first", "code": "insufficient_quota"}}, CallFault.REFUSED),
        (503, "busy", CallFault.OVERLOADED),
        (500, {"error": {"message": "EngineCore encountered an issue."}}, CallFault.SERVER_FAULT),
        (502, "<html>Bad gateway</html>", CallFault.SERVER_FAULT),
        (504, "", CallFault.SERVER_FAULT),
        (400, {"error": {"message": _TOO_LONG, "code": 400}}, CallFault.CONTEXT_OVERFLOW),
        (400, {"object": "error", "message": _TOO_LONG, "code": 400}, CallFault.CONTEXT_OVERFLOW),
        (400, {"error": {"message": "no", "code": "context_length_exceeded"}}, CallFault.CONTEXT_OVERFLOW),
        (
            400,
            {"error": {"message": "The input (9000 tokens) is longer than the model's context length (8192 tokens)."}},
            CallFault.CONTEXT_OVERFLOW,
        ),
        (
            400,
            {
                "error": {
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                }
            },
            CallFault.CONTEXT_OVERFLOW,
        ),
        (413, {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}, CallFault.CONTEXT_OVERFLOW),
        (400, {"error": {"message": _ASKED_TOO_MUCH, "param": "max_tokens"}}, CallFault.REFUSED),
        (400, {"message": _requested(22, 5000)}, CallFault.REFUSED),
        (400, {"message": _requested(3000, 2000)}, CallFault.CONTEXT_OVERFLOW),
        (400, {"message": "max_tokens must be at least 1, got -12."}, CallFault.CONTEXT_OVERFLOW),
        (400, {"error": {"message": '"auto" tool choice requires --enable-auto-tool-choice'}}, CallFault.REFUSED),
        (422, {"detail": [{"msg": "Field required", "loc": ["body", "messages"]}]}, CallFault.REFUSED),
        (307, "", CallFault.REFUSED),
        (204, "", CallFault.MALFORMED),
    ],
)
async def test_an_answer_with_an_error_has_the_class_of_its_cause(
    open_client: Any, status: int, body: Any, fault: CallFault
) -> None:
    error, record = await _fault(open_client, Say(status=status, body=body))
    assert (error.fault, error.status) == (fault, status)
    assert (record.fault, record.status, record.ttft_s) == (fault.value, status, None)
    assert record.e2e_s is not None
    assert record.error == error.problem
    assert str(error).splitlines()[-1].startswith("Next: ")


async def test_the_evidence_is_the_servers_own_words(open_client: Any) -> None:
    error, _ = await _fault(open_client, Say(status=400, body={"error": {"message": "top_k must be -1 or more"}}))
    assert error.evidence == "top_k must be -1 or more"
    error, _ = await _fault(open_client, Say(status=502, body="x" * 10_000))
    assert 300 < len(error.evidence) <= 400


async def test_the_key_is_taken_out_of_what_a_server_echoes(open_client: Any, key: str) -> None:
    def echo(request: Request) -> Say:
        return Say(status=400, body={"error": {"message": f"bad header {request.headers['Authorization']}"}})

    async with ScriptedServer(echo, key=key) as server, open_client(server) as opened:
        with pytest.raises(ModelCallError) as raised:
            await opened.ask()
    assert raised.value.evidence == "bad header Bearer (hidden)"
    assert key not in repr(raised.value.__dict__)
    assert key not in opened.records[0].model_dump_json()


@pytest.mark.parametrize("value", ["7", "7.0", "a date"])
async def test_retry_after_is_read(open_client: Any, value: str) -> None:
    told = formatdate(time() + 7.5, usegmt=True) if value == "a date" else value
    error, _ = await _fault(open_client, Say(status=429, headers={"Retry-After": told}, body="slow"))
    assert error.retry_after_s == pytest.approx(5, abs=3)


async def test_an_unreadable_retry_after_is_passed_over(open_client: Any) -> None:
    error, _ = await _fault(open_client, Say(status=503, headers={"Retry-After": "soon"}, body="slow"))
    assert error.retry_after_s is None


async def test_nobody_there_is_unreachable(open_client: Any) -> None:
    async with ScriptedServer() as server:
        await server.kill()
        async with open_client(server) as opened:
            with pytest.raises(ModelCallError, match="cannot be reached") as raised:
                await opened.ask()
    assert raised.value.fault is CallFault.UNREACHABLE
    assert opened.records[0].fault == "unreachable"


async def test_an_address_that_takes_no_connection_is_a_time_out() -> None:
    """A listener whose queue is full lets further connections hang, as a firewall does."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        held = [socket.socket() for _ in range(4)]
        try:
            for each in held:
                each.setblocking(False)
                each.connect_ex(address)
            place = Endpoint(f"http://127.0.0.1:{address[1]}/v1", "m")
            timeouts = Timeouts(connect_s=0.2)
            async with ModelClient(
                lambda _: [place], {Role.AGENT: ModelConfig(model="m")}, timeouts=timeouts, retry=Retry(attempts=1)
            ) as client:
                with pytest.raises(ModelCallError, match=r"No connection .* within 0\.2 s") as raised:
                    await client.complete(CallTag(role=Role.AGENT), [])
        finally:
            for each in held:
                each.close()
    assert raised.value.fault is CallFault.TIME_OUT


@pytest.mark.parametrize(
    ("say", "timeouts", "words"),
    [
        (Say("x", first_s=30), Timeouts(first_token_s=0.1), "gave no first token within 0.1 s"),
        (Say("abcdefgh", hang_after=1), Timeouts(idle_s=0.1), "fell silent in mid-answer for 0.1 s"),
        (Say("x" * 400, gap_s=0.02), Timeouts(total_s=0.3), "did not finish within 0.3 s"),
        (Say("x", whole=True, first_s=30), Timeouts(total_s=0.1), "did not finish within 0.1 s"),
    ],
)
async def test_each_limit_of_time_says_which_it_was(open_client: Any, say: Say, timeouts: Timeouts, words: str) -> None:
    error, record = await _fault(open_client, say, timeouts=timeouts)
    assert error.fault is CallFault.TIME_OUT
    assert words in error.problem
    assert record.fault == "time_out"


async def test_a_slow_answer_within_the_limits_is_no_fault(open_client: Any) -> None:
    timeouts = Timeouts(first_token_s=1.0, idle_s=1.0, total_s=60)
    say = Say("abcdefghijkl", chunk_chars=1, first_s=0.3, gap_s=0.1)
    async with ScriptedServer(say) as server, open_client(server, timeouts=timeouts) as opened:
        assert (await opened.ask()).text == "abcdefghijkl"


@pytest.mark.parametrize(
    ("error", "fault", "status"),
    [
        ({"message": "EngineCore encountered an issue.", "code": 500}, CallFault.SERVER_FAULT, 500),
        ({"message": "gone", "type": "x"}, CallFault.SERVER_FAULT, 500),
        ("plain words", CallFault.SERVER_FAULT, 500),
        ({"message": "slow down", "code": 429}, CallFault.OVERLOADED, 429),
        ({"message": _TOO_LONG, "code": "400"}, CallFault.CONTEXT_OVERFLOW, 400),
        ({"message": "too long", "code": "context_length_exceeded"}, CallFault.CONTEXT_OVERFLOW, 400),
    ],
)
async def test_an_error_event_in_mid_stream_is_what_its_code_says(
    open_client: Any, error: Any, fault: CallFault, status: int
) -> None:
    raised, record = await _fault(open_client, Say("abcdefgh", error_after=1, error=error))
    assert (raised.fault, raised.status) == (fault, status)
    assert (record.fault, record.chunks) == (fault.value, 1)
    assert record.ttft_s is not None


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(Say("abcdefgh", cut_after=1), id="the connection is cut"),
        pytest.param(Say("abcdefgh", end_after=1), id="the stream ends without a word"),
        pytest.param(Say("abcdefgh", end_after=0), id="the stream ends before the first token"),
        pytest.param(Say("abcdefgh", finish_reason="abort"), id="vLLM aborts the request"),
    ],
)
async def test_an_answer_that_is_not_whole_is_a_broken_stream(open_client: Any, say: Say) -> None:
    error, record = await _fault(open_client, say)
    assert error.fault is CallFault.BROKEN_STREAM
    assert record.fault == "broken_stream"


async def test_a_server_that_dies_before_it_answers_is_a_broken_stream(open_client: Any) -> None:
    async with ScriptedServer(Say("x", first_s=30)) as server, open_client(server) as opened:
        asking = asyncio.create_task(opened.ask())
        await server.arrived()
        await server.kill()
        with pytest.raises(ModelCallError) as raised:
            await asking
    assert raised.value.fault is CallFault.BROKEN_STREAM


async def test_finish_reason_error_is_the_servers_fault(open_client: Any) -> None:
    error, _ = await _fault(open_client, Say("abc", finish_reason="error"))
    assert error.fault is CallFault.SERVER_FAULT


@pytest.mark.parametrize(
    "say",
    [
        pytest.param(Say(raw=b"data: {not json}\n\n"), id="not JSON"),
        pytest.param(Say(raw=b'data: {"choices": "none"}\n\n'), id="choices of a wrong type"),
        pytest.param(Say(raw=b'data: {"choices": [{"delta": {"content": 7}}]}\n\ndata: [DONE]\n\n'), id="no text"),
        pytest.param(Say(raw=b"data: [1, 2]\n\n"), id="a list"),
        pytest.param(Say(raw=b"data: [DONE]\n\n"), id="no choices"),
        pytest.param(Say(raw=b'data: {"choices": []}\n\ndata: [DONE]\n\n'), id="empty choices"),
        pytest.param(Say(raw=b"<html>Sign in</html>\n"), id="a page in place of events"),
        pytest.param(Say(raw=b""), id="nothing"),
        pytest.param(Say(raw=b"<html>Sign in</html>", content_type="text/html"), id="a page"),
        pytest.param(Say(status=200, body={"choices": []}), id="an object without choices"),
        pytest.param(Say(status=200, body={"hello": 1}), id="another object"),
        pytest.param(Say(status=200, body="{", content_type="application/json"), id="half an object"),
    ],
)
async def test_what_is_no_answer_is_malformed(open_client: Any, say: Say) -> None:
    error, record = await _fault(open_client, say)
    assert error.fault is CallFault.MALFORMED
    assert record.fault == "malformed"


async def test_the_beginning_of_garbage_is_shown(open_client: Any) -> None:
    error, _ = await _fault(open_client, Say(raw=b"<html>Sign in</html>\n"))
    assert "Sign in" in error.evidence


async def test_a_role_without_a_model_is_refused_before_anything_is_sent(open_client: Any) -> None:
    async with ScriptedServer() as server, open_client(server) as opened:
        with pytest.raises(ModelCallError, match="No model is given for the judge"):
            await opened.ask(role=Role.JUDGE)
    assert server.requests == []


async def test_a_cancelled_call_frees_its_connection_and_leaves_no_record(open_client: Any) -> None:
    async with ScriptedServer([Say("x", first_s=30), Say("y")]) as server, open_client(server) as opened:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await opened.ask()
        assert opened.records == []
        assert (await opened.ask()).text == "y"
