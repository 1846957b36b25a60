"""Latencies by role, expert and model, and the summary and tables of the report on them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.report.formatting import (
    Column,
    Entry,
    Summary,
    Table,
    count,
    number_columns,
    percent,
    plural,
    short_name,
    significant,
    text_columns,
)
from tautools.stats import PERCENTILES, SLA_S, histogram, summarize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from tautools.report.cells import ReportCell
    from tautools.stats import Histogram, LatencySummary

_EMPTY = "n = 0: no model call was recorded."
_SOURCE_NOTE = (
    "Source: `streamed` was measured here chunk by chunk, `wall` around a whole answer (no first token), `server` is "
    "what the server reports. Calls that failed enter no figure; n = 0 means never measured."
)
_TURNS_NOTE = (
    "From the first request of a turn to the end of its last, with tool calls, retries and waits between. "
    "Finished conversations only."
)
_ROWS_NOTE = (
    "Rows of calls/*.jsonl of the planned tasks with a trial below trials and a role of the conversation; figures take "
    "those without a fault."
)
_SUMMARY_COLUMNS = number_columns("n", *(f"p{percentile}" for percentile in PERCENTILES), f"under {SLA_S:g} s")


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
        timings=tuple(_timing(metric, answered) for metric in METRICS),
        tokens=Tokens(
            prompt=int(answered["prompt_tokens"].astype(float).sum()),
            cached=int(answered["cached_tokens"].astype(float).sum()),
            output=int(answered["output_tokens"].astype(float).sum()),
            calls_without_usage=int(answered["output_tokens"].isna().sum()),
            calls_without_cached=int(answered["cached_tokens"].isna().sum()),
        ),
        faults=dict(sorted(Counter(calls.loc[calls["fault"] != "", "fault"]).items())),
    )


def _timing(metric: Metric, answered: pd.DataFrame) -> Timing:
    """Summarize one metric over the calls that have it."""
    column = answered[metric.column].dropna().astype(float)
    values = column.tolist()
    sources = Counter(["server"] * len(values) if metric.server else answered.loc[column.index, "source"])
    mixed = ", ".join(f"{source} {number}" for source, number in sorted(sources.items()))
    source = next(iter(sources), "–") if len(sources) < 2 else mixed
    return Timing(metric, summarize(values), histogram(values) if values else None, source)


def latency_table(groups: Sequence[CallGroup]) -> Table:
    """Return every metric of every role and model with its percentiles and the share under 5 s."""
    rows = tuple(
        (
            *_caller(group),
            f"{timing.metric.name} [{timing.metric.unit}]",
            tuple(timing.source.split(", ")),
            *_summary_entries(timing.summary, timing.metric.scale),
        )
        for group in groups
        for timing in group.timings
        if timing.summary.n or not timing.metric.server
    )
    used = [metric for metric in METRICS if any(group.timing(metric.column).summary.n for group in groups)]
    meanings = "; ".join(f"{metric.name}: {metric.meaning}" for metric in used)
    return Table(
        "Latency by role and model",
        (*text_columns("role", "model", "what", "source"), *_SUMMARY_COLUMNS),
        rows,
        (*([f"{meanings}."] if used else []), _SOURCE_NOTE),
        _EMPTY,
    )


def turn_table(turns: pd.DataFrame) -> Table:
    """Return what a customer waits for: from its message to the agent's next words, tool calls included."""
    rows = tuple(
        (
            _marked(short_name(str(model)), part),
            *_summary_entries(summarize(part["turn_s"].tolist())),
            significant(float(part["requests"].mean())),
        )
        for model, part in turns.groupby("agent_model")
    )
    return Table(
        "What a customer waits for: one turn of the agent [s]",
        (*text_columns("agent model"), *_SUMMARY_COLUMNS, Column("requests a turn")),
        rows,
        (_TURNS_NOTE,),
        "n = 0: no turn of a finished conversation was recorded.",
    )


def setting_table(calls: pd.DataFrame) -> Table:
    """Return the agent's E2E for every env, strategy and model."""
    agent = calls[(calls["role"] == "agent") & (calls["fault"] == "")]
    groups = [
        ((str(env), str(strategy), short_name(str(model))), str(setting_id), part)
        for (env, strategy, model, setting_id), part in agent.groupby(["env", "strategy", "agent_model", "setting_id"])
    ]
    heads = [head for head, _, _ in groups]
    rows = tuple(
        (
            *head[:2],
            _marked(head[2] if heads.count(head) == 1 else f"{head[2]} [{setting_id[:8]}]", part),
            *_summary_entries(summarize(part["e2e_s"].dropna().tolist())),
        )
        for head, setting_id, part in groups
    )
    columns = (*text_columns("env", "strategy", "model"), *_SUMMARY_COLUMNS)
    return Table("The agent's requests by setting: E2E [s]", columns, rows, (), _EMPTY)


