"""The sweep board as HTML and text: a pure function of a snapshot.

Cells stand in a grid as their users think of them: one row per env, strategy and model, one column per number of
trials. State is a glyph and a word; colour is only the third cue.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tauwidgets.panel import Notice, Rendered, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.sweep import CellStatus

__all__ = ["BoardSnapshot", "render_board"]

GLYPHS = {
    "done": ("✔", "done", "tau-ok"),
    "running": ("…", "running", "tau-busy"),
    "partial": ("◐", "partly done", ""),
    "owed": ("○", "owed", ""),
    "failed": ("✖", "failed", "tau-bad"),
}


@dataclass(frozen=True, slots=True)
class BoardSnapshot:
    """What the board shows at one moment."""

    sweep: str
    cells: Sequence[CellStatus]
    runner: str
    """What is working on the sweep, in words; empty when nothing is."""
    log: Sequence[str]
    notice: Notice
    as_of: float
    """Unix time [s]."""


def render_board(snapshot: BoardSnapshot) -> Rendered:
    """Turn a snapshot into HTML for the page and text for a terminal."""
    summary = _summary(snapshot)
    parts = [
        f"<div><b>Sweep {escape(snapshot.sweep)}</b>: {escape(summary)}</div>",
        f"<div class='tau-meta'>as of {_clock(snapshot.as_of)}"
        + (f" · {escape(snapshot.runner)}" if snapshot.runner else " · nothing is running")
        + "</div>",
        _grid(snapshot.cells),
        _causes(snapshot.cells),
    ]
    if snapshot.notice.text:
        kind = "tau-error" if snapshot.notice.error else "tau-meta"
        parts.append(f"<div class='{kind} tau-said'>{escape(snapshot.notice.text)}</div>")
    if snapshot.log:
        lines = escape("\n".join(snapshot.log))
        parts.append(f"<pre class='tau-log' aria-label='log of the run'>{lines}</pre>")
    return Rendered("".join(parts), _text(snapshot, summary))


def _summary(snapshot: BoardSnapshot) -> str:
    if not snapshot.cells:
        return "no cells"
    done = sum(cell.state == "done" for cell in snapshot.cells)
    failed = sum(cell.state == "failed" for cell in snapshot.cells)
    words = f"{done} of {len(snapshot.cells)} cells done"
    return f"{words}, {failed} failed" if failed else words


def _grid(cells: Sequence[CellStatus]) -> str:
    if not cells:
        return "<p>This sweep has no cells.</p>"
    trials = sorted({cell.num_trials for cell in cells})
    rows = _rows(cells)
    head = "".join(f"<th scope='col'>{n} trial{'s' if n > 1 else ''}</th>" for n in trials)
    body = "".join(
        f"<tr><td>{escape(env)}</td><td>{escape(strategy)}</td><td>{escape(model)}</td>"
        + "".join(f"<td>{_cell(by_trials.get(n))}</td>" for n in trials)
        + "</tr>"
        for (env, strategy, model), by_trials in rows
    )
    return (
        "<table class='tau-board'><thead><tr><th scope='col'>env</th><th scope='col'>strategy</th>"
        f"<th scope='col'>agent</th>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _rows(cells: Sequence[CellStatus]) -> list[tuple[tuple[str, str, str], dict[int, CellStatus]]]:
    """Put cells that differ only in their trials into one row; agents of one model, asked differently, get two."""
    rows: list[tuple[tuple[str, str, str], dict[int, CellStatus]]] = []
    for cell in cells:
        head = (cell.env, str(cell.strategy), cell.model)
        if not rows or rows[-1][0] != head or cell.num_trials in rows[-1][1]:
            rows.append((head, {}))
        rows[-1][1][cell.num_trials] = cell
    return rows


def _cell(cell: CellStatus | None) -> str:
    if cell is None:
        return ""
    glyph, word, kind = GLYPHS.get(str(cell.state), ("?", str(cell.state), ""))
    faults = f", {cell.faults} faults" if cell.faults else ""
    title = f"cell {cell.index}: {word}, {cell.done} of {cell.planned} conversations{faults}"
    return (
        f"<button type='button' data-pick='{cell.index}' data-state='{escape(cell.state)}' title='{escape(title)}'>"
        f"<span class='{kind}'>{glyph} {escape(word)}</span> {cell.done}/{cell.planned}</button>"
    )


def _causes(cells: Sequence[CellStatus]) -> str:
    items = [
        f"<li>cell {cell.index} ({escape(f'{cell.env} {cell.strategy} {cell.model}')}): {escape(cell.cause)}</li>"
        for cell in cells
        if cell.cause and str(cell.state) != "done"
    ]
    return f"<ul class='tau-causes'>{''.join(items)}</ul>" if items else ""


def _text(snapshot: BoardSnapshot, summary: str) -> str:
    lines = [f"Sweep {snapshot.sweep}: {summary} (as of {_clock(snapshot.as_of)})"]
    for cell in snapshot.cells:
        glyph, word, _ = GLYPHS.get(str(cell.state), ("?", str(cell.state), ""))
        where = f"{cell.env} {cell.strategy} {cell.model} {cell.num_trials}"
        lines.append(
            f"{cell.index:4d}  {glyph} {word:<12} {cell.done:4d}/{cell.planned:<4d} {where}  {cell.cause}".rstrip()
        )
    if snapshot.notice.text:
        lines.append(snapshot.notice.text)
    return "\n".join(lines)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
