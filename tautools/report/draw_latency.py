"""Draws histograms of latencies: one picture for each role and model, one field for each metric."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tautools.report.numbers import count, measured, percent
from tautools.report.picture import blank, finish, hand, new_figure
from tautools.stats import SLA_S, histogram, summarize

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from tautools.report.picture import Picture
    from tautools.report.timings import CallGroup, Timing
    from tautools.stats import Histogram, LatencySummary

__all__ = ["draw_calls", "draw_turns"]

_SHOWN = ("ttft_s", "decode_s", "tpot_s", "e2e_s")


def draw_calls(group: CallGroup) -> Picture:
    """Draw TTFT, decode, TPOT and E2E of one role, expert and model."""
    whose = (group.role, group.expert, group.model) if group.expert else (group.role, group.model)
    name = f"latency_{'_'.join(map(_safe, whose))}"
    shown = [group.timing(column) for column in _SHOWN if group.timing(column).histogram is not None]
    if not shown:
        return blank(name, f"No latency of {group.name}: n = 0.")
    figure, axes = new_figure(max(6.4, 3.0 * len(shown)), 3.1, 1, len(shown))
    _headroom(axes[0], [timing.histogram for timing in shown if timing.histogram is not None])
    for field, timing in zip(axes[0], shown, strict=True):
        _draw_timing(field, timing)
    axes[0][0].set_ylabel("calls")
    said = "; ".join(_said(timing.metric.name, timing.summary) for timing in shown)
    alt = f"Histograms of {group.name}. {said}."
    return finish(figure, name, alt, title=f"Latency of {group.name}", simulated=group.simulated)


def draw_turns(turns: pd.DataFrame, *, simulated: bool) -> Picture:
    """Draw what customers wait for, one field for each agent model."""
    name = "latency_turns"
    if turns.empty:
        return blank(name, "No turn of a finished conversation: n = 0.")
    parts = [(str(model), part["turn_s"].tolist()) for model, part in turns.groupby("agent_model")]
    figure, axes = new_figure(max(6.4, 3.0 * len(parts)), 3.1, 1, len(parts))
    said = []
    _headroom(axes[0], [histogram(values) for _, values in parts])
    for index, (field, (model, values)) in enumerate(zip(axes[0], parts, strict=True)):
        summary = summarize(values)
        _bars(field, histogram(values), 1.0, hand(index).color)
        _lines(field, summary, 1.0)
        field.set_title(f"{model.rsplit('/', 1)[-1]} (n = {count(summary.n)})", fontsize=10)
        field.set_xlabel(f"turn [s]{_shade_note(field, summary, 1.0)}")
        said.append(_said(model, summary))
    axes[0][0].set_ylabel("turns")
    title = "What a customer waits for: one turn of the agent"
    return finish(figure, name, f"Histograms of turn times. {'; '.join(said)}.", title=title, simulated=simulated)


def _draw_timing(field: Axes, timing: Timing) -> None:
    metric = timing.metric
    if timing.histogram is None:
        return
    _bars(field, timing.histogram, metric.scale, hand(0).color)
    _lines(field, timing.summary, metric.scale)
    field.set_title(f"{metric.name} (n = {count(timing.summary.n)}, {timing.source})", fontsize=10)
    note = _shade_note(field, timing.summary, metric.scale) if metric.column == "e2e_s" else ""
    field.set_xlabel(f"{metric.name} [{metric.unit}]{note}")


def _bars(field: Axes, found: Histogram, scale: float, color: str) -> None:
    edges = [edge * scale for edge in found.edges_s]
    field.stairs(found.counts, edges, fill=True, color=color, alpha=0.75)
    field.stairs(found.counts, edges, color="#222222", linewidth=0.6)
    field.set_xscale("log")
    field.xaxis.set_major_formatter(_plain)
    if edges[-1] / edges[0] < 200:
        field.xaxis.set_minor_formatter(_plain_if_room)


def _headroom(fields: Sequence[Axes], found: Sequence[Histogram]) -> None:
    """Leave room above the bars of all fields for the words beside the percentiles."""
    fields[0].set_ylim(0, 1.5 * max(max(each.counts) for each in found))


def _lines(field: Axes, summary: LatencySummary, scale: float) -> None:
    """Mark p50, p90 and p99."""
    top = field.get_ylim()[1]
    for place, style in ((50, "-"), (90, "--"), (99, ":")):
        value = summary.percentiles_s[place] * scale
        field.axvline(value, color="#000000", linestyle=style, linewidth=1.2)
        words = f"p{place} {measured(value)}"
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


def _plain(value: float, _place: float = 0) -> str:
    return f"{value:g}"


def _plain_if_room(value: float, _place: float = 0) -> str:
    leading = f"{value:e}"[0]
    return f"{value:g}" if leading in "25" else ""


def _said(name: str, summary: LatencySummary) -> str:
    found = summary.percentiles_s
    return (
        f"{name}: n = {summary.n}, p50 {measured(found[50])} s, p90 {measured(found[90])} s, "
        f"p99 {measured(found[99])} s, {percent(summary.share_under)} under {SLA_S:g} s"
    )


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "model"
