"""Records as pandas frames: finished conversations, model calls, what a customer waits for; times and tokens of calls.

Each conversation stands once, however many cells are views on it: frames are made from the cells that are not nested.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tautools.llm.types import REFUSAL_CHECK
from tautools.records import CallRecord, Role
from tautools.report.cells import ReportCell, widest_cells
from tautools.run import read_calls
from tautools.stats import Histogram, LatencySummary, histogram, summarize, time_per_output_token_s

if TYPE_CHECKING:
    import pandas as pd


_KEY_COLUMNS = ["env", "strategy", "agent_model", "setting_id", "task_id", "trial"]
_CALL_COLUMNS = [
    *("folder", *_KEY_COLUMNS, "turn", "step", "attempt", "role", "expert", "model", "source", "simulated", "fault"),
    *("started_at", "queue_s", "ttft_s", "decode_s", "tpot_s", "e2e_s"),
    *("server_queue_s", "server_prefill_s", "server_generation_s", "prompt_tokens", "cached_tokens", "output_tokens"),
    *("cold", "in_flight", "replicas"),
]
_CONVERSATION_COLUMNS = [
    *("folder", *_KEY_COLUMNS, "outcome", "reward", "started_at", "finished_at", "duration_s"),
    *("agent_calls", "user_calls", "expert_calls", "judge_calls", "tool_calls"),
    *("prompt_tokens", "cached_tokens", "output_tokens", "writer", "simulated"),
]
_TURN_COLUMNS = [*_KEY_COLUMNS, "turn", "requests", "turn_s", "simulated"]
_CONVERSATION_ROLES = {Role.AGENT, Role.USER, Role.JUDGE, Role.EXPERT}


def conversation_frame(cells: Sequence[ReportCell]) -> pd.DataFrame:
    """Return one row for each finished conversation, with what the ledger says about it."""
    import pandas as pd

    rows = [
        row.model_dump(mode="json") | {"duration_s": row.duration_s} | _cell_columns(cell)
        for cell in widest_cells(cells)
        for row in cell.rows
    ]
    return pd.DataFrame(rows, columns=_CONVERSATION_COLUMNS)


def call_frame(cells: Sequence[ReportCell]) -> pd.DataFrame:
    """Return one row for each attempt at a model request of the cells' conversations, failed ones too.

    Requests of conversations that did not finish are among them: the model did the work. Probes are not. `tpot_s` is
    `time_per_output_token_s` [s].
    """
    import pandas as pd

    rows = [_call_columns(call) | _cell_columns(cell) for cell in widest_cells(cells) for call in calls_of(cell)]
    return pd.DataFrame(rows, columns=_CALL_COLUMNS)


def turn_frame(calls: pd.DataFrame, cells: Sequence[ReportCell]) -> pd.DataFrame:
    """Return what a customer waits for: one row for each turn of the agent in a finished conversation.

    `turn_s` runs from the first request of the turn to the end of its last one: tool loops, experts, retries and waits
    between them are in it [s]. Requests outside the time of the finished conversation belong to a lost attempt. `calls`
    is the `call_frame` of the same cells.
    """
    import pandas as pd

    finished = [
        {"setting_id": cell.setting_id, "task_id": row.task_id, "trial": row.trial, "began": row.started_at,
         "ended": row.finished_at}
        for cell in widest_cells(cells) for row in cell.rows
    ]  # fmt: skip
    agent = calls[calls["role"].isin([Role.AGENT.value, Role.EXPERT.value])]
    if agent.empty or not finished:
        return pd.DataFrame(columns=_TURN_COLUMNS)
    joined = agent.merge(pd.DataFrame(finished), on=["setting_id", "task_id", "trial"])
    inside = joined[joined["started_at"].between(joined["began"] - 1e-3, joined["ended"] + 1e-3)]
    if inside.empty:
        return pd.DataFrame(columns=_TURN_COLUMNS)
    spent_s = inside[["queue_s", "e2e_s"]].fillna(0.0).sum(axis=1)
    turns = (
        inside.assign(answered_at=inside["started_at"] + spent_s)
        .groupby([*_KEY_COLUMNS, "turn"], sort=True)
        .agg(
            requests=("started_at", "size"),
            first=("started_at", "min"),
            last=("answered_at", "max"),
            simulated=("simulated", "any"),
        )
    )
    return turns.assign(turn_s=turns["last"] - turns["first"]).reset_index()[_TURN_COLUMNS]


def _cell_columns(cell: ReportCell) -> dict[str, Any]:
    return {
        "folder": str(cell.folder),
        "env": cell.setting.env,
        "strategy": cell.setting.strategy.value,
        "agent_model": cell.setting.agent.model,
        "setting_id": cell.setting_id,
    }


def calls_of(cell: ReportCell) -> Iterator[CallRecord]:
    """Yield the recorded calls of a cell's conversations, failed ones too; probes are not among them."""
    tasks = set(cell.tasks)
    for call in read_calls(cell.folder):
        inside = call.setting_id in {"", cell.setting_id} and call.task_id in tasks and call.trial < cell.num_trials
        if inside and call.role in _CONVERSATION_ROLES and call.purpose != REFUSAL_CHECK:
            yield call


