"""What commands print: values as text or JSON, params with their origins, and progress."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
from pydantic_core import to_jsonable_python
from rich.console import Console, RenderableType
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TaskID, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tautools.cli.commands import exit_if, wants_json
from tautools.errors import TautoolsError

if TYPE_CHECKING:
    from tautools.params import Resolved
    from tautools.records import Event, Setting
    from tautools.run import Cell, CellResult
    from tautools.servers import Server
    from tautools.sweep import SweepEvent

_CHECK_WORDS = {True: "ok", False: "failed", None: "does not apply"}

# What a program may know of a server: where the key lies, and not the key.
PUBLIC = "name backend engine model base_url host pid log_out log_err key_file simulated"

NOTHING_RUN = "Nothing has been run here."


def emit(value: Any, *, text: Callable[[], object] | str | None = None, indent: int | None = 1) -> None:
    """Print a value: for a program as JSON, for a person as `text`, by default as the value's own.

    Lists, mappings, dataclasses and records are values; what has an `as_dict` is asked for it. `text` may be a
    function that returns one or prints by itself. An `indent` of None gives JSON of one line.
    """
    if wants_json():
        click.echo(json.dumps(value, indent=indent, ensure_ascii=False, default=_plain))
        return
    shown = text() if callable(text) else value if text is None else text
    if shown is not None:
        click.echo(str(shown))


def emit_each(values: Sequence[Any], show: Callable[[Any], None]) -> None:
    """Print values: as one JSON list for a program, else each as `show` prints it."""

    def show_all() -> None:
        for value in values:
            show(value)

    emit(values, text=show_all)


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it."""
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if dataclasses.is_dataclass(value):
        return pick(value, " ".join(field.name for field in dataclasses.fields(value)))
    return to_jsonable_python(value)


def simulated_mark(*, simulated: bool) -> str:
    """Return the mark of simulated figures, in rich's markup, or nothing."""
    return " [bold red]SIMULATED[/]" if simulated else ""


def setting_title(setting: Setting) -> str:
    """Return what a setting is, in rich's markup: env, strategy, agent model, and whether it is simulated."""
    words = f"{escape(setting.env)} {setting.strategy.value} {escape(setting.agent.model)}"
    return words + simulated_mark(simulated=setting.simulated)


def plain_table(
    *titles: str, rows: Iterable[Iterable[object]] = (), right: Sequence[str] = (), fold: Sequence[str] = ()
) -> Table:
    """Return a table without a frame; in `right` are columns of numbers, in `fold` those whose words may be broken.

    Values of `rows` are shown as their text is, without markup; a `rich.text.Text` keeps its style.
    """
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left",
                         overflow="fold" if title in fold else "ellipsis")  # fmt: skip
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table


def table_console() -> Console:
    """Return a console as wide as the terminal; a pipe or a file gets lines of any length."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(width=400, highlight=False)


def print_wide(value: Any) -> None:
    """Print a table whose long lines are left to the terminal, so that they can be copied."""
    table_console().print(value, soft_wrap=True)


_AUTO = (
    "max_tokens auto: 4096 tokens, 32768 where the model may think, never more than its context leaves; "
    "hosted models by their provider. `--dry-run` says which."
)


def show_resolved(resolved: Resolved[Any]) -> None:
    """Print params with where each value came from: what `--show-config` prints."""

    def shown(value: Any) -> str:
        plain = isinstance(value, str) and "\n" not in value
        return "-" if value is None else value if plain else json.dumps(value, ensure_ascii=False)

    def show() -> None:
        rows = [("key", "value", "from"), *((row.key, shown(row.value), str(row.origin)) for row in resolved.rows())]
        widths = [min(60, max(len(row[column]) for row in rows)) for column in (0, 1)]
        for number, (key, value, origin) in enumerate(rows):
            line = f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}"
            click.secho(line, bold=number == 0, dim=origin == "default")
        if any(value == "auto" and key.endswith("max_tokens") for key, value, _ in rows):
            click.secho(_AUTO, dim=True)

    emit(resolved.as_json(), text=show)


def pick(value: Any, names: str) -> dict[str, Any]:
    """Return some attributes of a value, by name; the names are separated by spaces."""
    return {name: getattr(value, name) for name in names.split()}


def cell_result_dict(result: CellResult) -> dict[str, Any]:
    """Return what a program reads of a run's result."""
    setting = result.setting
    fields = " ".join(field.name for field in dataclasses.fields(result) if field.name != "setting")
    return pick(setting, "env simulated") | {"setting_id": setting.id} | pick(result, fields)


