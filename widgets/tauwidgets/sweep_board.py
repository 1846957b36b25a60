"""SweepBoard: the cells of a sweep as a grid with their state; run, watch, stop, resume.

The grid has one row for each env, strategy and model, and one column for each number of trials. State is a glyph and a
word; colour is only the third cue.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets

from tautools.files import tail
from tautools.params import load_sweep
from tautools.sweep import CellStatus
from tautools.sweep.run import SweepProcess, find_sweep_process, start_sweep, stop_sweep
from tautools.sweep.status import SweepStatus, SweepWatch
from tauwidgets.panel import Notice, Panel, Rendered, button, clock, escape, log_html, table_html

LOG_LINES = 100

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
    """The process that works on the sweep, in words; empty when there is none."""
    log: Sequence[str]
    notice: Notice
    as_of: float
    """Unix time [s]."""

    @property
    def summary(self) -> str:
        """How many cells are done and how many failed."""
        if not self.cells:
            return "no cells"
        states = [cell.state for cell in self.cells]
        failed = f", {states.count('failed')} failed" if "failed" in states else ""
        errors = SweepStatus(self.cells).user_errors
        lost = f", {errors} conversations ended in a user_error" if errors else ""
        return f"{states.count('done')} of {len(states)} cells done{failed}{lost}"


class SweepBoard(Panel):
    """One sweep, live. The work runs in a process of its own; closing the notebook does not stop it.

    Parameters
    ----------
    sweep : str, optional
        Name or path of the sweep file.
    workspace : path, optional
        The folder of results and runs; the current one by default.

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
        self._watch = SweepWatch(self._sweep, workspace=self._workspace)
        self._run = button("run-picked", "Run picked", "play", button_style="primary")
        self._resume = button("run-all", "Run all pending", "forward")
        self._stop = button("stop-sweep", "Stop", "stop")
        self._clear = button("pick-none", "Pick none", "eraser")
        self._run.on_click(self._on_run)
        self._resume.on_click(lambda _: self.act("Starting", lambda: self._start(None), self._resume))
        self._stop.on_click(lambda _: self.act("Stopping", self._end, self._stop))
        self._clear.on_click(self._on_clear)

    def controls(self) -> Sequence[Any]:
        """Return the row of buttons."""
        return [ipywidgets.HBox([self._run, self._resume, self._stop, self._clear])]

    def snapshot(self) -> BoardSnapshot:
        """Read where each cell stands, which process works on it and what that printed last."""
        process = find_sweep_process(self._sweep.name, workspace=self._workspace)
        return BoardSnapshot(
            sweep=self._sweep.name,
            cells=self._watch.status(),
            runner=_process_text(process),
            log=tail(Path(process.log), LOG_LINES) if process is not None else [],
            notice=self.notice,
            as_of=time.time(),
        )

    def render(self, snapshot: BoardSnapshot) -> Rendered:
        """Turn a snapshot into HTML and text."""
        return render_board(snapshot)

    def _on_run(self, _: Any) -> None:
        picked = sorted(int(index) for index in self.view.picked)
        if not picked:
            self.say("Pick cells first: click them in the grid.", error=True)
            return
        self.act("Starting", lambda: self._start(picked), self._run)

    def _start(self, only: Sequence[int] | None) -> str:
        process = start_sweep(self._sweep, workspace=self._workspace, source=self._source, only=only)
        what = "all pending cells" if only is None else "cells " + ", ".join(str(index) for index in only)
        return f"Started {what} (process {process.pid})."

    def _end(self) -> str:
        stop_sweep(self._sweep, workspace=self._workspace)
        return "Stopped. Finished conversations are kept; the rest is pending."

    def _on_clear(self, _: Any) -> None:
        self.view.picked = []


def render_board(snapshot: BoardSnapshot) -> Rendered:
    """Turn a snapshot into HTML for the page and text for a terminal."""
    runner = escape(snapshot.runner) or "nothing is running"
    parts = (
        f"<div><b>Sweep {escape(snapshot.sweep)}</b>: {escape(snapshot.summary)}</div>",
        f"<div class='tau-meta'>as of {clock(snapshot.as_of)} · {runner}</div>",
        _grid(snapshot.cells),
        _failure_list(snapshot.cells),
        _waiting_list(snapshot.cells),
        _flag_list(snapshot.cells),
        snapshot.notice.to_html(),
        log_html(snapshot.log, "log of the run"),
    )
    return Rendered("".join(parts), _board_text(snapshot))