def _call_columns(call: CallRecord) -> dict[str, Any]:
    tpot_s = time_per_output_token_s(call.decode_s, call.output_tokens)
    return call.model_dump(mode="json", exclude={"itl_s"}) | {"tpot_s": tpot_s}


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
    Metric("decode_s", "decode", "from the first token to the last, which is the end token"),
    Metric("tpot_s", "TPOT", "decode time over output tokens after the first, the end token counted", unit="ms"),
    Metric("e2e_s", "E2E", "from sending the request to the end of the answer"),
    Metric("queue_s", "own queue", "wait for a free slot here, before sending", unit="ms"),
    Metric("server_queue_s", "server queue", "as the server reports it", source="server", unit="ms"),
    Metric("server_prefill_s", "server prefill", "from scheduling to the first token, by the server", source="server"),
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
    cold: int
    """Answered calls that were the first ones to a cold server."""
    warm_timings: tuple[Timing, ...]
    """The same metrics without those."""
    tokens: Tokens
    faults: Mapping[str, int]
    """Class of the fault to its count; faulted calls enter no figure."""

    def timing(self, column: str) -> Timing:
        """Return the timing of one metric; of n = 0 when nothing was measured."""
        return next(each for each in self.timings if each.metric.column == column)


def call_groups(calls: pd.DataFrame) -> list[CallGroup]:
    """Return one group for each role, expert and model, agents first, in the order of their names."""
    groups = [
        _call_group(str(role), str(expert), str(model), part)
        for (role, expert, model), part in calls.groupby(["role", "expert", "model"])
    ]
    return sorted(groups, key=_caller_order)


def _caller_order(group: CallGroup | LoadGroup) -> tuple[int, str, str, str]:
    return {"agent": 0, "user": 1}.get(group.role, 2), group.role, group.expert, group.model


def _call_group(role: str, expert: str, model: str, calls: pd.DataFrame) -> CallGroup:
    answered = calls[calls["fault"] == ""]
    warm = answered[~answered["cold"].astype(bool)]
    return CallGroup(
        role=role,
        expert=expert,
        model=model,
        answered=len(answered),
        simulated=bool(calls["simulated"].any()),
        timings=tuple(time_metric(metric, answered) for metric in METRICS),
        cold=len(answered) - len(warm),
        warm_timings=tuple(time_metric(metric, warm) for metric in METRICS),
        tokens=Tokens(
            prompt=int(answered["prompt_tokens"].astype(float).sum()),
            cached=int(answered["cached_tokens"].astype(float).sum()),
            output=int(answered["output_tokens"].astype(float).sum()),
            calls_without_usage=int(answered["output_tokens"].isna().sum()),
            calls_without_cached=int(answered["cached_tokens"].isna().sum()),
        ),
        faults=dict(sorted(Counter(calls.loc[calls["fault"] != "", "fault"]).items())),
    )


@dataclass(frozen=True, slots=True)
class LoadGroup:
    """Answered calls of one caller that met about the same load, without those to a cold server."""

    role: str
    expert: str
    model: str
    replicas: int
    """Addresses that the role had."""
    most: int
    """The calls had more than half as many requests of the run in flight at their address, and at most so many."""
    simulated: bool
    n: int
    timings: Mapping[str, Timing]
    """By column: TTFT, TPOT and E2E."""

    @property
    def in_flight(self) -> str:
        """The range of requests in flight, such as `1`, `2`, `3–4` or `5–8`."""
        return str(self.most) if self.most < 3 else f"{self.most // 2 + 1}–{self.most}"


LOAD_COLUMNS = ("ttft_s", "tpot_s", "e2e_s")


def load_groups(calls: pd.DataFrame) -> list[LoadGroup]:
    """Return the calls whose load was recorded by caller, replicas and load, in doubling steps of the load."""
    known = calls[(calls["fault"] == "") & calls["in_flight"].notna() & ~calls["cold"].astype(bool)]
    most = known["in_flight"].map(lambda count: 1 << (int(count) - 1).bit_length()).astype(int)
    shown = [metric for metric in METRICS if metric.column in LOAD_COLUMNS]
    groups = [
        LoadGroup(
            role=str(role),
            expert=str(expert),
            model=str(model),
            replicas=int(part["replicas"].iloc[0]),
            most=int(part["most"].iloc[0]),
            simulated=bool(part["simulated"].any()),
            n=len(part),
            timings={metric.column: time_metric(metric, part) for metric in shown},
        )
        for (role, expert, model, *_), part in known.assign(most=most).groupby(
            ["role", "expert", "model", "replicas", "most"]
        )
    ]
    return sorted(groups, key=lambda group: (*_caller_order(group), group.replicas, group.most))


def time_metric(metric: Metric, rows: pd.DataFrame) -> Timing:
    """Summarize one metric over the rows that have it."""
    column = rows[metric.column].dropna().astype(float)
    values = column.tolist()
    sources = Counter([metric.source] * len(values) if metric.source else rows.loc[column.index, "source"])
    mixed = ", ".join(f"{source} {number}" for source, number in sorted(sources.items()))
    source = next(iter(sources), "–") if len(sources) < 2 else mixed
    return Timing(metric, summarize(values), histogram(values) if values else None, source)
