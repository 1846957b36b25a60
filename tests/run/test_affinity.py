"""The header that keeps a conversation on one server behind a router, over real HTTP."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from scripted_server import Request, ScriptedServer, serve_in_thread
from served_cells import STOP, cell_at

from tautools.errors import ParamsError
from tautools.llm import ModelClient
from tautools.llm.types import CallTag, Endpoint
from tautools.params import resolve_run
from tautools.records import ModelConfig, Role
from tautools.run import run_cell

HEADER = "x-session-id"


def answer(request: Request) -> str:
    said = sum(message["role"] == "assistant" for message in request.body["messages"])
    return "Hello." if request.body.get("tools") else f"Bye. {STOP}" if said > 1 else "Hi."


def sent(tmp_path: Any, **how: Any) -> tuple[Any, list[Request]]:
    with serve_in_thread(answer, model="scripted-4B") as server:
        role = {"model": "scripted-4B", "base_url": server.base_url} | how
        run = cell_at(server.base_url, "scripted-4B", limit=3, num_trials=2, agent=role, user=role)
        return run_cell(run, workspace=tmp_path), list(server.requests)


def test_every_request_of_a_conversation_carries_one_value_that_tells_nothing(tmp_path: Any) -> None:
    result, requests = sent(tmp_path, affinity_header=HEADER)
    by_value: defaultdict[str, list[Request]] = defaultdict(list)
    for request in requests:
        by_value[request.headers[HEADER]].append(request)
    assert len(by_value) == 6, "three tasks, two trials"
    assert {len(each) for each in by_value.values()} == {len(requests) // 6}
    assert all(len({bool(each.body.get("tools")) for each in every}) == 2 for every in by_value.values()), "both sides"
    assert all(len(value) == 32 and value.isalnum() for value in by_value)
    noted = result.setting, run_notes(result.folder)
    assert noted[1]["endpoints"]["agent"][0]["affinity_header"] == HEADER


def run_notes(folder: Any) -> dict[str, Any]:
    import json

    return dict(json.loads((folder / "setting.json").read_text())["provenance"])


def test_none_is_sent_by_default_and_the_setting_is_the_same(tmp_path: Any) -> None:
    plain, requests = sent(tmp_path / "a")
    assert not any(HEADER in request.headers for request in requests)
    with_header, _ = sent(tmp_path / "b", affinity_header=HEADER)
    assert plain.setting.id == with_header.setting.id


@pytest.mark.parametrize(
    "name", ["Authorization", "host", "content-type", "Content-Length", "cookie", "x y", "x\n", "ü", ""]
)
def test_a_header_that_is_not_free_is_refused(name: str, tmp_path: Any) -> None:
    flags = {"env": "retail", "agent.model": "M"}
    with pytest.raises(ParamsError, match="affinity_header"):
        resolve_run(flags, workspace=tmp_path, overrides=[f"agent.affinity_header={name!r}"])


async def test_a_router_that_hashes_the_header_keeps_conversations_apart_and_together() -> None:
    """A real router: it hashes the header and passes the request on to one of three servers."""
    async with ScriptedServer("one") as one, ScriptedServer("two") as two, ScriptedServer("three") as three:
        backends = [one, two, three]

        async def route(request: web.Request) -> web.Response:
            number = int(hashlib.md5(request.headers[HEADER].encode()).hexdigest(), 16) % 3
            async with (
                aiohttp.ClientSession() as session,
                session.post(f"{backends[number].base_url}/chat/completions", data=await request.read()) as got,
            ):
                return web.Response(body=await got.read(), content_type="text/event-stream")

        app = web.Application()
        app.router.add_post("/v1/chat/completions", route)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        endpoint = Endpoint(f"http://127.0.0.1:{port}/v1", "scripted", affinity_header=HEADER)
        try:
            async with ModelClient(lambda _: [endpoint], {Role.AGENT: ModelConfig(model="scripted")}) as client:

                async def talk(number: int) -> set[str]:
                    tag = CallTag(role=Role.AGENT, conversation=f"s/{number}/0")
                    hello = [{"role": "user", "content": "Hi."}]
                    return {(await client.complete(tag, hello)).text for _ in range(4)}

                places = await asyncio.gather(*map(talk, range(24)))
        finally:
            await runner.cleanup()
    assert all(len(place) == 1 for place in places), "a conversation stays"
    assert set.union(*places) == {"one", "two", "three"}, "and they are spread"
