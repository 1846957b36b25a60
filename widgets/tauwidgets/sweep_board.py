"""SweepBoard: the cells of a sweep as a grid with their state; run, watch, stop, resume.

Cells stand in a grid as their users think of them: one row per env, strategy and model, one column per number of
trials. State is a glyph and a word; colour is only the third cue.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from tautools.files import tail
from tautools.params import load_sweep
from tautools.sweep.background import find_sweep_process, start_sweep, stop_sweep
from tautools.sweep.status import sweep_status
from tauwidgets.panel import Notice, Panel, Rendered, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.sweep import CellStatus
    from tautools.sweep.background import SweepProcess


CELL_GLYPHS = {
    "done": ("✔", "done", "tau-ok"),
    "running": ("…", "running", "tau-busy"),
    "partial": ("◐", "partly done", ""),
    "pending": ("○", "pending", ""),
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
    summary = _board_summary(snapshot)
    parts = [
        f"<div><b>Sweep {escape(snapshot.sweep)}</b>: {escape(summary)}</div>",
        f"<div class='tau-meta'>as of {_clock(snapshot.as_of)}"
        + (f" · {escape(snapshot.runner)}" if snapshot.runner else " · nothing is running")
        + "</div>",
        _grid(snapshot.cells),
        _failure_list(snapshot.cells),
    ]
    if snapshot.notice.text:
        kind = "tau-error" if snapshot.notice.error else "tau-meta"
        parts.append(f"<div class='{kind} tau-said'>{escape(snapshot.notice.text)}</div>")
    if snapshot.log:
        lines = escape("\n".join(snapshot.log))
        parts.append(f"<pre class='tau-log' aria-label='log of the run'>{lines}</pre>")
    return Rendered("".join(parts), _board_text(snapshot, summary))


def _board_summary(snapshot: BoardSnapshot) -> str:
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
    glyph, word, kind = CELL_GLYPHS.get(str(cell.state), ("?", str(cell.state), ""))
    faults = f", {cell.faults} faults" if cell.faults else ""
    title = f"cell {cell.index}: {word}, {cell.done} of {cell.planned} conversations{faults}"
    return (
        f"<button type='button' data-pick='{cell.index}' data-state='{escape(cell.state)}' title='{escape(title)}'>"
        f"<span class='{kind}'>{glyph} {escape(word)}</span> {cell.done}/{cell.planned}</button>"
    )


def _failure_list(cells: Sequence[CellStatus]) -> str:
    items = [
        f"<li>cell {cell.index} ({escape(f'{cell.env} {cell.strategy} {cell.model}')}): {escape(cell.cause)}</li>"
        for cell in cells
        if cell.cause and str(cell.state) != "done"
    ]
    return f"<ul class='tau-causes'>{''.join(items)}</ul>" if items else ""


def _board_text(snapshot: BoardSnapshot, summary: str) -> str:
    lines = [f"Sweep {snapshot.sweep}: {summary} (as of {_clock(snapshot.as_of)})"]
    for cell in snapshot.cells:
        glyph, word, _ = CELL_GLYPHS.get(str(cell.state), ("?", str(cell.state), ""))
        where = f"{cell.env} {cell.strategy} {cell.model} {cell.num_trials}"
        lines.append(
            f"{cell.index:4d}  {glyph} {word:<12} {cell.done:4d}/{cell.planned:<4d} {where}  {cell.cause}".rstrip()
        )
    if snapshot.notice.text:
        lines.append(snapshot.notice.text)
    return "\n".join(lines)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


LOG_LINES = 100


class SweepBoard(Panel):
    """One sweep, live. The work runs in a process of its own; closing the notebook does not stop it.

    Parameters
    ----------
    sweep : str, optional
        Name or path of the sweep file.
    workspace : path, optional
        The folder that holds results and runs; the current one by default.

    Examples
    --------
    >>> from tauwidgets import SweepBoard  # doctest: +SKIP
    >>> SweepBoard("demo")  # doctest: +SKIP
    """

    def __init__(self, sweep: str = "demo", workspace: str | Path = ".") -> None:
        super().__init__()
        self._source = str(sweep)
        self._workspace = Path(workspace)
        self._sweep = load_sweep(sweep, workspace=self._workspace)
        self._run = ipywidgets.Button(description="Run picked", icon="play", button_style="primary")
        self._resume = ipywidgets.Button(description="Run all pending", icon="forward")
        self._stop = ipywidgets.Button(description="Stop", icon="stop")
        self._clear = ipywidgets.Button(description="Pick none", icon="eraser")
        self._run.on_click(self._on_run)
        self._resume.on_click(self._on_resume)
        self._stop.on_click(self._on_stop)
        self._clear.on_click(self._on_clear)
        for widget, name in self._named():
            widget.add_class(f"tau-{name}")

    def _named(self) -> Sequence[tuple[Any, str]]:
        return (
            (self._run, "run-picked"),
            (self._resume, "run-all"),
            (self._stop, "stop-sweep"),
            (self._clear, "pick-none"),
        )

    def controls(self) -> Sequence[Any]:
        """Return the row of buttons."""
        return [ipywidgets.HBox([widget for widget, _ in self._named()])]

    def snapshot(self) -> BoardSnapshot:
        """Read where each cell stands, who works on it and what that process printed last."""
        runner = find_sweep_process(self._sweep.name, workspace=self._workspace)
        return BoardSnapshot(
            sweep=self._sweep.name,
            cells=sweep_status(self._sweep, workspace=self._workspace),
            runner=_process_text(runner),
            log=tail(Path(runner.log), LOG_LINES) if runner is not None else [],
            notice=self.notice,
            as_of=time.time(),
        )

    def render(self, snapshot: BoardSnapshot) -> Rendered:
        """Turn a snapshot into HTML and text."""
        return render_board(snapshot)

    # -- buttons

    def _on_run(self, _: Any) -> None:
        picked = sorted(int(index) for index in self.view.picked)
        if not picked:
            self.say("Pick cells first: click them in the grid.", error=True)
            return
        self.act("Starting", lambda: self._start(picked), self._run)

    def _on_resume(self, _: Any) -> None:
        self.act("Starting", lambda: self._start(None), self._resume)

    def _start(self, only: Sequence[int] | None) -> str:
        runner = start_sweep(self._sweep, workspace=self._workspace, source=self._source, only=only)
        what = "all pending cells" if only is None else "cells " + ", ".join(str(index) for index in only)
        return f"Started {what} (process {runner.pid})."

    def _on_stop(self, _: Any) -> None:
        self.act("Stopping", self._end, self._stop)

    def _end(self) -> str:
        stop_sweep(self._sweep, workspace=self._workspace)
        return "Stopped. Finished conversations are kept; the rest is pending."

    def _on_clear(self, _: Any) -> None:
        self.view.picked = []


def _process_text(runner: SweepProcess | None) -> str:
    if runner is None or not runner.alive:
        return ""
    return f"process {runner.pid} has worked for {time.time() - runner.started_at:.0f} s"
