"""Figures as PNG with a description: how they are drawn, pass^k against k, histograms of latencies.

Figures are made with `matplotlib.figure.Figure`, never with pyplot: nothing global is touched, so a figure can be
drawn from any thread of a kernel. Series differ in colour (Okabe and Ito's, safe for colour-blind readers), in marker
and in line, so they can be told apart in print without colour.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

from tautools.report.formatting import percent, share, significant
from tautools.report.frames import Timing
from tautools.report.scores import CellScore, Estimate, ScoreMetric
from tautools.stats import SLA_S, LatencySummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


DPI = 144
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))
_BASELINE_STYLE: dict[str, Any] = {"color": "#777777", "linestyle": (0, (1, 2))}
_PROMISED = {"e2e_s", "turn_s"}
"""What is compared with the promise of `SLA_S`."""


@dataclass(frozen=True, slots=True, repr=False)
class ReportFigure:
    """A PNG that shows itself in a notebook and says in words what is in it."""

    name: str
    """File name without `.png`."""
    alt: str
    png: bytes = b""
    """Empty for a figure without data, which is words only."""
    width_px: int = 0

    def __repr__(self) -> str:
        return f"[figure {self.name}.png: {self.alt}]"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {"text/plain": repr(self)}
        if self.png:
            data["image/png"] = b64encode(self.png).decode()
        return data, {"image/png": {"alt": self.alt, "width": self.width_px}}


class FigureList(tuple[ReportFigure, ...]):
    """Several figures, shown one below the other."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(repr(figure) for figure in self) or "No figure: n = 0."

    def _repr_html_(self) -> str:
        shown = (f"<p>{_image(figure) if figure.png else escape(figure.alt)}</p>" for figure in self)
        return "\n".join(shown) or "<p>No figure: n = 0.</p>"


def _image(figure: ReportFigure) -> str:
    source = f"data:image/png;base64,{b64encode(figure.png).decode()}"
    return f'<img src="{source}" width="{figure.width_px}" alt="{escape(figure.alt)}">'


def series_style(index: int) -> dict[str, Any]:
    """Return how series number `index` is drawn; after seven the colours repeat with other markers and lines."""
    turn, position = divmod(index, len(_COLOURS))
    other = (position + turn) % 7
    return {"color": _COLOURS[position], "marker": _MARKERS[other], "linestyle": _LINES[other]}


def new_figure(
    width_in: float, height_in: float, rows: int = 1, columns: int = 1, *, share_y: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of that size [inch], and its axes, as `rows` lists of `columns`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    for each in axes.flat:
        each.spines[["top", "right"]].set_visible(False)
        each.grid(axis="y", color="#dddddd", linewidth=0.7)
        each.set_axisbelow(True)
    return figure, axes.tolist()


def finish_figure(figure: Figure, name: str, alt: str, *, title: str, simulated: bool) -> ReportFigure:
    """Return the drawn figure as PNG, with `alt` as its description; when simulated, it says so across its face."""
    if simulated:
        title += "  (SIMULATED)"
        figure.text(
            0.5, 0.47, "SIMULATED", ha="center", va="center", rotation=18, fontsize=54, color="#000000", alpha=0.07
        )
        alt += " SIMULATED models."
    figure.suptitle(title, fontsize=12, x=0.01, ha="left", weight="bold")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "", "Description": alt})
    return ReportFigure(name, alt, buffer.getvalue(), round(figure.get_figwidth() * 96))


def draw_scores(scores: Sequence[CellScore], metric: ScoreMetric) -> ReportFigure:
    """Draw one panel for each env and strategy, one line for each model; `scores` are of cells that are not nested."""
    of, name = metric.of, f"{metric.name}k"
    shown = [score for score in scores if of(score)]
    if not shown:
        return ReportFigure(metric.file_name, f"No figure of {name}: n = 0.")
    envs = list(dict.fromkeys(_panel_of(score)[0] for score in shown))
    strategies = list(dict.fromkeys(_panel_of(score)[1] for score in shown))
    series = {score.label: _series_name(score, shown) for score in shown}
    styles = {label: series_style(index) for index, label in enumerate(dict.fromkeys(series.values()))}
    figure, axes = new_figure(max(6.4, 3.3 * len(strategies)), 2.6 * len(envs) + 1.0, len(envs), len(strategies))
    most = max(len(of(score)) for score in shown)
    for row, env in zip(axes, envs, strict=True):
        for axis, strategy in zip(row, strategies, strict=True):
            here = [score for score in shown if _panel_of(score) == (env, strategy)]
            _draw_panel(axis, [(score, of(score), styles[series[score.label]]) for score in here])
            axis.set(title=f"{env}, {strategy}", xticks=range(1, most + 1), xlim=(0.5, most + 0.5))
            axis.title.set_fontsize(10)
        row[0].set_ylabel(f"{name} (share of tasks)")
    for axis in axes[-1]:
        axis.set_xlabel("k (trials)")
    handles = [axes[0][0].plot([], [], **style, label=label)[0] for label, style in styles.items()]
    handles += axes[0][0].plot([], [], **_BASELINE_STYLE, label="do nothing")
    figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    values = (f"{score.label}: {', '.join(share(each.value) for each in of(score))}" for score in shown[:8])
    more = f"; and {len(shown) - 8} more settings" if len(shown) > 8 else ""
    alt = f"{name} for k = 1, 2, … with 95 % intervals. {'; '.join(values)}{more}."
    simulated = any(score.cell.simulated for score in shown)
    return finish_figure(figure, metric.file_name, alt, title=f"{name}: {metric.meaning}", simulated=simulated)


