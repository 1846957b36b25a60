"""Latencies and tokens of model calls by role, expert and model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tautools.stats import Histogram, LatencySummary, histogram, summarize

if TYPE_CHECKING:
    import pandas as pd


class Metric(NamedTuple):
    """What is measured of a call."""

    column: str
    """Column of the call frame [s]."""
    name: str
    meaning: str
    unit: str = "s"
    source: str = ""
    """Where its times come from; empty when each call says so itself."""

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
    Metric("server_queue_s", "server queue", "as the server reports it", source="server"),
    Metric("server_ttft_s", "server TTFT", "as the server reports it, from scheduling", source="server"),
    Metric("server_generation_s", "server generation", "as the server reports it", source="server"),
)


TURN = Metric("turn_s", "turn", "from a customer's message to the agent's next words", source="calls")


@dataclass(frozen=True, slots=True)
class Timing:
    """One metric of one group of calls, or of the turns of one agent model."""

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
    def names(self) -> list[str]:
        """Role, expert where there is one, and model."""
        return [self.role, *([self.expert] if self.expert else []), self.model]

    def timing(self, column: str) -> Timing:
        """Return the timing of one metric; of n = 0 when nothing was measured."""
        return next(each for each in self.timings if each.metric.column == column)


def call_groups(calls: pd.DataFrame) -> list[CallGroup]:
    """Return one group for each role, expert and model, agents first, in the order of their names."""
    order = {"agent": 0, "user": 1}
    groups = [
        _call_group(str(role), str(expert), str(model), part)
        for (role, expert, model), part in calls.groupby(["role", "expert", "model"])
    ]
    return sorted(groups, key=lambda group: (order.get(group.role, 2), group.role, group.expert, group.model))


def _call_group(role: str, expert: str, model: str, calls: pd.DataFrame) -> CallGroup:
    answered = calls[calls["fault"] == ""]
    return CallGroup(
        role=role,
        expert=expert,
        model=model,
        answered=len(answered),
        simulated=bool(calls["simulated"].any()),
        timings=tuple(time_metric(metric, answered) for metric in METRICS),
        tokens=Tokens(
            prompt=int(answered["prompt_tokens"].astype(float).sum()),
            cached=int(answered["cached_tokens"].astype(float).sum()),
            output=int(answered["output_tokens"].astype(float).sum()),
            calls_without_usage=int(answered["output_tokens"].isna().sum()),
            calls_without_cached=int(answered["cached_tokens"].isna().sum()),
        ),
        faults=dict(sorted(Counter(calls.loc[calls["fault"] != "", "fault"]).items())),
    )


def time_metric(metric: Metric, rows: pd.DataFrame) -> Timing:
    """Summarize one metric over the rows that have it."""
    column = rows[metric.column].dropna().astype(float)
    values = column.tolist()
    sources = Counter([metric.source] * len(values) if metric.source else rows.loc[column.index, "source"])
    mixed = ", ".join(f"{source} {number}" for source, number in sorted(sources.items()))
    source = next(iter(sources), "–") if len(sources) < 2 else mixed
    return Timing(metric, summarize(values), histogram(values) if values else None, source)
