"""The load of servers, read from `/metrics`: requests, KV cache, prefix cache, tokens.

The names are those of vLLM today, which simulated servers use too; the names of older versions are the fall-back.
Counters mean nothing alone: two samples make a rate. Values of several engines behind one address are added up; of
their KV caches the fullest is shown.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tautools.errors import ModelCallError
from tautools.http import http_get
from tautools.servers.checks.target import root_of
from tautools.servers.registry import Registry
from tautools.servers.server import states_of
from tautools.servers.state import Snapshot, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.records import ServerRecord


_METRIC_LINE = re.compile(r"^vllm:(?P<name>\w+)(?:\{.*\})?\s+(?P<value>\S+)(?:\s+-?\d+)?$")

_METRIC_NAMES = {
    "running": ("num_requests_running",),
    "waiting": ("num_requests_waiting",),
    "kv_usage": ("kv_cache_usage_perc", "gpu_cache_usage_perc"),
    "prefix_queries": ("prefix_cache_queries_total", "gpu_prefix_cache_queries_total", "gpu_prefix_cache_queries"),
    "prefix_hits": ("prefix_cache_hits_total", "gpu_prefix_cache_hits_total", "gpu_prefix_cache_hits"),
    "prefix_rate": ("gpu_prefix_cache_hit_rate",),
    "prompt_tokens": ("prompt_tokens_total",),
    "output_tokens": ("generation_tokens_total",),
    "prompt_rate": ("avg_prompt_throughput_toks_per_s",),
    "output_rate": ("avg_generation_throughput_toks_per_s",),
    "finished": ("request_success_total", "request_success"),
    "preempted": ("num_preemptions_total",),
}
"""What is read, by its names without `vllm:`, the current one first."""

_TAKE_MAX = {"kv_usage", "prefix_rate"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of `/metrics`; None is what this server does not report."""

    at: float
    """On the monotonic clock [s]."""
    running: float | None = None
    """Requests being answered."""
    waiting: float | None = None
    """Requests in the queue."""
    kv_usage: float | None = None
    """Share of the KV cache in use, in [0, 1]."""
    prefix_queries: float | None = None
    prefix_hits: float | None = None
    prefix_rate: float | None = None
    """Share of prompt tokens found in the cache, as very old versions report it, in [0, 1]."""
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    prompt_rate: float | None = None
    """Tokens per second as very old versions report them."""
    output_rate: float | None = None
    finished: float | None = None
    """Requests that have ended, for whatever reason."""
    preempted: float | None = None

    @property
    def busy(self) -> bool:
        """Whether a request is being answered or waits."""
        return bool(self.running or self.waiting)

    @property
    def work(self) -> tuple[float | None, ...]:
        """What grows with each request, so that two equal values mean: nothing was done between them."""
        return (self.finished, self.prompt_tokens, self.output_tokens)

    @property
    def is_vllm(self) -> bool:
        """Whether the answer held any of vLLM's metrics."""
        return self.running is not None or self.finished is not None


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """How much a server has to do, as it is shown."""

    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    """Share of the KV cache in use, in [0, 1]."""
    prefix_hit_rate: float | None = None
    """Share of prompt tokens found in the prefix cache, in [0, 1]: between the samples, else since the start."""
    prompt_tokens_s: float | None = None
    """Prompt tokens per second between the samples."""
    output_tokens_s: float | None = None
    """Generated tokens per second between the samples."""
    preempted: int | None = None
    """Requests put back since the start for lack of KV cache."""


def ask_metrics(base_url: str, *, timeout_s: float = 3.0) -> Sample | None:
    """Return a reading of the server's `/metrics`; None when it does not answer or reports nothing of vLLM's.

    The key is not sent: vLLM answers this without one.
    """
    try:
        answer = http_get(f"{root_of(base_url)}/metrics", timeout_s=timeout_s)
    except ModelCallError:
        return None
    if answer.status != 200:
        return None
    sample = parse_metrics(answer.text, at=time.monotonic())
    return sample if sample.is_vllm else None


def parse_metrics(text: str, *, at: float) -> Sample:
    """Read the text form of Prometheus; lines that are not understood are left out.

    Parameters
    ----------
    text : str
        The answer of `/metrics`.
    at : float
        When it was asked, on the monotonic clock [s].
    """
    wanted = {name: field for name, names in _METRIC_NAMES.items() for name in names}
    seen: dict[str, list[float]] = {}
    for line in text.splitlines():
        match = _METRIC_LINE.match(line) if line.startswith("vllm:") else None
        if match is None or match["name"] not in wanted:
            continue
        with contextlib.suppress(ValueError):
            if math.isfinite(value := float(match["value"])):
                seen.setdefault(match["name"], []).append(value)
    fields = {}
    for name, names in _METRIC_NAMES.items():
        values = next((seen[each] for each in names if each in seen), None)
        if values is not None:
            fields[name] = max(values) if name in _TAKE_MAX else sum(values)
    return Sample(at, **fields)


