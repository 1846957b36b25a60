"""The report on latency: what `31_latency.ipynb` shows, one property a cell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.report.base import NOTHING_NEXT, Report
from tautools.report.cells import ReportCell, find_cells, widest_cells
from tautools.report.figures import FigureList, HistogramPanel, ReportFigure, draw_histograms, draw_load
from tautools.report.formatting import Entry, Summary, Table, count, percent, plural, short_name, significant
from tautools.report.frames import (
    METRICS,
    TURN,
    CallGroup,
    LoadGroup,
    Timing,
    call_frame,
    call_groups,
    load_groups,
    time_metric,
    turn_frame,
)
from tautools.stats import PERCENTILES, SLA_S, LatencySummary, summarize

if TYPE_CHECKING:
    import pandas as pd


_SHOWN = ("ttft_s", "decode_s", "tpot_s", "e2e_s")
_EMPTY = "n = 0: no model call was recorded."
_SOURCE_NOTE = (
    "Source: `streamed` was measured here chunk by chunk, `wall` around a whole answer (no first token), `server` is "
    "what the server reports. Calls that failed enter no figure; n = 0 means never measured."
)
_COLD_NOTE = (
    "`warm`: without the calls that were sent before this launch of the server had answered a run (cold): they pay for "
    "what a server makes at its first prompts."
)
_LOAD_NOTE = (
    "In flight: this run's requests at that address when the call was sent, itself included; other runs are not seen. "
    "Calls to a cold server and calls whose load was not recorded are left out."
)
_TURNS_NOTE = (
    "From the first request of a turn to the end of its last, with tool calls, retries and waits between. "
    "Finished conversations only."
)
_ROWS_NOTE = (
    "Rows of calls/*.jsonl of the planned tasks with a trial below trials and a role of the conversation; figures take "
    "those without a fault."
)


@dataclass(frozen=True)
class LatencyReport(Report):
    """Latencies of cells' model calls, ready to be shown and saved."""

    cells: tuple[ReportCell, ...]
    """Those that are not nested: each call counts once."""
    calls: pd.DataFrame
    """Every attempt at a model request, for questions of your own."""
    turns: pd.DataFrame
    """Every turn of the agent in a finished conversation."""
    groups: tuple[CallGroup, ...]

    name = "latency"
    file_name = "profile_analysis.json"

    @cached_property
    def _turns_by_model(self) -> list[tuple[str, pd.DataFrame, Timing]]:
        by_model = self.turns.groupby("agent_model")
        return [(str(model), rows, time_metric(TURN, rows)) for model, rows in by_model]

    @property
    def summary(self) -> Summary:
        """Two sentences: how long requests take, and what a customer waits for."""
        if self.calls.empty:
            return Summary(f"There are no model calls under {self.workspace}/results.", NOTHING_NEXT)
        return Summary(_request_sentence(self.calls), _turn_sentence(self.turns), self.simulated)

    @property
    def by_role(self) -> Table:
        """Every metric of every role and model with its percentiles and the share under 5 s."""
        any_cold = any(group.cold for group in self.groups)
        rows = [
            _caller(group)
            | {"what": f"{timing.metric.name} [{timing.metric.unit}]"}
            | ({"calls": calls} if any_cold else {})
            | {"source": tuple(timing.source.split(", ")), **_summary_entries(timing.summary, timing.metric.scale)}
            for group in self.groups
            for calls, timing in _with_and_without_cold(group)
        ]
        used = [metric for metric in METRICS if any(group.timing(metric.column).summary.n for group in self.groups)]
        meanings = "; ".join(f"{metric.name}: {metric.meaning}" for metric in used)
        notes = [*([f"{meanings}."] if used else []), _SOURCE_NOTE, *([_COLD_NOTE] if any_cold else [])]
        return Table("Latency by role and model", rows, notes, _EMPTY)

    @cached_property
    def _loads(self) -> list[LoadGroup]:
        return load_groups(self.calls)

    @property
    def by_load(self) -> Table:
        """TTFT, TPOT and E2E of every caller by how many requests were in flight and how many replicas there were."""
        rows = [
            _caller(group)
            | {"replicas": str(group.replicas), "in flight": group.in_flight, "n": count(group.n)}
            | {
                f"{timing.metric.name} p{each} [{timing.metric.unit}]": _percentile_entry(timing, each)
                for timing in group.timings.values()
                for each in (50, 90, 99)
            }
            for group in self._loads
        ]
        return Table("Latency by load", rows, [_LOAD_NOTE], "n = 0: no call's load was recorded.")

    @property
    def turn_times(self) -> Table:
        """What a customer waits for, by agent model: from its message to the agent's next words."""
        rows = [
            {
                "agent model": _marked(short_name(model), turns),
                **_summary_entries(timing.summary),
                "requests a turn": significant(float(turns["requests"].mean())),
            }
            for model, turns, timing in self._turns_by_model
        ]
        empty = "n = 0: no turn of a finished conversation was recorded."
        return Table("What a customer waits for: one turn of the agent [s]", rows, [_TURNS_NOTE], empty)

    @property
    def by_setting(self) -> Table:
        """The agent's E2E by env, strategy and model."""
        agent = self.calls[(self.calls["role"] == "agent") & (self.calls["fault"] == "")]
        groups = [
            ((str(env), str(strategy), short_name(str(model))), str(setting_id), calls)
            for (env, strategy, model, setting_id), calls in agent.groupby(
                ["env", "strategy", "agent_model", "setting_id"]
            )
        ]
        same = Counter(names for names, _, _ in groups)
        rows = [
            {
                "env": env,
                "strategy": strategy,
                "model": _marked(model if same[env, strategy, model] == 1 else f"{model} [{setting_id[:8]}]", calls),
                **_summary_entries(summarize(calls["e2e_s"].dropna().tolist())),
            }
            for (env, strategy, model), setting_id, calls in groups
        ]
        return Table("The agent's requests by setting: E2E [s]", rows, [], _EMPTY)

    @property
    def tokens(self) -> Table:
        """Token totals, answered calls and faults of every role and model."""
        rows = [
            _caller(group)
            | {
                "calls answered": count(group.answered),
                "prompt tokens": count(group.tokens.prompt),
                "of them cached": _cached_entry(group),
                "output tokens": count(group.tokens.output),
                "without usage": count(group.tokens.calls_without_usage),
                "calls failed": ", ".join(f"{fault} {count(number)}" for fault, number in group.faults.items()) or "0",
            }
            for group in self.groups
        ]
        note = "Totals over answered calls, also those of conversations that did not finish."
        return Table("Tokens by role and model", rows, [note], _EMPTY)

    @property
    def sources(self) -> Table:
        """Which folders the calls come from and how many of their rows were used."""
        rows = [
            {
                "folder": cell.short_path,
                "trials": str(cell.num_trials),
                "tasks": str(len(cell.tasks)),
                "calls used": count(self._used(cell)),
            }
            for cell in self.cells
        ]
        return Table("Folders and rows", rows, [_ROWS_NOTE], _EMPTY)

    def _used(self, cell: ReportCell) -> int:
        return int((self.calls["setting_id"] == cell.setting_id).sum())

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, in the order of the report."""
        return self.by_role, self.by_load, self.turn_times, self.by_setting, self.tokens, self.sources

    @cached_property
    def histograms(self) -> FigureList:
        """One picture for each role and model."""
        return FigureList(_draw_calls(group) for group in self.groups)

    @cached_property
    def load_figures(self) -> FigureList:
        """One picture of TTFT and TPOT against load for each caller and number of replicas that met several loads."""
        names = Counter((*_names(each), each.replicas) for each in self._loads)
        return FigureList(
            _draw_loads([each for each in self._loads if (*_names(each), each.replicas) == key])
            for key, steps in names.items()
            if steps > 1
        )

    @cached_property
    def turn_figure(self) -> ReportFigure:
        """Histograms of what customers wait for, one panel for each agent model."""
        if self.turns.empty:
            return ReportFigure("latency_turns", "No turn of a finished conversation: n = 0.")
        panels = [
            HistogramPanel(model, f"{short_name(model)} (n = {count(timing.summary.n)})", timing, style)
            for style, (model, _, timing) in enumerate(self._turns_by_model)
        ]
        title = "What a customer waits for: one turn of the agent"
        return draw_histograms(
            "latency_turns", title, panels, of="turn times", counted="turns", simulated=self.simulated
        )

    @property
    def figures(self) -> Sequence[ReportFigure]:
        """All pictures, in the order of the report."""
        return *self.histograms, *self.load_figures, self.turn_figure

    def details(self) -> dict[str, Any]:
        """Return every latency with the rows that it was computed from, as JSON can hold it."""
        return {
            "share_threshold_s": SLA_S,
            "groups": [_group_json(group) for group in self.groups],
            "loads": [_load_json(group) for group in self._loads],
            "turns": [{"agent_model": model, **_timing_json(timing)} for model, _, timing in self._turns_by_model],
            "rows": [
                {
                    "files": sorted(str(path) for path in (cell.folder / "calls").glob("*.jsonl")),
                    "where": f"setting_id = {cell.setting_id} and trial < {cell.num_trials}",
                    "tasks": list(cell.tasks),
                    "used": self._used(cell),
                }
                for cell in self.cells
            ],
        }


def latency_report(*, workspace: str | Path = ".", sweep: str = "") -> LatencyReport:
    """Read the model calls of a workspace and compute their latencies; no calls make an empty report.

    Parameters
    ----------
    workspace : str or Path
        The folder that holds `results/`.
    sweep : str
        Name or path of a sweep file; empty for everything under `results/`.

    Returns
    -------
    LatencyReport
        Its summary, tables and figures as properties, its frames as `calls` and `turns`, `save` to write them.

    Raises
    ------
    ParamsError, BenchError, RunError
        A sweep that does not exist or cannot be planned; results that cannot be read.
    """
    cells = tuple(widest_cells(find_cells(Path(workspace), sweep or None)))
    calls = call_frame(cells)
    simulated = bool(calls["simulated"].any())
    turns, groups = turn_frame(calls, cells), tuple(call_groups(calls))
    return LatencyReport(Path(workspace), sweep, simulated, cells, calls, turns, groups)


def _draw_calls(group: CallGroup) -> ReportFigure:
    """Draw TTFT, decode, TPOT and E2E of one role, expert and model, as far as they were measured."""
    of = ", ".join(_names(group))
    panels = [
        HistogramPanel(name, f"{name} (n = {count(timing.summary.n)}, {timing.source})", timing)
        for name, timing in ((each.metric.name, each) for each in map(group.timing, _SHOWN))
        if timing.summary.n
    ]
    return draw_histograms(
        f"latency_{_file_part(group)}", f"Latency of {of}", panels, of=of, counted="calls", simulated=group.simulated
    )


def _draw_loads(groups: Sequence[LoadGroup]) -> ReportFigure:
    """Draw TTFT and TPOT of one caller against its load."""
    first = groups[0]
    of = f"{', '.join(_names(first))}, {plural(first.replicas, 'replica')}"
    steps = [group.in_flight for group in groups]
    timings = [[group.timings[column] for group in groups] for column in ("ttft_s", "tpot_s")]
    name = f"latency_load_{_file_part(first)}_{first.replicas}"
    return draw_load(name, of, steps, timings, simulated=any(group.simulated for group in groups))


def _names(group: CallGroup | LoadGroup) -> list[str]:
    """Return role, expert where there is one, and model."""
    return [group.role, *([group.expert] if group.expert else []), group.model]


def _file_part(group: CallGroup | LoadGroup) -> str:
    return "_".join(re.sub(r"[^A-Za-z0-9.-]+", "-", part).strip("-.") or "model" for part in _names(group))


def _with_and_without_cold(group: CallGroup) -> Iterator[tuple[str, Timing]]:
    """Yield every metric that was measured; where calls were cold, once more without them."""
    for timing, warm in zip(group.timings, group.warm_timings, strict=True):
        if timing.summary.n or not timing.metric.source:
            yield "all", timing
            if group.cold and timing.metric.column != "queue_s":  # our own, whatever the server
                yield "warm", warm


def _summary_entries(summary: LatencySummary, scale: float = 1.0) -> dict[str, Entry]:
    """Write a summary in units of 1/scale s; only what is shown in seconds is compared with the threshold."""
    values = {f"p{each}": summary.percentiles_s.get(each) for each in PERCENTILES}
    scaled = {name: significant(None if value is None else value * scale) for name, value in values.items()}
    under = percent(summary.share_under) if scale == 1.0 else "–"
    return {"n": count(summary.n), **scaled, f"under {SLA_S:g} s": under}


def _percentile_entry(timing: Timing, percentile: int) -> str:
    value = timing.summary.percentiles_s.get(percentile)
    return significant(None if value is None else value * timing.metric.scale)


def _caller(group: CallGroup | LoadGroup) -> dict[str, Entry]:
    """Write whose calls they are: the role with an expert's name below it, and the model."""
    model = short_name(group.model), "SIMULATED" if group.simulated else ""
    return {"role": (group.role, group.expert), "model": model}


