"""The load of servers, read from `/metrics`: requests, KV cache, prefix cache, tokens.

The names are those of vLLM today, which simulated servers use too; the names of older versions are the fall-back.
Counters mean nothing alone: two samples make a rate. Values of several engines behind one address are added up; of
their KV caches the fullest is shown.
"""

import contextlib
import math
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tautools.errors import ModelCallError
from tautools.http import http_get
from tautools.records import ServerRecord
from tautools.servers.checks.target import root_of
from tautools.servers.registry import Registry
from tautools.servers.server import states_of
from tautools.servers.state import Snapshot, State

_METRIC_LINE = re.compile(r"^vllm:(\w+)(?:\{.*\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?\r?$", re.MULTILINE)


def _metric(*names: str, merge: Callable[[list[float]], float] = sum) -> Any:
    """Return a field that is read from `vllm:<name>`, the current name first; `merge` makes one of several engines."""
    return field(default=None, metadata={"names": names, "merge": merge})


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of `/metrics`; None is what this server does not report."""

    at: float
    """On the monotonic clock [s]."""
    running: float | None = _metric("num_requests_running")
    waiting: float | None = _metric("num_requests_waiting")
    kv_usage: float | None = _metric("kv_cache_usage_perc", "gpu_cache_usage_perc", merge=max)
    """Share of the KV cache in use, in [0, 1]."""
    prefix_queries: float | None = _metric(
        "prefix_cache_queries_total", "gpu_prefix_cache_queries_total", "gpu_prefix_cache_queries"
    )
    prefix_hits: float | None = _metric(
        "prefix_cache_hits_total", "gpu_prefix_cache_hits_total", "gpu_prefix_cache_hits"
    )
    prefix_rate: float | None = _metric("gpu_prefix_cache_hit_rate", merge=max)
    """Share of prompt tokens found in the cache, as very old versions report it, in [0, 1]."""
    prompt_tokens: float | None = _metric("prompt_tokens_total")
    output_tokens: float | None = _metric("generation_tokens_total")
    prompt_rate: float | None = _metric("avg_prompt_throughput_toks_per_s")
    """Tokens per second as very old versions report them."""
    output_rate: float | None = _metric("avg_generation_throughput_toks_per_s")
    finished: float | None = _metric("request_success_total", "request_success")
    """Requests that have ended, for whatever reason."""
    preempted: float | None = _metric("num_preemptions_total")

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
    """Read the text form of Prometheus, asked at `at`; lines that are not understood are left out."""
    seen: dict[str, list[float]] = {}
    for name, text_value in _METRIC_LINE.findall(text):
        with contextlib.suppress(ValueError):
            if math.isfinite(value := float(text_value)):
                seen.setdefault(name, []).append(value)
    found = {}
    for each in fields(Sample):
        values = next((seen[name] for name in each.metadata.get("names", ()) if name in seen), None)
        if values is not None:
            found[each.name] = each.metadata["merge"](values)
    return Sample(at, **found)


def server_load(now: Sample, former: Sample | None = None) -> ServerLoad:
    """Return the load that one sample shows, with rates when there is a former one of the same launch.

    A counter that went backwards belongs to a server that was started again; its rate is left out.
    """
    passed_s = now.at - former.at if former is not None else 0.0

    def gain(counter: str) -> float | None:
        later, sooner = getattr(now, counter), getattr(former, counter, None)
        return None if later is None or sooner is None or later < sooner else float(later - sooner)

    def rate(counter: str, reported: float | None) -> float | None:
        gained = gain(counter)
        if gained is not None and passed_s > 0:
            return gained / passed_s
        idle = former is None and not now.busy and getattr(now, counter) is not None
        return 0.0 if idle else reported

    asked, found, hit_rate = gain("prefix_queries"), gain("prefix_hits"), now.prefix_rate
    if asked and found is not None:
        hit_rate = min(1.0, found / asked)
    elif now.prefix_queries and now.prefix_hits is not None:
        hit_rate = now.prefix_hits / now.prefix_queries
    return ServerLoad(
        running=_to_int(now.running),
        waiting=_to_int(now.waiting),
        kv_usage=now.kv_usage,
        prefix_hit_rate=hit_rate,
        prompt_tokens_s=rate("prompt_tokens", now.prompt_rate),
        output_tokens_s=rate("output_tokens", now.output_rate),
        preempted=_to_int(now.preempted),
    )


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
    return _watch(server_states(workspace), former)


def sample_servers(workspace: Path) -> list[WatchedServer]:
    """Return what one look shows; when one is at work all are asked twice, so that the rates are known."""
    states = server_states(workspace)
    first = _watch(states)
    if not any(each.sample is not None and each.sample.busy for each in first):
        return first
    time.sleep(BETWEEN_SAMPLES_S)
    return _watch(states, first)


def _watch(
    states: Sequence[tuple[ServerRecord, Snapshot]], former: Sequence[WatchedServer] = ()
) -> list[WatchedServer]:
    """Ask all that answer for their load, side by side, so that one that hangs delays none."""
    before = {(each.record.name, each.record.alias): each for each in former}
    asked = [record for record, now in states if now.state in _ANSWERING_STATES or now.stage == "answering"]
    with ThreadPoolExecutor(max_workers=min(32, len(asked) or 1)) as pool:
        found = pool.map(lambda record: ask_metrics(record.base_url), asked)
        samples = {record.name: sample for record, sample in zip(asked, found, strict=True)}
    watched = []
    for record, snapshot in states:
        sample, old = samples.get(record.name), before.get((record.name, record.alias))
        last = old.sample if old is not None else None
        if sample is not None:
            watched.append(WatchedServer(record, snapshot, sample, server_load(sample, last), health_age_s=0.0))
        elif old is not None and last is not None:
            watched.append(WatchedServer(record, snapshot, last, old.load, health_age_s=time.monotonic() - last.at))
        else:
            age = 0.0 if snapshot.state is State.READY else None
            watched.append(WatchedServer(record, snapshot, health_age_s=age))
    return watched
