"""What servers say of themselves: their version, and vLLM's counters while a cell runs.

Asked in a thread and never waited for by a conversation; a server that has no such page is simply not told of.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Self

from tautools.errors import ModelCallError
from tautools.http import Http

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tautools.llm.types import Endpoint
    from tautools.run.tell import Teller

__all__ = ["MetricsWatch", "ask_metrics", "ask_version"]

EVERY_S = 60.0
TIMEOUT_S = 2.0

_KEPT = (
    "num_requests_running",
    "num_requests_waiting",
    "kv_cache_usage_perc",
    "num_preemptions_total",
    "prompt_tokens_total",
    "generation_tokens_total",
    "prefix_cache_queries_total",
    "prefix_cache_hits_total",
    "request_success_total",
)
_LINE = re.compile(rf"^vllm:({'|'.join(_KEPT)})(?:\{{.*\}})? (\S+)$", re.MULTILINE)


def ask_version(endpoint: Endpoint) -> str | None:
    """Return the version that a server tells, or None when it does not."""
    try:
        answer = Http().get(f"{_root(endpoint)}/version", key=endpoint.key, timeout_s=TIMEOUT_S)
        return str(answer.json()["version"]) if answer.status == 200 else None
    except (ModelCallError, ValueError, KeyError, TypeError):
        return None


def ask_metrics(endpoint: Endpoint) -> dict[str, float]:
    """Return a server's main counters and gauges by vLLM's names without `vllm:`; empty when it has none."""
    try:
        answer = Http().get(f"{_root(endpoint)}/metrics", key=endpoint.key, timeout_s=TIMEOUT_S)
    except ModelCallError:
        return {}
    found: dict[str, float] = {}
    for name, value in _LINE.findall(answer.text):
        found[name] = found.get(name, 0.0) + float(value)  # summed over labels, such as finish reasons
    return found


class MetricsWatch:
    """Keeps the counters of a run's servers as events: at the start, every minute, at the end.

    An async context manager.
    """

    def __init__(self, endpoints: Iterable[Endpoint], teller: Teller) -> None:
        self._endpoints = {each.base_url: each for each in endpoints if each.provider == "openai"}
        self._teller = teller

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)
        await self._tell()

    async def _watch(self) -> None:
        while True:
            await self._tell()
            await asyncio.sleep(EVERY_S)

    async def _tell(self) -> None:
        for base_url, endpoint in self._endpoints.items():
            found = await asyncio.to_thread(ask_metrics, endpoint)
            if found:
                self._teller.tell("metrics", base_url, metrics=found, model=endpoint.model)


def _root(endpoint: Endpoint) -> str:
    return endpoint.base_url.rstrip("/").removesuffix("/v1")