def _draw_panel(axis: Axes, lines: Sequence[tuple[CellScore, Sequence[Estimate], dict[str, Any]]]) -> None:
    for index, (_, estimates, style) in enumerate(lines):
        below = [each.value - each.interval.low for each in estimates]
        above = [each.interval.high - each.value for each in estimates]
        # Lines of several models lie side by side, so that no interval hides another.
        shift = (index - (len(lines) - 1) / 2) * 0.08
        ks = [each.k + shift for each in estimates]
        values = [each.value for each in estimates]
        axis.errorbar(ks, values, yerr=[below, above], **style, capsize=3, linewidth=1.6, markersize=6)
    for baseline in {score.null_baseline.value for score, _, _ in lines}:
        if baseline is not None:
            axis.axhline(baseline, **_BASELINE_STYLE, linewidth=1.5)
    if not lines:
        axis.text(0.5, 0.5, "n = 0", transform=axis.transAxes, ha="center", color="#555555")
    axis.set_ylim(-0.03, 1.03)


def _series_name(score: CellScore, shown: Sequence[CellScore]) -> str:
    """Return the model's name, with the setting's id where one panel has two settings of one model."""
    same = {s.cell.setting_id for s in shown if s.cell.model == score.cell.model and _panel_of(s) == _panel_of(score)}
    return f"{score.cell.model} [{score.cell.setting_id[:8]}]" if len(same) > 1 else score.cell.model


def _panel_of(score: CellScore) -> tuple[str, str]:
    return score.cell.setting.env, score.cell.setting.strategy.value


class HistogramPanel(NamedTuple):
    """One panel of a figure of histograms."""

    name: str
    """Of what it shows, in the description."""
    heading: str
    timing: Timing
    """Of at least one value."""
    style: int = 0
    """Number of its series."""


def draw_histograms(
    file_name: str, title: str, panels: Sequence[HistogramPanel], *, of: str, counted: str, simulated: bool
) -> ReportFigure:
    """Draw one panel beside the other; `of` says in the description whose times they are, `counted` what bars count."""
    if not panels:
        return ReportFigure(file_name, f"No latency of {of}: n = 0.")
    figure, axes = new_figure(max(6.4, 3.0 * len(panels)), 3.1, 1, len(panels))
    highest = max(max(panel.timing.histogram.counts) for panel in panels if panel.timing.histogram)
    axes[0][0].set_ylim(0, 1.5 * highest)  # leaves room above the bars for the words next to the percentiles
    for axis, (_, heading, timing, style) in zip(axes[0], panels, strict=True):
        metric = timing.metric
        _draw_histogram(axis, timing, series_style(style)["color"])
        axis.set_title(heading, fontsize=10)
        note = _shade(axis, timing.summary) if metric.column in _PROMISED else ""
        axis.set_xlabel(f"{metric.name} [{metric.unit}]{note}")
    axes[0][0].set_ylabel(counted)
    values = "; ".join(_description(panel.name, panel.timing.summary) for panel in panels)
    return finish_figure(figure, file_name, f"Histograms of {of}. {values}.", title=title, simulated=simulated)


def draw_load(
    file_name: str, of: str, steps: Sequence[str], timings: Sequence[Sequence[Timing]], *, simulated: bool
) -> ReportFigure:
    """Draw one panel for each metric: p50, p90 and p99 at each step of the load; `timings` by metric, then by step."""
    figure, axes = new_figure(7.2, 3.3, 1, len(timings), share_y=False)
    words = []
    for axis, series in zip(axes[0], timings, strict=True):
        metric = series[0].metric
        for index, percentile in enumerate((50, 90, 99)):
            values = [timing.summary.percentiles_s.get(percentile, math.nan) * metric.scale for timing in series]
            axis.plot(range(len(steps)), values, **series_style(index), linewidth=1.6, label=f"p{percentile}")
        counts = [f"{step}\nn {timing.summary.n}" for step, timing in zip(steps, series, strict=True)]
        axis.set_xticks(range(len(steps)), counts, fontsize=8)
        axis.set(ylabel=f"{metric.name} [{metric.unit}]", xlabel="requests in flight at the address", ylim=(0, None))
        medians = (significant(timing.summary.percentiles_s.get(50)) for timing in series)
        words.append(f"median {metric.name} [s] {', '.join(medians)}")
    axes[0][0].legend(frameon=False, fontsize=8)
    n = ", ".join(str(timing.summary.n) for timing in timings[0])
    alt = f"Latency of {of}, by requests in flight ({', '.join(steps)}; n = {n}): {'; '.join(words)}."
    return finish_figure(figure, file_name, alt, title=f"Latency by load: {of}", simulated=simulated)


def _draw_histogram(axis: Axes, timing: Timing, color: str) -> None:
    """Draw bars over a logarithmic axis, and p50, p90 and p99 as lines."""
    bars, scale = timing.histogram, timing.metric.scale
    if bars is None:
        return
    edges = [edge * scale for edge in bars.edges_s]
    axis.stairs(bars.counts, edges, fill=True, color=color, alpha=0.75)
    axis.stairs(bars.counts, edges, color="#222222", linewidth=0.6)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if edges[-1] / edges[0] < 200:
        axis.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    for percentile, style in ((50, "-"), (90, "--"), (99, ":")):
        value = timing.summary.percentiles_s[percentile] * scale
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
