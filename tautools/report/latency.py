"""The report on latency and its histograms: what `31_latency.ipynb` shows, one property a cell."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.report.base import save_files
from tautools.report.cells import find_cells, pools
from tautools.report.figures import FigureList, empty_figure, finish_figure, new_figure, series_style
from tautools.report.formatting import count, percent, significant
from tautools.report.frames import call_frame, turn_frame
from tautools.report.latency_tables import (
    call_groups,
    call_source_table,
    cell_table,
    latency_summary,
    latency_table,
    token_table,
    turn_table,
)
from tautools.stats import SLA_S, histogram, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from tautools.report.base import SavedFiles
    from tautools.report.cells import ReportCell
    from tautools.report.figures import ReportFigure
    from tautools.report.formatting import Summary, Table
    from tautools.report.latency_tables import CallGroup, Timing
    from tautools.stats import Histogram, LatencySummary


_SHOWN = ("ttft_s", "decode_s", "tpot_s", "e2e_s")


def draw_calls(group: CallGroup) -> ReportFigure:
    """Draw TTFT, decode, TPOT and E2E of one role, expert and model."""
    whose = (group.role, group.expert, group.model) if group.expert else (group.role, group.model)
    name = f"latency_{'_'.join(map(_file_name, whose))}"
    shown = [group.timing(column) for column in _SHOWN if group.timing(column).histogram is not None]
    if not shown:
        return empty_figure(name, f"No latency of {group.name}: n = 0.")
    figure, axes = new_figure(max(6.4, 3.0 * len(shown)), 3.1, 1, len(shown))
    _set_headroom(axes[0], [timing.histogram for timing in shown if timing.histogram is not None])
    for field, timing in zip(axes[0], shown, strict=True):
        _draw_timing(field, timing)
    axes[0][0].set_ylabel("calls")
    said = "; ".join(_description(timing.metric.name, timing.summary) for timing in shown)
    alt = f"Histograms of {group.name}. {said}."
    return finish_figure(figure, name, alt, title=f"Latency of {group.name}", simulated=group.simulated)


def draw_turns(turns: pd.DataFrame, *, simulated: bool) -> ReportFigure:
    """Draw what customers wait for, one field for each agent model."""
    name = "latency_turns"
    if turns.empty:
        return empty_figure(name, "No turn of a finished conversation: n = 0.")
    parts = [(str(model), part["turn_s"].tolist()) for model, part in turns.groupby("agent_model")]
    figure, axes = new_figure(max(6.4, 3.0 * len(parts)), 3.1, 1, len(parts))
    said = []
    _set_headroom(axes[0], [histogram(values) for _, values in parts])
    for index, (field, (model, values)) in enumerate(zip(axes[0], parts, strict=True)):
        summary = summarize(values)
        _draw_bars(field, histogram(values), 1.0, series_style(index).color)
        _draw_percentiles(field, summary, 1.0)
        field.set_title(f"{model.rsplit('/', 1)[-1]} (n = {count(summary.n)})", fontsize=10)
        field.set_xlabel(f"turn [s]{_shade_note(field, summary, 1.0)}")
        said.append(_description(model, summary))
    axes[0][0].set_ylabel("turns")
    title = "What a customer waits for: one turn of the agent"
    return finish_figure(
        figure, name, f"Histograms of turn times. {'; '.join(said)}.", title=title, simulated=simulated
    )


def _draw_timing(field: Axes, timing: Timing) -> None:
    metric = timing.metric
    if timing.histogram is None:
        return
    _draw_bars(field, timing.histogram, metric.scale, series_style(0).color)
    _draw_percentiles(field, timing.summary, metric.scale)
    field.set_title(f"{metric.name} (n = {count(timing.summary.n)}, {timing.source})", fontsize=10)
    note = _shade_note(field, timing.summary, metric.scale) if metric.column == "e2e_s" else ""
    field.set_xlabel(f"{metric.name} [{metric.unit}]{note}")


def _draw_bars(field: Axes, found: Histogram, scale: float, color: str) -> None:
    edges = [edge * scale for edge in found.edges_s]
    field.stairs(found.counts, edges, fill=True, color=color, alpha=0.75)
    field.stairs(found.counts, edges, color="#222222", linewidth=0.6)
    field.set_xscale("log")
    field.xaxis.set_major_formatter(_tick)
    if edges[-1] / edges[0] < 200:
        field.xaxis.set_minor_formatter(_minor_tick)


def _set_headroom(fields: Sequence[Axes], found: Sequence[Histogram]) -> None:
    """Leave room above the bars of all fields for the words beside the percentiles."""
    fields[0].set_ylim(0, 1.5 * max(max(each.counts) for each in found))


def _draw_percentiles(field: Axes, summary: LatencySummary, scale: float) -> None:
    """Mark p50, p90 and p99."""
    top = field.get_ylim()[1]
    for place, style in ((50, "-"), (90, "--"), (99, ":")):
        value = summary.percentiles_s[place] * scale
        field.axvline(value, color="#000000", linestyle=style, linewidth=1.2)
        words = f"p{place} {significant(value)}"
        field.annotate(
            words, (value, top), (-2, -2), textcoords="offset points", fontsize=7.5, rotation=90, va="top", ha="right"
        )


def _shade_note(field: Axes, summary: LatencySummary, scale: float) -> str:
    """Shade what is over the promise, where that is in sight, and return the words for it."""
    promise, (low, high) = summary.threshold_s * scale, field.get_xlim()
    if not low < promise < high:
        return ""
    field.axvspan(promise, high, color="#D55E00", alpha=0.14, linewidth=0)
    field.set_xlim(low, high)
    return f", shaded over {SLA_S:g} s"


def _tick(value: float, _place: float = 0) -> str:
    return f"{value:g}"


def _minor_tick(value: float, _place: float = 0) -> str:
    leading = f"{value:e}"[0]
    return f"{value:g}" if leading in "25" else ""


def _description(name: str, summary: LatencySummary) -> str:
    found = summary.percentiles_s
    return (
        f"{name}: n = {summary.n}, p50 {significant(found[50])} s, p90 {significant(found[90])} s, "
        f"p99 {significant(found[99])} s, {percent(summary.share_under)} under {SLA_S:g} s"
    )


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "model"


@dataclass(frozen=True)
class LatencyReport:
    """Latencies of cells' model calls, ready to be shown and saved."""

    workspace: Path
    sweep: str
    cells: tuple[ReportCell, ...]
    """Those that are not nested: each call counts once."""
    calls: pd.DataFrame
    """Every attempt at a model request, for questions of your own."""
    turns: pd.DataFrame
    """Every turn of the agent in a finished conversation."""
    groups: tuple[CallGroup, ...]

    @property
    def simulated(self) -> bool:
        """Whether a simulated model answered any call."""
        return any(group.simulated for group in self.groups)

    @property
    def opening(self) -> Summary:
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
        return cell_table(self.calls)

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
        return FigureList(draw_calls(group) for group in self.groups)

    @cached_property
    def turn_figure(self) -> ReportFigure:
        """Histograms of what customers wait for."""
        return draw_turns(self.turns, simulated=self.simulated)

    def to_json(self) -> dict[str, Any]:
        """Return every figure with the rows it was computed from."""
        return {
            "report": "latency",
            "workspace": str(self.workspace),
            "sweep": self.sweep,
            "simulated": self.simulated,
            "opening": [self.opening.first, self.opening.second],
            "share_threshold_s": SLA_S,
            "groups": [_group_json(group) for group in self.groups],
            "turns": _turns_json(self.turns),
            "rows": [_rows_json(cell, self.calls) for cell in self.cells],
            "tables": [table.to_markdown() for table in self.tables],
        }

    def save(self, out: str | Path = "") -> SavedFiles:
        """Write `profile_analysis.json` and the figures into `out`; nothing when it is empty."""
        return save_files(out, "profile_analysis.json", self.to_json(), (*self.histograms, self.turn_figure))


