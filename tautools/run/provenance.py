"""What is only observed about a run: versions, git revision, endpoints, served lengths, certificates, server counters.

It does not enter the setting id. A mix of it under one id is flagged, never refused.
"""

import asyncio
import contextlib
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, TypeAlias

import tautools
from tautools.bench.types import Domain
from tautools.errors import ModelCallError
from tautools.files import ensure_folder, write_atomic
from tautools.http import HttpResponse, http_get
from tautools.llm.types import Endpoint
from tautools.run.ledger import EventSink
from tautools.servers.registry import Registry
from tautools.shell import ask_git

EVERY_S = 60.0
TIMEOUT_S = 2.0

_STORED_METRICS = (
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
_LINE = re.compile(rf"^vllm:({'|'.join(_STORED_METRICS)})(?:\{{.*\}})? (\S+)$", re.MULTILINE)


def ask_version(endpoint: Endpoint) -> str | None:
    """Return the version that a server reports, or None when it does not."""
    try:
        answer = _ask(endpoint, "version")
        return str(answer.json()["version"]) if answer.status == 200 else None
    except (ModelCallError, ValueError, KeyError, TypeError):
        return None


def ask_metrics(endpoint: Endpoint) -> dict[str, float]:
    """Return a server's main counters and gauges by vLLM's names without `vllm:`; empty when it has none."""
    metrics: dict[str, float] = defaultdict(float)
    with contextlib.suppress(ModelCallError):
        for name, value in _LINE.findall(_ask(endpoint, "metrics").text):
            metrics[name] += float(value)  # summed over labels, such as finish reasons
    return metrics


def _ask(endpoint: Endpoint, page: str) -> HttpResponse:
    root = endpoint.base_url.rstrip("/").removesuffix("/v1")
    return http_get(f"{root}/{page}", key=endpoint.key, timeout_s=TIMEOUT_S)


@contextlib.asynccontextmanager
async def metrics_events(endpoints: Iterable[Endpoint], sink: EventSink) -> AsyncIterator[None]:
    """Store the counters of a run's servers as events: at the start, every minute, at the end of the block.

    A conversation never waits for it; a server without such a page has no events.
    """
    servers = {each.base_url: each for each in endpoints if each.provider == "openai"}

    async def emit() -> None:
        for base_url, endpoint in servers.items():
            if metrics := await asyncio.to_thread(ask_metrics, endpoint):
                sink.emit("metrics", base_url, metrics=metrics, model=endpoint.model)

    async def watch() -> None:
        while True:
            await emit()
            await asyncio.sleep(EVERY_S)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await emit()


_PACKAGES = ("inspect-evals", "inspect-ai", "litellm", "aiohttp", "pydantic")
_COMPARED = ("tautools", "git_revision", "packages", "server_version", "served_length")
"""A server's address may change from run to run without changing what is measured; these may not, silently."""


Endpoints: TypeAlias = "Mapping[str, Sequence[Endpoint]]"
"""Where each part of a run (`agent`, `user`, …) answers."""


def observe(endpoints: Endpoints, domain: Domain) -> dict[str, Any]:
    """Return what can be seen now: never a key."""
    by_role = [(role, endpoint) for role, each in endpoints.items() for endpoint in each]
    return {
        "tautools": tautools.__version__,
        "git_revision": git_revision(Path(tautools.__file__).parent.parent),
        "benchmark": domain.ref.location,
        "packages": {name: next((each.version for each in distributions(name=name)), None) for name in _PACKAGES},
        "endpoints": {role: list(map(_place, each)) for role, each in endpoints.items()},
        "server_version": {role: ask_version(endpoint) for role, endpoint in by_role if endpoint.base_url},
        "served_length": {role: endpoint.max_model_len for role, endpoint in by_role},
        "simulated": sorted({role for role, endpoint in by_role if endpoint.simulated}),
    }


def _place(endpoint: Endpoint) -> dict[str, str]:
    place = {"base_url": endpoint.base_url, "model": endpoint.model, "server": endpoint.name}
    return place | ({"affinity_header": endpoint.affinity_header} if endpoint.affinity_header else {})


def mixed(first: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return one sentence for each compared fact that differs from the one first observed."""
    return [
        f"{name}: {first[name]} before, {now[name]} now"
        for name in _COMPARED
        if name in first and name in now and first[name] != now[name]
    ]


def git_revision(root: Path) -> str | None:
    """Return the revision of the checkout at `root`, with `-dirty` behind it; None when it is not a checkout."""
    if not (root / ".git").exists():
        return None
    revision = ask_git(root, "describe", "--always", "--abbrev=40")
    # `describe --dirty` would take the index's lock, and leave it behind when this process is killed.
    changed = ask_git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{revision}-dirty" if revision and changed else revision


def store_certificates(endpoints: Endpoints, folder: Path, writer: str, *, workspace: Path) -> None:
    """Write the certificates of a run's servers, by role, to `certificates/<writer>.json`, one file for each run.

    What a server was asked for, which vLLM it ran and what its checks found stays known when it is long gone. A server
    that is not registered has none: `null`.
    """
    registry = Registry(workspace)

    def entry(endpoint: Endpoint) -> dict[str, Any]:
        record = registry.find(endpoint.name) if endpoint.name else None
        certificate = record.certificate if record is not None else None
        stored = certificate.model_dump(mode="json") if certificate is not None else None
        return _place(endpoint) | {"certificate": stored}

    entries = {role: list(map(entry, each)) for role, each in endpoints.items() if each}
    if entries:
        path = ensure_folder(folder / "certificates") / f"{writer}.json"
        write_atomic(path, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
