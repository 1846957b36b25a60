"""Progress of one cell: a bar on a terminal, the log's own lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from tautools.records import Event
    from tautools.run import Cell

__all__ = ["cell_bar"]


@contextlib.contextmanager
def cell_bar(cell: Cell, *, quiet: bool = False) -> Iterator[Callable[[Event], None]]:
    """Show how far a cell is while the block runs; yields what to give to `run_cell` as `on_event`.

    Parameters
    ----------
    cell : Cell
        What is run.
    quiet : bool
        Show nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        console=console,
        disable=quiet or not console.is_terminal,
    )
    name = f"{cell.setting.env} {cell.setting.strategy.value} {cell.folder.name}"
    task = bar.add_task(name, total=len(cell.planned), completed=len(cell.done), told="")

    stopping = ""

    def show(event: Event) -> None:
        nonlocal stopping
        if event.kind in {"start", "done"}:
            bar.update(task, completed=event.data["done"], told=stopping or _told(event))
        elif event.kind == "interrupted":
            stopping = "stopping: running conversations may finish; interrupt again to end at once"
            bar.update(task, told=stopping)

    with bar, _logging_to(console, quiet=quiet):
        yield show


def _told(event: Event) -> str:
    from tautools.run.tell import clock

    data = event.data
    rate = f"passed {data['passed']}/{data['scored']}" if data["scored"] else ""
    eta = data.get("eta_s")
    return f"{rate}  ETA {clock(eta)}" if eta is not None else rate


@contextlib.contextmanager
def _logging_to(console: Console, *, quiet: bool) -> Iterator[None]:
    """Print the run's log: warnings beside a bar, every line where nobody watches a bar and somebody will grep."""
    from rich.logging import RichHandler

    logger = logging.getLogger("tautools")
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, level=logging.WARNING)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    before = logger.level
    if not quiet:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