def age_of(seconds: float) -> str:
    """Return a duration as people say it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


class NotedBars(Progress):
    """Bars with one more line below them."""

    note = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return the bars, and the note where there is one."""
        yield from super().get_renderables()
        if self.note:
            yield Text(self.note, style="yellow", no_wrap=True, overflow="ellipsis")


def progress_bars(*columns: str | ProgressColumn, quiet: bool = False, transient: bool = False) -> NotedBars:
    """Return bars on standard error; where that is no terminal they are not drawn, only printed lines show.

    With `quiet`, and where JSON is asked for, nothing shows.
    """
    quiet = quiet or wants_json()
    console = Console(stderr=True, quiet=quiet, soft_wrap=True, highlight=False)
    return NotedBars(*columns, console=console, disable=quiet or not console.is_terminal, transient=transient)


def watch_starts(servers: Sequence[Server], timeout_s: float | None = None) -> dict[str, TautoolsError]:
    """Wait for all servers side by side, show how far each is, and return what went wrong, by name.

    Each may take `timeout_s`; by default only a lack of progress ends the wait.
    """
    columns = ("{task.fields[name]}", BarColumn(bar_width=24), TimeElapsedColumn(), "{task.description}")
    bars = progress_bars(*columns)
    failures: dict[str, BaseException] = {}
    interrupted = threading.Event()

    def watch(server: Server, task: TaskID) -> None:
        def show(text: str, percent: float) -> None:
            if interrupted.is_set():  # a server that is stopped for it is not to blame
                return
            bars.update(task, description=text, completed=percent)
            if not bars.console.is_terminal:
                bars.console.print(f"{server.name}: {text}", markup=False)

        try:
            server.wait_ready(
                timeout_s,
                on_progress=lambda snapshot: show(str(snapshot), min(snapshot.percent or 0, 99)),
                on_check=lambda check: show(f"verifying: {check.name} {_CHECK_WORDS[check.passed]}", 99),
                on_wait=lambda words: bars.update(task, description=f"verifying: waiting for {words}"),
            )
            show("ready", 100)
        except BaseException as error:  # noqa: BLE001 - raised again where the threads are waited for
            failures[server.name] = error
            show(f"{type(error).__name__}: {getattr(error, 'problem', error)}", 100)

    with spoken(bars):
        tasks = [bars.add_task("starting", total=100, name=server.name) for server in servers]
        # Daemons, so that Ctrl-C ends the wait and not only the waiting for it; the servers go on starting.
        threads = [threading.Thread(target=watch, args=each, daemon=True) for each in zip(servers, tasks, strict=True)]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(0.05)
        finally:
            interrupted.set()
    known = {name: error for name, error in failures.items() if isinstance(error, TautoolsError)}
    for name in failures.keys() - known.keys():
        raise failures[name]
    return known


def show_servers(servers: Sequence[Server], *, done: str = "") -> None:
    """Print what was `done` to servers, with their addresses and models, or the job that will have an address."""
    for server in () if wants_json() else servers:
        where = server.record.base_url or f"job {server.record.job_id}"
        click.echo(f"{server.name}: {done}{where}  model {server.record.model}")
    if wants_json():
        emit([pick(each.record, PUBLIC) | pick(each.state(), "state detail") for each in servers])


def emit_files(rows: list[dict[str, Any]], broken: Mapping[str, TautoolsError], *, text: Any) -> None:
    """Print what files hold, as `emit` does, and below it the files that cannot be used."""
    unused = [{"name": name, "error": error.problem, "next_step": error.next_step} for name, error in broken.items()]
    emit(rows + unused, text=text)
    for row in unused:
        click.secho(f"Cannot be used: {row['error']}", fg="red", err=True)
        click.echo(f"  Next: {row['next_step']}", err=True)


