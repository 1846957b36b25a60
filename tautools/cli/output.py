"""What the command line prints: values, errors with their exit code, progress."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import click

from tautools.errors import BenchError, ParamsError, TautoolsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import Console
    from rich.progress import Progress, TaskID

    from tautools.records import Check, Event
    from tautools.run import Cell
    from tautools.servers import Server, Snapshot
    from tautools.sweep import SweepEvent


EXIT_FINE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_UNFINISHED = 3
"""Work is still pending: run the same command again."""
EXIT_INTERRUPTED = 130

P = ParamSpec("P")
R = TypeVar("R")


def exit_code(error: TautoolsError) -> int:
    """Return 2 for bad input, 1 for everything else that went wrong."""
    return EXIT_BAD_INPUT if isinstance(error, ParamsError | BenchError) else EXIT_FAILED


def guard(function: Callable[P, R]) -> Callable[P, R]:
    """Tell a `TautoolsError` of a command in words on standard error, and exit with its code.

    An interrupt that the command did not handle exits with 130. Other exceptions are faults of tautools and keep their
    traceback.
    """

    @functools.wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except TautoolsError as error:
            print_and_exit(error)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            sys.exit(EXIT_INTERRUPTED)

    return guarded


def print_and_exit(error: TautoolsError) -> NoReturn:
    """Print an error the way all commands do, then exit."""
    click.echo(click.style("Error: ", fg="red", bold=True, reset=True) + str(error), err=True)
    sys.exit(exit_code(error))


def broken_rows(broken: Mapping[str, TautoolsError]) -> list[dict[str, str]]:
    """Return files that cannot be used as rows of a list in JSON."""
    return [{"name": name, "error": error.problem, "next_step": error.next_step} for name, error in broken.items()]


def show_broken(broken: Mapping[str, TautoolsError]) -> None:
    """Print files that cannot be used, below the list of the good ones."""
    for error in broken.values():
        click.secho(f"Cannot be used: {error.problem}", fg="red", err=True)
        click.echo(f"  Next: {error.next_step}", err=True)


def watch_starts(
    servers: Sequence[Server], *, timeout_s: float | None = None, quiet: bool = False
) -> dict[str, TautoolsError]:
    """Wait for all servers side by side, show how far each is, and return what went wrong, by name.

    Parameters
    ----------
    servers : sequence of Server
        Just launched.
    timeout_s : float, optional
        Most seconds to wait for each; by default only a lack of progress ends the wait.
    quiet : bool
        Show nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("{task.fields[name]}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    bars = Progress(*columns, console=console, disable=quiet or not console.is_terminal)

    def show(server: Server, task: TaskID, text: str, percent: float) -> None:
        bars.update(task, description=text, completed=percent)
        if not console.is_terminal:
            console.print(f"{server.name}: {text}", highlight=False)

    failures: dict[str, BaseException] = {}

    def wait(server: Server, tell: Callable[[str, float], None]) -> None:
        try:
            _wait_for_server(server, timeout_s, tell)
        except BaseException as error:  # noqa: BLE001 - raised again where the threads are waited for
            failures[server.name] = error
            tell(f"{type(error).__name__}: {getattr(error, 'problem', error)}", 100)

    with bars:
        threads = []
        for server in servers:
            tell = partial(show, server, bars.add_task("starting", total=100, name=server.name))
            # Daemons, so that Ctrl-C ends the wait and not only the waiting for it; the servers go on starting.
            threads.append(threading.Thread(target=wait, args=(server, tell), daemon=True))
            threads[-1].start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
    return _raise_unexpected(failures)


def _raise_unexpected(failures: dict[str, BaseException]) -> dict[str, TautoolsError]:
    told: dict[str, TautoolsError] = {}
    for name, error in failures.items():
        if not isinstance(error, TautoolsError):
            raise error
        told[name] = error
    return told


def _wait_for_server(server: Server, timeout_s: float | None, show: Callable[[str, float], None]) -> None:
    def on_progress(snapshot: Snapshot) -> None:
        show(str(snapshot), snapshot.percent or 0)

    def on_check(check: Check) -> None:
        word = {True: "ok", False: "failed", None: "does not apply"}[check.passed]
        show(f"verifying: {check.name} {word}", 99)

    server.wait_ready(timeout_s, on_progress=on_progress, on_check=on_check)
    show("ready", 100)


@contextlib.contextmanager
def cell_progress(cell: Cell, *, quiet: bool = False) -> Iterator[Callable[[Event], None]]:
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
            bar.update(task, completed=event.data["done"], told=stopping or _rate_and_eta(event))
        elif event.kind == "interrupted":
            stopping = "stopping: running conversations may finish; interrupt again to end at once"
            bar.update(task, told=stopping)

    with bar, _logging_to(console, quiet=quiet):
        yield show


def _rate_and_eta(event: Event) -> str:
    from tautools.run.progress import clock

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


LINE_EVERY_S = 15.0
"""Without a terminal a line of progress is printed this often [s]."""


@contextlib.contextmanager
def sweep_progress(*, quiet: bool = False) -> Iterator[Callable[[SweepEvent], None]]:
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
        yield _SweepBar(bars).show


class _SweepBar:
    """Shows events as they come."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task = bars.add_task("planning", total=None)
        self._last_line = time.monotonic()

    def show(self, event: SweepEvent) -> None:
        """Print what an event says, and move the bar."""
        if event.message:
            self._bars.console.print(event.message, highlight=False, markup=False)
        far = _sweep_words(event)
        self._bars.update(self._task, description=far, completed=event.done, total=event.planned or None)
        quiet_s = time.monotonic() - self._last_line
        if event.kind == "progress" and quiet_s >= LINE_EVERY_S and not self._bars.console.is_terminal:
            self._bars.console.print(far, highlight=False)
            self._last_line = time.monotonic()


def _sweep_words(event: SweepEvent) -> str:
    from tautools.sweep.plan import duration

    words = f"{event.cells_done} of {event.cells} cells, {event.done} of {event.planned} conversations"
    if event.eta_s is None or event.done >= event.planned:
        return words
    return f"{words}, about {duration(event.eta_s)} to go"
