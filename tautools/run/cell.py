"""Runs one cell, and waits for it so that a person can interrupt.

The work happens in a thread with an event loop of its own (`runner`); the caller's thread only waits and hands events
on. So the same call works in a terminal, in a notebook's kernel (whose event loop may be running, and which lives on
after an interrupt) and in a thread of a sweep.
"""

from __future__ import annotations

import logging
import queue
from typing import TYPE_CHECKING

from tautools.errors import RunError
from tautools.llm import Retry
from tautools.run.ledger import intact
from tautools.run.plan import Cell, prepare_cell
from tautools.run.runner import finished_result, start_run
from tautools.run.stop import Stop, catching_signals

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tautools.params.models import RunParams
    from tautools.records import Event
    from tautools.run.result import CellResult

__all__ = ["run_cell"]

log = logging.getLogger("tautools.run")


def _ignore(_event: Event) -> None:
    """Nobody listens."""


def run_cell(
    run: RunParams | Cell,
    *,
    workspace: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
    retry: Retry | None = None,
    stop: Stop | None = None,
) -> CellResult:
    """Run what one cell owes, and return what is done and what is still owed.

    A cell that is finished makes no model call and needs no server. SIGINT and SIGTERM let running conversations finish
    within the cell's `grace_s`, a second one ends at once; what was not finished stays owed, and the result says so.

    Parameters
    ----------
    run : RunParams or Cell
        The cell, prepared or not.
    workspace : Path, optional
        Where `results/` is; needed unless the cell is prepared.
    on_event : callable
        Called in the caller's thread with every start, finished conversation, retry, fault and stop. What it raises
        is logged and does not stop the run.
    retry : Retry, optional
        How often a model call that met a transient fault is tried again before its conversation is given up.
    stop : Stop, optional
        A way to stop the run from another thread, by `stop.request()`.

    Raises
    ------
    TautoolsError
        Bad input, before anything is made; or a disk that no longer takes results.
    """
    cell = _prepared(run, workspace)
    if not cell.owed and all(intact(cell.folder, row) for row in cell.done.values()):
        return finished_result(cell)
    if not cell.cast.endpoints:
        cell = prepare_cell(cell.run, workspace=cell.workspace)
    stop = stop or Stop()
    told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    with catching_signals(stop):
        result = start_run(cell, stop, told.put, retry or Retry())
        result.add_done_callback(lambda _: told.put(None))
        _listen(told, stop, on_event or _ignore)
    return result.result()


def _prepared(run: RunParams | Cell, workspace: Path | None) -> Cell:
    if isinstance(run, Cell):
        return run.refreshed()
    if workspace is None:
        raise RunError("No workspace was given.", next_step="Pass `workspace=Path(...)`, the folder of `results/`.")
    return prepare_cell(run, workspace=workspace, need_servers=False)


def _listen(told: queue.SimpleQueue[Event | None], stop: Stop, on_event: Callable[[Event], None]) -> None:
    """Hand events on until the run has ended; an interrupt that gets through as an exception is a request to stop."""
    while True:
        try:
            event = told.get()
            if event is None:
                return
            _hand_on(event, on_event)
        except KeyboardInterrupt:
            stop.request()


def _hand_on(event: Event, on_event: Callable[[Event], None]) -> None:
    try:
        on_event(event)
    except Exception:
        log.exception("A listener failed on %r; the run goes on.", event.kind)