def latency_report(*, workspace: str | Path = ".", sweep: str = "") -> LatencyReport:
    """Read the model calls of a workspace and compute their latencies; no calls make an empty report.

    Parameters
    ----------
    workspace : str or Path
        The folder that holds `results/`.
    sweep : str
        Name or path of a sweep file; empty for everything under `results/`.

    Raises
    ------
    ParamsError, BenchError, RunError
        A sweep that does not exist or cannot be planned; results that cannot be read.
    """
    place = Path(workspace)
    cells = tuple(pools(find_cells(place, sweep or None)))
    calls = call_frame(cells)
    return LatencyReport(place, sweep, cells, calls, turn_frame(calls, cells), tuple(call_groups(calls)))


def _group_json(group: CallGroup) -> dict[str, Any]:
    return {
        "role": group.role,
        "expert": group.expert,
        "model": group.model,
        "simulated": group.simulated,
        "answered": group.answered,
        "where": f"role = {group.role} and {_expert_clause(group)}model = {group.model} and fault is empty",
        "metrics": {each.metric.column: _timing_json(each) for each in group.timings},
        "tokens": asdict(group.tokens),
        "faults": dict(group.faults),
    }


def _expert_clause(group: CallGroup) -> str:
    return f"expert = {group.expert} and " if group.expert else ""


def _timing_json(timing: Timing) -> dict[str, Any]:
    found = timing.histogram
    return {
        **_summary_json(timing.summary),
        "source": timing.source,
        "histogram": None if found is None else asdict(found),
    }


def _summary_json(summary: LatencySummary) -> dict[str, Any]:
    percentiles = {f"p{place}_s": value for place, value in summary.percentiles_s.items()}
    return {"n": summary.n, **percentiles, "mean_s": summary.mean_s, "share_under_5_s": summary.share_under}


def _turns_json(turns: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "agent_model": str(model),
            **_summary_json(summarize(part["turn_s"].tolist())),
            "histogram": asdict(histogram(part["turn_s"].tolist())),
        }
        for model, part in turns.groupby("agent_model")
    ]


def _rows_json(cell: ReportCell, calls: pd.DataFrame) -> dict[str, Any]:
    return {
        "files": sorted(str(path) for path in (cell.folder / "calls").glob("*.jsonl")),
        "where": f"setting_id = {cell.setting_id} and trial < {cell.num_trials}",
        "tasks": list(cell.tasks),
        "used": int((calls["setting_id"] == cell.setting_id).sum()),
    }
