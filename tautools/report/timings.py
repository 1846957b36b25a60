"""Latencies by role, expert and model: one group of calls, its metrics, its tokens, its faults."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.stats import histogram, summarize

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from tautools.stats import Histogram, LatencySummary

__all__ = ["METRICS", "CallGroup", "Metric", "Timing", "Tokens", "call_groups", "timing"]

SERVER = "server"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is measured of a call."""

    column: str
    """Column of the call frame [s]."""
    name: str
    meaning: str
    unit: str = "s"
    server: bool = False
    """Whether the server reported it; otherwise it was measured here."""

    @property
    def scale(self) -> float:
        """Units in a second."""
        return 1000.0 if self.unit == "ms" else 1.0


METRICS = (
    Metric("ttft_s", "TTFT", "from sending the request to the first token"),
    Metric("decode_s", "decode", "from the first token to the last"),
    Metric("tpot_s", "TPOT", "decode time over output tokens after the first", unit="ms"),
    Metric("e2e_s", "E2E", "from sending the request to the end of the answer"),
    Metric("queue_s", "own queue", "wait for a free slot here, before sending", unit="ms"),
    Metric("server_queue_s", "server queue", "as the server reports it", server=True),
    Metric("server_ttft_s", "server TTFT", "as the server reports it, from scheduling", server=True),
    Metric("server_generation_s", "server generation", "as the server reports it", server=True),
)


@dataclass(frozen=True, slots=True)
class Timing:
    """One metric of one group of calls."""

    metric: Metric
    summary: LatencySummary
    histogram: Histogram | None
    """None when n is 0."""
    source: str
    """Where the times come from, with counts when it is mixed: `streamed`, `wall`, `server`."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Token totals of answered calls; calls whose answer had no usage are counted apart."""

    prompt: int
    cached: int
    output: int
    calls_without_usage: int
    calls_without_cached: int


@dataclass(frozen=True, slots=True)
class CallGroup:
    """Every call of one role, or of one expert, to one model."""

    role: str
    expert: str
    """Which expert, for the role `expert`."""
    model: str
    answered: int
    simulated: bool
    timings: tuple[Timing, ...]
    tokens: Tokens
    faults: Mapping[str, int]
    """Class of the fault to its count; faulted calls enter no figure."""

    @property
    def name(self) -> str:
        """Role, expert and model, as they stand in tables."""
        return ", ".join(part for part in (self.role, self.expert, self.model) if part)

    def timing(self, column: str) -> Timing:
        """Return the timing of one metric; of n = 0 when nothing was measured."""
        return next(each for each in self.timings if each.metric.column == column)


def call_groups(calls: pd.DataFrame) -> list[CallGroup]:
    """Return one group for each role, expert and model, agents first, in the order of their names."""
    order = {"agent": 0, "user": 1}
    groups = [
        _group((str(role), str(expert), str(model)), part)
        for (role, expert, model), part in calls.groupby(["role", "expert", "model"])
    ]
    return sorted(groups, key=lambda group: (order.get(group.role, 2), group.role, group.expert, group.model))


def timing(metric: Metric, answered: pd.DataFrame) -> Timing:
    """Summarize one metric over the calls that have it."""
    values = answered[metric.column].dropna().astype(float)
    sources = Counter(answered.loc[values.index, "source"]) if not metric.server else Counter({SERVER: len(values)})
    return Timing(
        metric,
        summarize(values.tolist()),
        histogram(values.tolist()) if len(values) else None,
        _said(sources, len(values)),
    )


def _group(whose: tuple[str, str, str], part: pd.DataFrame) -> CallGroup:
    role, expert, model = whose
    answered = part[part["fault"] == ""]
    return CallGroup(
        role=role,
        expert=expert,
        model=model,
        answered=len(answered),
        simulated=bool(part["simulated"].any()),
        timings=tuple(timing(metric, answered) for metric in METRICS),
        tokens=Tokens(
            prompt=_total(answered, "prompt_tokens"),
            cached=_total(answered, "cached_tokens"),
            output=_total(answered, "output_tokens"),
            calls_without_usage=int(answered["output_tokens"].isna().sum()),
            calls_without_cached=int(answered["cached_tokens"].isna().sum()),
        ),
        faults=dict(sorted(Counter(part.loc[part["fault"] != "", "fault"]).items())),
    )


def _total(answered: pd.DataFrame, column: str) -> int:
    return int(answered[column].fillna(0).astype(float).sum())


def _said(sources: Mapping[str, int], total: int) -> str:
    if not total:
        return "–"
    if len(sources) == 1:
        return next(iter(sources))
    return ", ".join(f"{source} {number}" for source, number in sorted(sources.items()))
