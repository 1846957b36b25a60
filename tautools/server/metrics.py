"""What a server says of its load on `/metrics`: requests, KV cache, prefix cache, tokens.

The names are those of vLLM today, which simulated servers use too; the names of older versions are the fall-back.
Counters say nothing alone: two samples make a rate. Values of several engines behind one address are added up; of their
KV caches the fullest is told.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.errors import ModelCallError
from tautools.server.proof.light import root_of

if TYPE_CHECKING:
    from tautools.http import Http

__all__ = ["Load", "Sample", "ask_metrics", "load", "parse_metrics"]

_LINE = re.compile(r"^vllm:(?P<name>\w+)(?:\{.*\})?\s+(?P<value>\S+)(?:\s+-?\d+)?$")

_NAMES = {
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

_FULLEST = {"kv_usage", "prefix_rate"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of `/metrics`; None is what this server does not tell."""

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
    """Share of prompt tokens found in the cache, as very old versions tell it, in [0, 1]."""
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    prompt_rate: float | None = None
    """Tokens per second as very old versions tell them."""
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
    def told(self) -> bool:
        """Whether the answer held anything of vLLM's at all."""
        return self.running is not None or self.finished is not None


@dataclass(frozen=True, slots=True)
class Load:
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


def ask_metrics(base_url: str, *, http: Http, timeout_s: float = 3.0) -> Sample | None:
    """Return a reading of the server's `/metrics`; None when it does not answer or tells nothing of vLLM's.

    The key is not sent: vLLM answers this without one.
    """
    try:
        answer = http.get(f"{root_of(base_url)}/metrics", timeout_s=timeout_s)
    except ModelCallError:
        return None
    if answer.status != 200:
        return None
    sample = parse_metrics(answer.text, at=time.monotonic())
    return sample if sample.told else None


def parse_metrics(text: str, *, at: float) -> Sample:
    """Read the text form of Prometheus; lines that are not understood are left out.

    Parameters
    ----------
    text : str
        The answer of `/metrics`.
    at : float
        When it was asked, on the monotonic clock [s].
    """
    wanted = {name: field for field, names in _NAMES.items() for name in names}
    seen: dict[str, list[float]] = {}
    for line in text.splitlines():
        found = _LINE.match(line) if line.startswith("vllm:") else None
        if found is None or found["name"] not in wanted:
            continue
        value = _number(found["value"])
        if value is not None:
            seen.setdefault(found["name"], []).append(value)
    fields = {}
    for field, names in _NAMES.items():
        values = next((seen[name] for name in names if name in seen), None)
        if values is not None:
            fields[field] = max(values) if field in _FULLEST else sum(values)
    return Sample(at, **fields)


def load(now: Sample, former: Sample | None = None) -> Load:
    """Return the load that one sample shows, with rates when there is a former one of the same launch.

    A counter that went backwards belongs to a server that was started anew; its rate is left out.
    """
    prompts = _rate(now, former, "prompt_tokens")
    outputs = _rate(now, former, "output_tokens")
    if former is None and not now.busy:
        prompts, outputs = (None if value is None else 0.0 for value in (now.prompt_tokens, now.output_tokens))
    return Load(
        running=_whole(now.running),
        waiting=_whole(now.waiting),
        kv_usage=now.kv_usage,
        prefix_hit_rate=_hit_rate(now, former),
        prompt_tokens_s=prompts if prompts is not None else now.prompt_rate,
        output_tokens_s=outputs if outputs is not None else now.output_rate,
        preempted=_whole(now.preempted),
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


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