def token_table(groups: Sequence[CallGroup]) -> Table:
    """Return token totals, answered calls and faults of every role and model."""
    rows = tuple(
        (
            *_caller(group),
            count(group.answered),
            count(group.tokens.prompt),
            _cached_entry(group),
            count(group.tokens.output),
            count(group.tokens.calls_without_usage),
            ", ".join(f"{fault} {count(number)}" for fault, number in group.faults.items()) or "0",
        )
        for group in groups
    )
    names = ("calls answered", "prompt tokens", "of them cached", "output tokens", "without usage", "calls failed")
    note = "Totals over answered calls, also those of conversations that did not finish."
    columns = (*text_columns("role", "model"), *number_columns(*names))
    return Table("Tokens by role and model", columns, rows, (note,), _EMPTY)


def call_source_table(cells: Sequence[ReportCell], calls: pd.DataFrame) -> Table:
    """Return which folders the calls come from and how many of their rows were used."""
    used = calls["folder"].value_counts()
    rows = tuple(
        (cell.short_path, str(cell.num_trials), str(len(cell.tasks)), count(int(used.get(str(cell.folder), 0))))
        for cell in cells
    )
    columns = (*text_columns("folder"), *number_columns("trials", "tasks", "calls used"))
    return Table("Folders and rows", columns, rows, (_ROWS_NOTE,), _EMPTY)


def _summary_entries(summary: LatencySummary, scale: float = 1.0) -> tuple[str, ...]:
    """Write a summary in units of 1/scale s; only what is shown in seconds is compared with the threshold."""
    values = (summary.percentiles_s.get(each) for each in PERCENTILES)
    scaled = (significant(None if value is None else value * scale) for value in values)
    return count(summary.n), *scaled, percent(summary.share_under) if scale == 1.0 else "–"


def _caller(group: CallGroup) -> tuple[Entry, Entry]:
    """Write whose calls they are: the role with an expert's name below it, and the model."""
    return (group.role, group.expert), (short_name(group.model), "SIMULATED" if group.simulated else "")


def _marked(name: str, rows: pd.DataFrame) -> Entry:
    """Write a model's name, marked when any of its rows is simulated."""
    return name, "SIMULATED" if rows["simulated"].any() else ""


def _cached_entry(group: CallGroup) -> Entry:
    tokens = group.tokens
    if group.answered and tokens.calls_without_cached == group.answered:
        return "not reported"
    return count(tokens.cached), percent(tokens.cached / tokens.prompt if tokens.prompt else None)


def latency_summary(calls: pd.DataFrame, turns: pd.DataFrame, workspace: str) -> Summary:
    """Return how long the agent's requests take and what a customer waits for, in two sentences."""
    if calls.empty:
        return Summary(
            f"There are no model calls under {workspace}/results.",
            "Next: run a cell (`tautools run --help` shows how) or a sweep (`tautools sweep run NAME`).",
        )
    return Summary(_request_sentence(calls), _turn_sentence(turns), bool(calls["simulated"].any()))


def _request_sentence(calls: pd.DataFrame) -> str:
    answered = calls[calls["fault"] == ""]
    failed = len(calls) - len(answered)
    lost = f"{plural(failed, 'further call')} failed and {'is' if failed == 1 else 'are'} left out"
    agent = answered[answered["role"] == "agent"]
    times_s = agent["e2e_s"].dropna().tolist()
    models = agent["model"].nunique()
    if not times_s:
        return f"No request of an agent was answered (n = 0); {lost}."
    summary = summarize(times_s)
    over = f"{plural(models, 'agent model')}, " if models > 1 else ""
    return (
        f"The agent's requests took {significant(summary.percentiles_s[50])} s at the median and "
        f"{significant(summary.percentiles_s[99])} s at the 99th percentile ({over}{plural(summary.n, 'request')}, "
        f"{percent(summary.share_under)} under {SLA_S:g} s); {lost if failed else 'no call failed'}."
    )


def _turn_sentence(turns: pd.DataFrame) -> str:
    if turns.empty:
        return "What a customer waits for is not known: no conversation is finished (n = 0)."
    summary = summarize(turns["turn_s"].tolist())
    return (
        f"A customer waited {significant(summary.percentiles_s[50])} s for the agent's next words at the median and "
        f"{significant(summary.percentiles_s[90])} s at the 90th percentile, tool calls included "
        f"({plural(summary.n, 'turn')}, {percent(summary.share_under)} under {SLA_S:g} s)."
    )