def _marked(name: str, rows: pd.DataFrame) -> Entry:
    """Write a model's name, marked when any of its rows is simulated."""
    return name, "SIMULATED" if rows["simulated"].any() else ""


def _cached_entry(group: CallGroup) -> Entry:
    tokens = group.tokens
    if group.answered and tokens.calls_without_cached == group.answered:
        return "not reported"
    return count(tokens.cached), percent(tokens.cached / tokens.prompt if tokens.prompt else None)


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
    warm = summarize(agent.loc[~agent["cold"].astype(bool), "e2e_s"].dropna().tolist())
    cold = f", {significant(warm.percentiles_s.get(99))} s without the {count(summary.n - warm.n)} to a cold server"
    over = f"{plural(models, 'agent model')}, " if models > 1 else ""
    return (
        f"The agent's requests took {significant(summary.percentiles_s[50])} s at the median and "
        f"{significant(summary.percentiles_s[99])} s at the 99th percentile"
        f"{cold if warm.n < summary.n else ''} ({over}{plural(summary.n, 'request')}, "
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


def _group_json(group: CallGroup) -> dict[str, Any]:
    expert = f"expert = {group.expert} and " if group.expert else ""
    return {
        **{name: getattr(group, name) for name in ("role", "expert", "model", "simulated", "answered", "faults")},
        "where": f"role = {group.role} and {expert}model = {group.model} and fault is empty",
        "cold": group.cold,
        "metrics": {timing.metric.column: _timing_json(timing) | {"source": timing.source} for timing in group.timings},
        "metrics_warm": {timing.metric.column: _timing_json(timing) for timing in group.warm_timings},
        "tokens": asdict(group.tokens),
    }


def _load_json(group: LoadGroup) -> dict[str, Any]:
    return {
        **{name: getattr(group, name) for name in ("role", "expert", "model", "simulated", "replicas", "n")},
        "in_flight_over": group.most // 2,
        "in_flight_at_most": group.most,
        "metrics": {column: _timing_json(timing) for column, timing in group.timings.items()},
    }


def _timing_json(timing: Timing) -> dict[str, Any]:
    summary, histogram = timing.summary, timing.histogram
    return {
        "n": summary.n,
        **{f"p{percentile}_s": value for percentile, value in summary.percentiles_s.items()},
        "mean_s": summary.mean_s,
        "share_under_5_s": summary.share_under,
        "histogram": None if histogram is None else asdict(histogram),
    }