def server_load(now: Sample, former: Sample | None = None) -> ServerLoad:
    """Return the load that one sample shows, with rates when there is a former one of the same launch.

    A counter that went backwards belongs to a server that was started again; its rate is left out.
    """
    prompts = _rate(now, former, "prompt_tokens")
    outputs = _rate(now, former, "output_tokens")
    if former is None and not now.busy:
        prompts, outputs = (None if value is None else 0.0 for value in (now.prompt_tokens, now.output_tokens))
    return ServerLoad(
        running=_to_int(now.running),
        waiting=_to_int(now.waiting),
        kv_usage=now.kv_usage,
        prefix_hit_rate=_hit_rate(now, former),
        prompt_tokens_s=prompts if prompts is not None else now.prompt_rate,
        output_tokens_s=outputs if outputs is not None else now.output_rate,
        preempted=_to_int(now.preempted),
    )


def _hit_rate(now: Sample, former: Sample | None) -> float | None:
    if now.prefix_queries is None or now.prefix_hits is None:
        return now.prefix_rate
    if former is not None and former.prefix_queries is not None and former.prefix_hits is not None:
        asked = now.prefix_queries - former.prefix_queries
        if asked > 0:
            return min(1.0, max(0.0, (now.prefix_hits - former.prefix_hits) / asked))
    return now.prefix_hits / now.prefix_queries if now.prefix_queries > 0 else None


def _rate(now: Sample, former: Sample | None, field: str) -> float | None:
    if former is None or now.at <= former.at:
        return None
    later, sooner = getattr(now, field), getattr(former, field)
    if later is None or sooner is None or later < sooner:
        return None
    return float((later - sooner) / (now.at - former.at))


def _to_int(value: float | None) -> int | None:
    return None if value is None else round(value)


_ANSWERING_STATES = {State.READY, State.DEGRADED, State.VERIFYING, State.UNKNOWN}

BETWEEN_SAMPLES_S = 0.3
"""Between the two samples of a single look; generation counters grow with each step of the engine, a few ms."""


@dataclass(frozen=True, slots=True)
class WatchedServer:
    """One server at one look."""

    record: ServerRecord
    snapshot: Snapshot
    sample: Sample | None = None
    """The last reading of its `/metrics`; an older look's when it did not answer this time."""
    load: ServerLoad = field(default_factory=ServerLoad)
    health_age_s: float | None = None
    """Since it last reported its load [s]; 0 when it has just done so, None when it never did."""


def server_states(workspace: Path) -> list[tuple[ServerRecord, Snapshot]]:
    """Return every registered server with its state now."""
    registry = Registry(workspace)
    records = registry.list()
    return list(zip(records, states_of(records, registry), strict=True))


def poll_servers(workspace: Path, former: Sequence[WatchedServer] = ()) -> list[WatchedServer]:
    """Return every registered server with its state and load; rates are those since the former look.

    Parameters
    ----------
    workspace : Path
        Where they are registered.
    former : sequence of WatchedServer, optional
        What the last look returned. A server that does not answer now keeps its load from then, with its age.
    """
    states = server_states(workspace)
    before = {(each.record.name, each.record.alias): each for each in former}
    answering = [
        record for record, snapshot in states if snapshot.state in _ANSWERING_STATES or snapshot.stage == "answering"
    ]
    samples = _sample_all(answering)
    return [
        _watched_server(record, snapshot, samples.get(record.name), before.get((record.name, record.alias)))
        for record, snapshot in states
    ]


def sample_servers(workspace: Path) -> list[WatchedServer]:
    """Return what one look shows; servers that are at work are asked twice, so that their rates are known."""
    first = poll_servers(workspace)
    busy = [each.record for each in first if each.sample is not None and each.sample.busy]
    if not busy:
        return first
    oldest = min(each.sample.at for each in first if each.sample is not None)
    time.sleep(max(0.0, oldest + BETWEEN_SAMPLES_S - time.monotonic()))
    second = _sample_all(busy)
    return [
        _watched_server(each.record, each.snapshot, second[each.record.name], each)
        if each.record.name in second
        else each
        for each in first
    ]


def _sample_all(records: Sequence[ServerRecord]) -> Mapping[str, Sample]:
    """Ask all side by side, so that one that hangs delays none."""
    if not records:
        return {}
    with ThreadPoolExecutor(max_workers=min(32, len(records))) as pool:
        samples = pool.map(lambda record: ask_metrics(record.base_url), records)
        return {record.name: sample for record, sample in zip(records, samples, strict=True) if sample is not None}


def _watched_server(
    record: ServerRecord, snapshot: Snapshot, sample: Sample | None, before: WatchedServer | None
) -> WatchedServer:
    earlier = before.sample if before is not None else None
    if sample is not None:
        return WatchedServer(record, snapshot, sample, server_load(sample, earlier), health_age_s=0.0)
    if earlier is None or before is None:
        return WatchedServer(record, snapshot, health_age_s=0.0 if snapshot.state is State.READY else None)
    return WatchedServer(record, snapshot, earlier, before.load, health_age_s=time.monotonic() - earlier.at)