def _grid(cells: Sequence[CellStatus]) -> str:
    if not cells:
        return "<p>This sweep has no cells.</p>"
    trials = sorted({cell.num_trials for cell in cells})
    heads = ("env", "strategy", "agent", *(f"{number} trial{'s' if number > 1 else ''}" for number in trials))
    rows = (
        [f"<td>{escape(text)}</td>" for text in head] + [f"<td>{_cell(by_trials.get(n))}</td>" for n in trials]
        for head, by_trials in _rows(cells)
    )
    return table_html(heads, rows, css="tau-board")


def _rows(cells: Sequence[CellStatus]) -> list[tuple[tuple[str, str, str], dict[int, CellStatus]]]:
    """Put cells that differ only in their trials into one row; agents of one model, asked differently, get two."""
    rows: list[tuple[tuple[str, str, str], dict[int, CellStatus]]] = []
    for cell in cells:
        head = (cell.env, cell.strategy, cell.model)
        if not rows or rows[-1][0] != head or cell.num_trials in rows[-1][1]:
            rows.append((head, {}))
        rows[-1][1][cell.num_trials] = cell
    return rows


def _cell(cell: CellStatus | None) -> str:
    if cell is None:
        return ""
    glyph, word, css = CELL_GLYPHS.get(cell.state, ("?", cell.state, ""))
    faults = f", {cell.faults} faults" if cell.faults else ""
    errors = f", {cell.user_errors} user_error" if cell.user_errors else ""
    title = f"cell {cell.index}: {word}, {cell.done} of {cell.planned} conversations{faults}{errors}"
    return (
        f"<button type='button' data-pick='{cell.index}' data-state='{escape(cell.state)}' title='{escape(title)}'>"
        f"<span class='{css}'>{glyph} {escape(word)}</span> {cell.done}/{cell.planned}</button>"
    )


def _failure_list(cells: Sequence[CellStatus]) -> str:
    items = [
        f"<li>cell {cell.index} ({escape(f'{cell.env} {cell.strategy} {cell.model}')}): {escape(cell.cause)}</li>"
        for cell in cells
        if cell.cause and cell.state != "done"
    ]
    return f"<ul class='tau-causes'>{''.join(items)}</ul>" if items else ""


def _waiting_list(cells: Sequence[CellStatus]) -> str:
    waits = {cell.waiting: None for cell in cells if cell.waiting}  # cells of one setting wait for the same call
    return "".join(f"<div class='tau-meta'>waiting for {escape(each)}</div>" for each in waits)


def _flag_list(cells: Sequence[CellStatus]) -> str:
    items = "".join(f"<li>{escape(note)}</li>" for note in SweepStatus(cells).notes)
    return f"<ul class='tau-flags' aria-label='answers that look wrong'>{items}</ul>" if items else ""


def _board_text(snapshot: BoardSnapshot) -> str:
    lines = [f"Sweep {snapshot.sweep}: {snapshot.summary} (as of {clock(snapshot.as_of)})"]
    for cell in snapshot.cells:
        glyph, word, _ = CELL_GLYPHS.get(cell.state, ("?", cell.state, ""))
        progress = f"{cell.index:4d}  {glyph} {word:<12} {cell.done:4d}/{cell.planned:<4d}"
        lines.append(f"{progress} {cell.env} {cell.strategy} {cell.model} {cell.num_trials}  {cell.cause}".rstrip())
        if cell.waiting:
            lines.append(f"      waiting for {cell.waiting}")
    lines += SweepStatus(snapshot.cells).notes
    return "\n".join([*lines, *([snapshot.notice.text] if snapshot.notice.text else [])])


def _process_text(process: SweepProcess | None) -> str:
    if process is None or not process.alive:
        return ""
    return f"process {process.pid} has worked for {time.time() - process.started_at:.0f} s"
