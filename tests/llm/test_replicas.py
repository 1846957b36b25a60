"""Several servers for one role."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from scripted_server import Request, Say, ScriptedServer

from tautools.errors import CallFault, ModelCallError, ServerError
from tautools.llm import Retry
from tautools.llm.types import Endpoint
from tautools.records import Role

_QUICK = Retry(attempts=4, first_wait_s=0.01, most_wait_s=0.02)


def endpoint_of(server: ScriptedServer) -> Endpoint:
    return Endpoint(server.base_url, server.model)


async def _start(stack: AsyncExitStack, number: int, say: Any = "ok") -> list[ScriptedServer]:
    return [await stack.enter_async_context(ScriptedServer(say)) for _ in range(number)]


async def test_a_conversation_stays_on_its_replica_and_new_ones_spread(open_client: Any) -> None:
    async with AsyncExitStack() as stack:
        servers = await _start(stack, 3)
        opened = await stack.enter_async_context(open_client(*servers))
        homes: dict[str, set[str]] = {}
        for _ in range(4):
            for name in "abcdef":
                record = (await opened.ask(conversation=name)).record
                homes.setdefault(name, set()).add(record.endpoint)
    assert all(len(home) == 1 for home in homes.values())
    assert sorted(Counter(home for each in homes.values() for home in each).values()) == [2, 2, 2]


async def test_calls_before_the_first_answer_of_a_server_are_cold_and_each_call_carries_its_load(
    open_client: Any,
) -> None:
    enough = asyncio.Event()

    async def wait(_: Request) -> str:
        await enough.wait()
        return "ok"

    async with ScriptedServer(wait) as server, open_client(server, max_in_flight=2) as opened:
        first = [asyncio.create_task(opened.ask()) for _ in range(3)]
        await server.arrived(2)
        enough.set()
        await asyncio.gather(*first)
        await opened.ask()
        loads = [(record.cold, record.in_flight, record.replicas) for record in opened.records]
    assert sorted(loads[:2]) == [(True, 1, 1), (True, 2, 1)]
    assert loads[2][0] is False, "it waited for a slot, and was sent when the server had answered"
    assert loads[3] == (False, 1, 1)


async def test_an_answer_with_an_error_warms_no_server_and_one_that_went_away_is_cold_again(open_client: Any) -> None:
    refusing = ScriptedServer([Say(status=400, body={"error": "no"}), "ok", "ok"])
    async with refusing as server, open_client(server) as opened:
        with pytest.raises(ModelCallError):
            await opened.ask()
        await opened.ask()
        await opened.ask()
        await server.kill()
        with pytest.raises(ModelCallError):
            await opened.ask()
        async with ScriptedServer("ok", port=server.port):
            await opened.ask()
    seen = [(record.fault, record.cold) for record in opened.records]
    assert seen == [("refused", True), ("", True), ("", False), ("unreachable", False), ("", True)]


async def test_a_server_that_is_known_to_have_answered_a_run_is_not_cold(open_client: Any) -> None:
    async with ScriptedServer() as server, open_client(server, endpoint={"warm": True}) as opened:
        assert not (await opened.ask()).record.cold


async def test_a_new_conversation_goes_where_least_is_in_work(open_client: Any) -> None:
    async with AsyncExitStack() as stack:
        slow, quick = await _start(stack, 2)
        enough = asyncio.Event()

        async def wait(_: Request) -> str:
            await enough.wait()
            return "late"

        slow.answers = wait
        opened = await stack.enter_async_context(open_client(slow, quick))
        first = asyncio.create_task(opened.ask(conversation="first"))
        await slow.arrived()
        for name in "abcde":
            await opened.ask(conversation=name)
        enough.set()
        await first
    assert (len(slow.requests), len(quick.requests)) == (1, 5)


async def test_a_dead_replica_is_left_and_its_conversations_move(open_client: Any) -> None:
    async with AsyncExitStack() as stack:
        servers = await _start(stack, 2)
        opened = await stack.enter_async_context(open_client(*servers, retry=Retry(attempts=1)))
        before = {name: (await opened.ask(conversation=name)).record.endpoint for name in "abcd"}
        await servers[0].kill()
        replies = [await opened.ask(conversation=name) for name in "abcd" for _ in range(3)]
    assert set(before.values()) == {server.base_url for server in servers}
    assert {reply.record.endpoint for reply in replies} == {servers[1].base_url}
    faults = [record for record in opened.records if record.fault]
    assert {record.endpoint for record in faults} == {servers[0].base_url}
    assert len(faults) == 1  # asked once, then left
    assert [wait_s for wait_s, _ in opened.retries] == [0.0]


async def test_a_replica_that_dies_in_mid_answer_loses_only_that_attempt(open_client: Any) -> None:
    async with AsyncExitStack() as stack:
        servers = await _start(stack, 2, Say("abcdefgh", hang_after=1))
        servers[1].answers = "whole"
        opened = await stack.enter_async_context(open_client(*servers, retry=_QUICK))
        asking = asyncio.create_task(opened.ask(conversation="a"))
        await servers[0].arrived()
        await asyncio.sleep(0.05)
        await servers[0].kill()
        reply = await asking
    assert (reply.text, reply.record.endpoint) == ("whole", servers[1].base_url)
    assert [record.fault for record in opened.records] == ["broken_stream", "unreachable", ""]


async def test_an_overloaded_replica_is_not_left(open_client: Any) -> None:
    async with AsyncExitStack() as stack:
        servers = await _start(stack, 2, [Say(status=503, body="busy"), Say("ok")])
        opened = await stack.enter_async_context(open_client(*servers, retry=_QUICK))
        await opened.ask(conversation="a")
    assert len({record.endpoint for record in opened.records}) == 1


async def test_when_no_replica_is_left_the_registry_is_asked_again(open_client: Any) -> None:
    async with AsyncExitStack() as stack:
        first, second = await _start(stack, 2)
        asked: list[Role] = []

        def resolve(role: Role) -> Sequence[Endpoint]:
            asked.append(role)
            return [endpoint_of(first if len(asked) == 1 else second)]

        opened = await stack.enter_async_context(open_client(resolve=resolve, retry=_QUICK))
        await opened.ask(conversation="a")
        await first.kill()
        reply = await opened.ask(conversation="a")
    assert asked == [Role.AGENT, Role.AGENT]
    assert reply.record.endpoint == second.base_url


async def test_a_server_that_comes_back_on_its_port_is_used_again(open_client: Any) -> None:
    patient = Retry(attempts=8, first_wait_s=0.1, most_wait_s=0.2)
    async with ScriptedServer() as server, open_client(server, retry=patient) as opened:
        await opened.ask(conversation="a")
        await server.kill()
        asking = asyncio.create_task(opened.ask(conversation="a"))
        await asyncio.sleep(0.05)
        async with ScriptedServer("back", port=server.port):
            assert (await asking).text == "back"
    assert opened.retries


async def test_a_registry_that_knows_no_server_is_an_unreachable_fault(open_client: Any) -> None:
    def resolve(_: Role) -> Sequence[Endpoint]:
        raise ServerError("No server is ready.", next_step="Start one.")

    async with open_client(resolve=resolve, retry=_QUICK) as opened:
        with pytest.raises(ModelCallError, match="No server is ready") as raised:
            await opened.ask()
    assert (raised.value.fault, raised.value.next_step) == (CallFault.UNREACHABLE, "Start one.")
    async with open_client(resolve=lambda _: [], retry=Retry(attempts=1)) as opened:
        with pytest.raises(ModelCallError, match="There is no server for the agent"):
            await opened.ask()


async def test_the_registry_is_asked_once_for_many_conversations(open_client: Any) -> None:
    async with ScriptedServer() as server:
        asked: list[Role] = []

        def resolve(role: Role) -> Sequence[Endpoint]:
            asked.append(role)
            return [endpoint_of(server)]

        async with open_client(resolve=resolve) as opened:
            await asyncio.gather(*(opened.ask(conversation=str(number)) for number in range(20)))
    assert asked == [Role.AGENT]


async def test_requests_beyond_the_limit_wait_and_their_wait_is_recorded(open_client: Any) -> None:
    async with ScriptedServer(Say("x", first_s=0.1)) as server, open_client(server, max_in_flight=2) as opened:
        await asyncio.gather(*(opened.ask(conversation=str(number)) for number in range(6)))
    assert server.most_at_once == 2
    waits = sorted(record.queue_s for record in opened.records)
    assert waits[-1] >= 0.1
    assert waits[0] < waits[-1]
    assert all(record.e2e_s is not None and record.e2e_s >= 0.1 for record in opened.records)


async def test_without_a_limit_nothing_waits_on_our_side(open_client: Any) -> None:
    async with ScriptedServer() as server, open_client(server) as opened:

        async def together(_: Request) -> str:
            await server.arrived(150)
            return "ok"

        server.answers = together
        await asyncio.gather(*(opened.ask(conversation=str(number)) for number in range(150)))
    assert server.most_at_once == 150
