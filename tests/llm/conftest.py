"""A client of a scripted server, with what it recorded."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from scripted_server import ScriptedServer

from tautools.errors import ModelCallError
from tautools.llm import ModelClient, Retry
from tautools.llm.types import CallTag, Endpoint, Message, Reply, ToolSpec
from tautools.records import CallRecord, ModelConfig, Role

KEY = "sk-tautools-0123456789abcdef"
HELLO: list[Message] = [{"role": "user", "content": "Hello."}]
TOOL: ToolSpec = {
    "type": "function",
    "function": {"name": "get_order", "description": "Look it up.", "parameters": {"type": "object", "properties": {}}},
}


@dataclass
class Opened:
    """An open client, and what it asked and recorded."""

    client: ModelClient
    records: list[CallRecord] = field(default_factory=list)
    retries: list[tuple[float, ModelCallError]] = field(default_factory=list)

    async def ask(self, *, tools: list[ToolSpec] | None = None, **tag: Any) -> Reply:
        """Ask as the agent."""
        return await self.client.complete(CallTag(**{"role": Role.AGENT, **tag}), HELLO, tools)


OpenClient = Callable[..., AbstractAsyncContextManager[Opened]]


def endpoint_of(server: ScriptedServer, **options: Any) -> Endpoint:
    """Return the endpoint of a scripted server."""
    return Endpoint(server.base_url, server.model, **{"key": server.key, **options})


@pytest.fixture
def open_client() -> OpenClient:
    """Return what opens a client of servers: one attempt, no waits, unless the options say otherwise."""

    @asynccontextmanager
    async def opened(
        *servers: ScriptedServer, config: ModelConfig | None = None, **options: Any
    ) -> AsyncIterator[Opened]:
        endpoints = [endpoint_of(server, **options.pop("endpoint", {})) for server in servers]
        resolve = options.pop("resolve", lambda _role: endpoints)
        config = config or ModelConfig(model="scripted")
        records: list[CallRecord] = []
        retries: list[tuple[float, ModelCallError]] = []
        client = ModelClient(
            resolve,
            {Role.AGENT: config, Role.USER: config},
            on_call=records.append,
            on_retry=lambda _tag, wait_s, error: retries.append((wait_s, error)),
            **{"retry": Retry(attempts=1), **options},
        )
        async with client:
            yield Opened(client, records, retries)

    return opened


@pytest.fixture
def hello() -> list[Message]:
    """Return the smallest prompt."""
    return HELLO


@pytest.fixture
def tool() -> ToolSpec:
    """Return a tool."""
    return TOOL


@pytest.fixture
def key() -> str:
    """Return a key that must never be seen again."""
    return KEY
