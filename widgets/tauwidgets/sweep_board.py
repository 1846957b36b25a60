"""SweepBoard: the cells of a sweep as a grid with their state; run, watch, stop, resume."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from tautools.files import tail
from tautools.params import load_sweep
from tautools.sweep.background import find_runner, start_sweep, stop_sweep
from tautools.sweep.status import sweep_status
from tauwidgets.board_view import BoardSnapshot, render_board
from tauwidgets.panel import Panel, Rendered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.sweep.background import Runner

__all__ = ["SweepBoard"]

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
        self._resume = ipywidgets.Button(description="Run all owed", icon="forward")
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
        runner = find_runner(self._sweep.name, workspace=self._workspace)
        return BoardSnapshot(
            sweep=self._sweep.name,
            cells=sweep_status(self._sweep, workspace=self._workspace),
            runner=_in_words(runner),
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
        what = "all owed cells" if only is None else "cells " + ", ".join(str(index) for index in only)
        return f"Started {what} (process {runner.pid})."

    def _on_stop(self, _: Any) -> None:
        self.act("Stopping", self._end, self._stop)

    def _end(self) -> str:
        stop_sweep(self._sweep, workspace=self._workspace)
        return "Stopped. Finished conversations are kept; the rest is owed."

    def _on_clear(self, _: Any) -> None:
        self.view.picked = []


def _in_words(runner: Runner | None) -> str:
    if runner is None or not runner.alive:
        return ""
    return f"process {runner.pid} has worked for {time.time() - runner.started_at:.0f} s"
