"""What may pass is asked again, a bounded number of times, and each attempt is recorded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_server import Say, ScriptedServer

from tautools.errors import CallFault, ModelCallError
from tautools.llm import Retry

_QUICK = Retry(attempts=4, first_wait_s=0.01, most_wait_s=0.02)


async def test_transient_faults_pass_and_every_attempt_is_recorded(open_client: Any) -> None:
    script = [Say(status=503, body="busy"), Say("abcdefgh", cut_after=1), Say(raw=b"data: {"), Say("Fine.")]
    async with ScriptedServer(script) as server, open_client(server, retry=_QUICK) as opened:
        reply = await opened.ask()
    assert reply.text == "Fine."
    assert [record.fault for record in opened.records] == ["overloaded", "broken_stream", "malformed", ""]
    assert [record.attempt for record in opened.records] == [0, 1, 2, 3]
    assert [error.fault for _, error in opened.retries] == [
        CallFault.OVERLOADED,
        CallFault.BROKEN_STREAM,
        CallFault.MALFORMED,
    ]
    assert reply.record == opened.records[-1]


async def test_after_the_last_attempt_the_fault_is_raised(open_client: Any) -> None:
    async with ScriptedServer(Say(status=500, body="boom")) as server, open_client(server, retry=_QUICK) as opened:
        with pytest.raises(ModelCallError) as raised:
            await opened.ask()
    assert raised.value.fault is CallFault.SERVER_FAULT
    assert (len(server.requests), len(opened.records), len(opened.retries)) == (4, 4, 3)


@pytest.mark.parametrize(
    "say",
    [
        Say(status=401, body="no"),
        Say(status=404, body="no"),
        Say(status=400, body="no"),
        Say(status=400, body="maximum context length"),
    ],
)
async def test_what_will_not_pass_is_not_asked_again(open_client: Any, say: Say) -> None:
    async with ScriptedServer(say) as server, open_client(server, retry=_QUICK) as opened:
        with pytest.raises(ModelCallError):
            await opened.ask()
    assert (len(server.requests), opened.retries) == (1, [])


async def test_the_wait_is_as_long_as_the_server_asks(open_client: Any) -> None:
    script = [Say(status=429, headers={"Retry-After": "0.3"}, body="slow"), Say("Fine.")]
    async with ScriptedServer(script) as server, open_client(server, retry=_QUICK) as opened:
        await opened.ask()
    assert [wait_s for wait_s, _ in opened.retries] == [0.3]
    assert server.requests[1].at - server.requests[0].at >= 0.29


async def test_a_reply_never_mixes_attempts(open_client: Any) -> None:
    script = [Say("half an answ", cut_after=2), Say("whole")]
    async with ScriptedServer(script) as server, open_client(server, retry=_QUICK) as opened:
        assert (await opened.ask()).text == "whole"


@given(st.integers(0, 200), st.floats(0, 1), st.none() | st.floats(0, 1e6))
def test_waits_grow_and_stay_within_their_limits(attempt: int, drawn: float, asked_s: float | None) -> None:
    retry = Retry(first_wait_s=1, most_wait_s=30, most_asked_wait_s=120, jitter=0.25)
    error = ModelCallError("x", fault=CallFault.OVERLOADED, retry_after_s=asked_s)
    wait_s = retry.wait_s(attempt, error, lambda: drawn)
    assert wait_s >= min(30, 2.0**attempt)
    assert wait_s >= min(asked_s or 0, 120)
    assert wait_s <= max(30 * 1.25, min(asked_s or 0, 120))
