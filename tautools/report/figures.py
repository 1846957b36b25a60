"""Figures as PNG with a description, and the style that each series is drawn in.

Figures are made with `matplotlib.figure.Figure`, never with pyplot: nothing global is touched, so a figure can be
drawn from any thread of a kernel. Series differ in colour (Okabe and Ito's, safe for colour-blind readers), in marker
and in line, so they can be told apart in print without colour.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 144
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (3, 1)), (0, (1, 1)))


class SeriesStyle(NamedTuple):
    """How one series is drawn."""

    color: str
    marker: str
    linestyle: Any


@dataclass(frozen=True, slots=True, repr=False)
class ReportFigure:
    """A PNG that shows itself in a notebook and says in words what is in it."""

    name: str
    """File name without `.png`."""
    alt: str
    png: bytes
    width_px: int

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
        return "\n".join(_image_html(figure) for figure in self) or "<p>No figure: n = 0.</p>"


def _image_html(figure: ReportFigure) -> str:
    if not figure.png:
        return f"<p>{escape(figure.alt)}</p>"
    source = f"data:image/png;base64,{b64encode(figure.png).decode()}"
    return f'<p><img src="{source}" width="{figure.width_px}" alt="{escape(figure.alt)}"></p>'


def series_style(index: int) -> SeriesStyle:
    """Return how series number `index` is drawn; after seven the colours repeat with other markers."""
    turn, position = divmod(index, len(_COLOURS))
    return SeriesStyle(_COLOURS[position], _MARKERS[(position + turn) % 7], _LINES[(position + turn) % 7])


def empty_figure(name: str, alt: str) -> ReportFigure:
    """Return a figure without data: words, no PNG."""
    return ReportFigure(name, alt, b"", 0)


def new_figure(width_in: float, height_in: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure of that size [inch], and its axes, which share their y axis, as `rows` lists of `columns`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
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