def show_failures(failures: dict[str, TautoolsError]) -> None:
    """Print what went wrong with each server, and exit with 1 when anything did."""
    for name, error in failures.items():
        click.secho(f"{name}: {error}", err=True, fg="red")
    exit_if(failures)


@contextlib.contextmanager
def cell_progress(cell: Cell, *, quiet: bool = False) -> Iterator[Callable[[Event], None]]:
    """Show how far a cell is while the block runs; yields what to give to `run_cell` as `on_event`."""
    from tautools.run.ledger import clock

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), "{task.fields[rate]}", TimeElapsedColumn())
    bar = progress_bars(*columns, quiet=quiet)
    name = f"{cell.setting.env} {cell.setting.strategy.value} {cell.folder.name}"
    task = bar.add_task(name, total=len(cell.planned), completed=len(cell.done), rate="")
    stopping = ""

    def show(event: Event) -> None:
        nonlocal stopping
        data = event.data
        if event.kind in {"start", "done"}:
            rate = f"passed {data['passed']}/{data['scored']}" if data["scored"] else ""
            rate += f"  {data['user_errors']} user_error" if data.get("user_errors") else ""
            left = "" if data.get("eta_s") is None else f"  ETA {clock(data['eta_s'])}"
            bar.update(task, completed=data["done"], rate=stopping or rate + left)
        elif event.kind == "waiting":
            bar.note = event.message and f"waiting for {event.message}"
            bar.refresh()
        elif event.kind == "interrupted":
            stopping = "stopping: running conversations may finish; interrupt again to end at once"
            bar.update(task, rate=stopping)

    with bar, _logging_to(bar.console):
        yield show


@contextlib.contextmanager
def _logging_to(console: Console) -> Iterator[None]:
    """Print the run's log: warnings above a bar, every line where no bar is drawn and the log may be searched."""
    logger = logging.getLogger("tautools")
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, level=logging.WARNING)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    before = logger.level
    if not console.quiet:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


SPOKEN_EVERY_S = 8.0  # without a terminal the words of a bar are printed this often


@contextlib.contextmanager
def spoken(bars: Progress) -> Iterator[None]:
    """Draw the bars while the block runs; where none can be drawn, print their words every few seconds."""
    ended = threading.Event()

    def speak() -> None:
        while not ended.wait(SPOKEN_EVERY_S):
            for task in bars.tasks:
                if not task.finished:
                    words = ": ".join(filter(None, (task.fields.get("name"), task.description)))
                    bars.console.print(f"  {task.elapsed or 0:.0f} s: {words}", markup=False)

    speaker = threading.Thread(target=speak, daemon=True)
    with bars:
        if not (bars.console.quiet or bars.console.is_terminal):
            speaker.start()
        try:
            yield
        finally:
            ended.set()


@contextlib.contextmanager
def sweep_progress() -> Iterator[Callable[[SweepEvent], None]]:
    """Show how far a sweep is, on standard error, while the block runs; yields what to give the events to."""
    columns = ("{task.description}", BarColumn(bar_width=30), TimeElapsedColumn())
    bars = progress_bars(*columns, transient=True)
    task = bars.add_task("planning", total=None)

    def show(event: SweepEvent) -> None:
        if event.message:
            bars.console.print(event.message, markup=False)
        words = sweep_line(event) if event.done or event.kind == "progress" else "starting servers and checking them"
        bars.update(task, description=words, completed=event.done, total=event.planned or None)

    with spoken(bars):
        yield show


def sweep_line(event: SweepEvent) -> str:
    """Return how far a sweep is."""
    from tautools.sweep.plan import duration

    words = f"{event.cells_done} of {event.cells} cells, {event.done} of {event.planned} conversations"
    if event.eta_s is not None and event.done < event.planned:
        words += f", about {duration(event.eta_s)} to go"
    return f"{words}; waiting for {event.waiting}" if event.waiting else words
