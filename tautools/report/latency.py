"""The report on latency and its histograms: what `31_latency.ipynb` shows, one property a cell."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.report.base import Report
from tautools.report.cells import find_cells, widest_cells
from tautools.report.figures import FigureList, empty_figure, finish_figure, new_figure, series_style
from tautools.report.formatting import count, percent, short_name, significant
from tautools.report.frames import call_frame, turn_frame
from tautools.report.latency_tables import (
    call_groups,
    call_source_table,
    latency_summary,
    latency_table,
    setting_table,
    token_table,
    turn_table,
)
from tautools.stats import SLA_S, histogram, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from tautools.report.cells import ReportCell
    from tautools.report.figures import ReportFigure
    from tautools.report.formatting import Summary, Table
    from tautools.report.latency_tables import CallGroup
    from tautools.stats import Histogram, LatencySummary

_SHOWN = ("ttft_s", "decode_s", "tpot_s", "e2e_s")


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

    @property
    def simulated(self) -> bool:
        """Whether a simulated model answered any call."""
        return any(group.simulated for group in self.groups)

    @property
    def summary(self) -> Summary:
        """Two sentences: how long requests take, and what a customer waits for."""
        return latency_summary(self.calls, self.turns, str(self.workspace))

    @property
    def by_role(self) -> Table:
        """Percentiles of every metric by role and model."""
        return latency_table(self.groups)

    @property
    def turn_times(self) -> Table:
        """What a customer waits for, by agent model."""
        return turn_table(self.turns)

    @property
    def by_setting(self) -> Table:
        """The agent's E2E by env, strategy and model."""
        return setting_table(self.calls)

    @property
    def tokens(self) -> Table:
        """Token totals by role and model."""
        return token_table(self.groups)

    @property
    def sources(self) -> Table:
        """Where the figures come from."""
        return call_source_table(self.cells, self.calls)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, in the order of the report."""
        return self.by_role, self.turn_times, self.by_setting, self.tokens, self.sources

    @cached_property
    def histograms(self) -> FigureList:
        """One picture for each role and model."""
        return FigureList(_draw_calls(group) for group in self.groups)

    @cached_property
    def turn_figure(self) -> ReportFigure:
        """Histograms of what customers wait for, one panel for each agent model."""
        return _draw_turns(self.turns, simulated=self.simulated)

    @property
    def figures(self) -> Sequence[ReportFigure]:
        """All pictures, in the order of the report."""
        return *self.histograms, self.turn_figure

    def details(self) -> dict[str, Any]:
        """Return every latency with the rows that it was computed from, as JSON can hold it."""
        return {
            "share_threshold_s": SLA_S,
            "groups": [_group_json(group) for group in self.groups],
            "turns": [
                {
                    "agent_model": str(model),
                    **_summary_json(summarize(part["turn_s"].tolist())),
                    "histogram": asdict(histogram(part["turn_s"].tolist())),
                }
                for model, part in self.turns.groupby("agent_model")
            ],
            "rows": [
                {
                    "files": sorted(str(path) for path in (cell.folder / "calls").glob("*.jsonl")),
                    "where": f"setting_id = {cell.setting_id} and trial < {cell.num_trials}",
                    "tasks": list(cell.tasks),
                    "used": int((self.calls["setting_id"] == cell.setting_id).sum()),
                }
                for cell in self.cells
            ],
        }


def latency_report(*, workspace: str | Path = ".", sweep: str = "") -> LatencyReport:
    """Read the model calls of a workspace and compute their latencies; no calls make an empty report.

    Parameters and errors are those of `pass_report`.
    """
    cells = tuple(widest_cells(find_cells(Path(workspace), sweep or None)))
    calls = call_frame(cells)
    return LatencyReport(Path(workspace), sweep, cells, calls, turn_frame(calls, cells), tuple(call_groups(calls)))


def _group_json(group: CallGroup) -> dict[str, Any]:
    expert = f"expert = {group.expert} and " if group.expert else ""
    return {
        "role": group.role,
        "expert": group.expert,
        "model": group.model,
        "simulated": group.simulated,
        "answered": group.answered,
        "where": f"role = {group.role} and {expert}model = {group.model} and fault is empty",
        "metrics": {
            timing.metric.column: {
                **_summary_json(timing.summary),
                "source": timing.source,
                "histogram": None if timing.histogram is None else asdict(timing.histogram),
            }
            for timing in group.timings
        },
        "tokens": asdict(group.tokens),
        "faults": dict(group.faults),
    }


def _summary_json(summary: LatencySummary) -> dict[str, Any]:
    percentiles = {f"p{percentile}_s": value for percentile, value in summary.percentiles_s.items()}
    return {"n": summary.n, **percentiles, "mean_s": summary.mean_s, "share_under_5_s": summary.share_under}


def _draw_calls(group: CallGroup) -> ReportFigure:
    """Draw TTFT, decode, TPOT and E2E of one role, expert and model."""
    parts = (group.role, group.expert, group.model) if group.expert else (group.role, group.model)
    safe = (re.sub(r"[^A-Za-z0-9.-]+", "-", part).strip("-.") or "model" for part in parts)
    file_name = f"latency_{'_'.join(safe)}"
    shown = [(timing, timing.histogram) for timing in map(group.timing, _SHOWN) if timing.histogram is not None]
    if not shown:
        return empty_figure(file_name, f"No latency of {group.name}: n = 0.")
    figure, axes = new_figure(max(6.4, 3.0 * len(shown)), 3.1, 1, len(shown))
    _set_headroom(axes[0][0], [bars for _, bars in shown])
    for axis, (timing, bars) in zip(axes[0], shown, strict=True):
        metric = timing.metric
        _draw_histogram(axis, bars, timing.summary, metric.scale, series_style(0).color)
        axis.set_title(f"{metric.name} (n = {count(timing.summary.n)}, {timing.source})", fontsize=10)
        note = _shade(axis, timing.summary) if metric.column == "e2e_s" else ""
        axis.set_xlabel(f"{metric.name} [{metric.unit}]{note}")
    axes[0][0].set_ylabel("calls")
    values = "; ".join(_description(timing.metric.name, timing.summary) for timing, _ in shown)
    alt = f"Histograms of {group.name}. {values}."
    return finish_figure(figure, file_name, alt, title=f"Latency of {group.name}", simulated=group.simulated)


def _draw_turns(turns: pd.DataFrame, *, simulated: bool) -> ReportFigure:
    file_name = "latency_turns"
    if turns.empty:
        return empty_figure(file_name, "No turn of a finished conversation: n = 0.")
    parts = [(str(model), part["turn_s"].tolist()) for model, part in turns.groupby("agent_model")]
    figure, axes = new_figure(max(6.4, 3.0 * len(parts)), 3.1, 1, len(parts))
    values = []
    _set_headroom(axes[0][0], [histogram(times_s) for _, times_s in parts])
    for index, (axis, (model, times_s)) in enumerate(zip(axes[0], parts, strict=True)):
        summary = summarize(times_s)
        _draw_histogram(axis, histogram(times_s), summary, 1.0, series_style(index).color)
        axis.set_title(f"{short_name(model)} (n = {count(summary.n)})", fontsize=10)
        axis.set_xlabel(f"turn [s]{_shade(axis, summary)}")
        values.append(_description(model, summary))
    axes[0][0].set_ylabel("turns")
    title = "What a customer waits for: one turn of the agent"
    alt = f"Histograms of turn times. {'; '.join(values)}."
    return finish_figure(figure, file_name, alt, title=title, simulated=simulated)


def _set_headroom(axis: Axes, histograms: Sequence[Histogram]) -> None:
    """Leave room above the bars of all panels for the words next to the percentiles."""
    axis.set_ylim(0, 1.5 * max(max(each.counts) for each in histograms))


def _draw_histogram(axis: Axes, bars: Histogram, summary: LatencySummary, scale: float, color: str) -> None:
    """Draw bars over a logarithmic axis, and p50, p90 and p99 as lines."""
    edges = [edge * scale for edge in bars.edges_s]
    axis.stairs(bars.counts, edges, fill=True, color=color, alpha=0.75)
    axis.stairs(bars.counts, edges, color="#222222", linewidth=0.6)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if edges[-1] / edges[0] < 200:
        axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    for percentile, style in ((50, "-"), (90, "--"), (99, ":")):
        value = summary.percentiles_s[percentile] * scale
        axis.axvline(value, color="#000000", linestyle=style, linewidth=1.2)
        axis.annotate(
            f"p{percentile} {significant(value)}",
            (value, axis.get_ylim()[1]),
            (-2, -2),
            textcoords="offset points",
            fontsize=7.5,
            rotation=90,
            va="top",
            ha="right",
        )


def _shade(axis: Axes, summary: LatencySummary) -> str:
    """Shade what is over the threshold, where that is in sight, and return the words for it."""
    low, high = axis.get_xlim()
    if not low < summary.threshold_s < high:
        return ""
    axis.axvspan(summary.threshold_s, high, color="#D55E00", alpha=0.14, linewidth=0)
    axis.set_xlim(low, high)
    return f", shaded over {SLA_S:g} s"


def _description(name: str, summary: LatencySummary) -> str:
    p50, p90, p99 = (significant(summary.percentiles_s[percentile]) for percentile in (50, 90, 99))
    under = percent(summary.share_under)
    return f"{name}: n = {summary.n}, p50 {p50} s, p90 {p90} s, p99 {p99} s, {under} under {SLA_S:g} s"
