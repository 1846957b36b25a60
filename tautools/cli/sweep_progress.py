"""Progress of a sweep: a bar with an estimate on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress

    from tautools.sweep import SweepEvent

__all__ = ["shown_progress"]

LINE_EVERY_S = 15.0
"""Without a terminal a line of progress is printed this often [s]."""


@contextlib.contextmanager
def shown_progress(*, quiet: bool = False) -> Iterator[Callable[[SweepEvent], None]]:
    """Show how far a sweep is, on standard error, while the block runs; yields what to tell the events to.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), TimeElapsedColumn())
    console = Console(stderr=True, quiet=quiet, soft_wrap=True)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bars:
        yield _Shown(bars).show


class _Shown:
    """Shows events as they come."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("planning", total=None)
        self._last_line = time.monotonic()

    def show(self, event: SweepEvent) -> None:
        """Print what an event says, and move the bar."""
        if event.message:
            self._bars.console.print(event.message, highlight=False, markup=False)
        far = _how_far(event)
        self._bars.update(self._task, description=far, completed=event.done, total=event.planned or None)
        quiet_s = time.monotonic() - self._last_line
        if event.kind == "progress" and quiet_s >= LINE_EVERY_S and not self._bars.console.is_terminal:
            self._bars.console.print(far, highlight=False)
            self._last_line = time.monotonic()


def _how_far(event: SweepEvent) -> str:
    from tautools.sweep.view import duration

    words = f"{event.cells_done} of {event.cells} cells, {event.done} of {event.planned} conversations"
    if event.eta_s is None or event.done >= event.planned:
        return words
    return f"{words}, about {duration(event.eta_s)} to go"
