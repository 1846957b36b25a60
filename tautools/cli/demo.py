"""`tautools demo`: simulated servers, a small sweep of real tau2 tasks, two reports.

Running it again finds everything done: no server is started, no model is called, and the reports are those of before.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tautools.cli.commands import EXIT_INTERRUPTED, EXIT_UNFINISHED, command
from tautools.cli.options import dry_run_option
from tautools.cli.output import sweep_line
from tautools.params import load_sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tautools.sweep import SweepEvent, SweepResult

DEMO_SWEEP = "demo"
"""The sweep file that is run; with `--full` it is `demo-full`."""

SILENCE_S = 6.0
"""After this long without a line, one says what is being done [s]."""

REPORTS_S = 15.0
"""What building the two reports is taken to last [s]; measured on two cores."""

_PAGES = ("pass_k.html", "latency.html")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration came to."""

    result: SweepResult
    pages: tuple[Path, ...]
    """The two reports; none when the sweep is not finished."""
    built: bool
    """Whether the reports were built by this run."""


def run_demo(
    workspace: Path, *, sweep: str = DEMO_SWEEP, report: Callable[[str, str], None] = lambda _line, _state: None
) -> DemoResult:
    """Make the workspace, run the sweep, build the reports; errors are those of `init`, `sweep run` and `report`.

    `report` receives what happened, empty when nothing did, and what is being done now.
    """
    report("", "loading the benchmark's tasks")
    from tautools.session import plan_init, write_workspace
    from tautools.sweep import run_sweep

    def on_event(event: SweepEvent) -> None:
        starting = event.kind in {"plan", "server"} and not event.cells_done
        report(event.message, "starting servers and checking them" if starting else sweep_line(event))

    workspace = workspace.expanduser().absolute()
    write_workspace(plan_init(workspace, copy_params=False))
    result = run_sweep(load_sweep(sweep, workspace=workspace), workspace=workspace, on_event=on_event)
    if not result.finished:
        return DemoResult(result, (), built=False)
    if not result.executed and (known := _earlier_pages(workspace, sweep)):
        return DemoResult(result, known, built=False)
    report(f"{result}\nBuilding two reports: about {REPORTS_S:.0f} s", "building the reports")
    from tautools.report import build_reports

    built = build_reports(workspace=workspace, sweep=sweep, on_progress=lambda line: report("", line))
    return DemoResult(result, built.pages, built=True)


def _earlier_pages(workspace: Path, sweep: str) -> tuple[Path, ...]:
    """Return the newest complete pair of reports, or nothing."""
    for folder in sorted((workspace / "reports" / sweep).glob("*"), reverse=True):
        pages = tuple(folder / name for name in _PAGES)
        if all(page.is_file() for page in (*pages, folder / "report.html")):
            return pages
    return ()


@contextlib.contextmanager
def _reporting() -> Iterator[Callable[[str, str], None]]:
    """Print what happens, and what is being done when nothing has happened for a while."""
    began = last = time.monotonic()
    state = "starting"
    ended = threading.Event()

    def report(line: str, now: str) -> None:
        nonlocal last, state
        state = now
        if line:
            click.echo(line)
            last = time.monotonic()

    def watch() -> None:
        nonlocal last
        while not ended.wait(0.5):
            if time.monotonic() - last >= SILENCE_S:
                click.echo(f"  {time.monotonic() - began:.0f} s: {state}")
                last = time.monotonic()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield report
    finally:
        ended.set()
        watcher.join()


@command(
    "tautools demo                       in ./demo; about a minute, a second run takes seconds",
    "tautools demo --full                all three strategies; about two minutes",
    "tautools demo --workspace /tmp/try  somewhere else",
    "tautools demo --dry-run             what would be started, and how many conversations",
    name="demo",
)
@click.option("--workspace", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), show_default=True,
              help="Folder to make and work in.")  # fmt: skip
@click.option("--full", is_flag=True, help="Run the sweep demo-full: three strategies in place of one.")
@dry_run_option
def demo_command(workspace: Path, *, full: bool, dry_run: bool) -> None:
    """Start simulated servers, run a small sweep of real tau2 tasks, build two reports."""
    sweep = f"{DEMO_SWEEP}-full" if full else DEMO_SWEEP
    click.echo(f"Demo in {workspace}. The tasks are tau2's own; the models are SIMULATED, and so is every figure.")
    if dry_run:
        from tautools.sweep import plan_sweep

        workspace = workspace.expanduser().absolute()
        click.echo(str(plan_sweep(load_sweep(sweep, workspace=workspace), workspace=workspace)))
        click.echo("Then two reports are built. Nothing was started and nothing was written.")
        return
    with _reporting() as report:
        demo = run_demo(workspace, sweep=sweep, report=report)
    if not demo.built:
        click.echo(str(demo.result))
    if not demo.pages:
        click.echo("The reports are built when the sweep is finished. Next: run `tautools demo` again to go on.")
        raise SystemExit(EXIT_INTERRUPTED if demo.result.interrupted else EXIT_UNFINISHED)
    from tautools.report import how_to_open

    click.echo("Reports (SIMULATED):" if demo.built else "Reports (SIMULATED), built by an earlier run:")
    for page in demo.pages:
        click.echo(f"  {page}")
    click.echo(how_to_open(demo.pages[0].parent / "report.html"))
