"""`tautools sweep`: plan many cells, work on them, see where they stand; `tautools demo`: one with all around it.

Running the demo again finds everything done: no server is started, no model is called, and the reports are those of
before.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Group
from rich.live import Live
from rich.progress import TextColumn, TimeElapsedColumn
from rich.text import Text

from tautools.cli.commands import EXIT_INTERRUPTED, EXIT_UNFINISHED, ListOption, VerbGroup, command, examples_text
from tautools.cli.options import ParamsName, dry_run_option, gathered, set_option, show_config_option, usual_options
from tautools.cli.output import (
    emit,
    emit_files,
    pick,
    plain_table,
    print_wide,
    progress_bars,
    show_resolved,
    spoken,
    sweep_progress,
)
from tautools.params import load_all, load_sweep, resolve
from tautools.params.models import SweepParams
from tautools.sweep import SweepPlan, SweepStatus, expand, outline_sweep, plan_sweep, run_sweep
from tautools.sweep.plan import PLAN_COLUMNS
from tautools.sweep.status import STATUS_COLUMNS, SweepWatch


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """The sweep that a command is about, and how it is to answer."""

    sweep: SweepParams
    only: list[int] | None
    workspace: Path


def _sweep_request(
    name: str, cells: list[int] | None, overrides: tuple[str, ...], workspace: Path, show_config: bool
) -> SweepRequest:
    """Return the sweep that is meant; with `show_config` print it and end."""
    resolved = resolve(SweepParams, name, workspace=workspace, overrides=overrides)
    if show_config:
        show_resolved(resolved)
        raise click.exceptions.Exit
    return SweepRequest(resolved.params, sorted(cells) if cells else None, workspace)


sweep_options = gathered(
    "chosen",
    _sweep_request,
    click.argument("name", metavar="NAME", type=ParamsName("sweeps")),
    click.option("--cells", cls=ListOption, numbers=True, help="Indices of cells, such as 0-3,7.  [default: all]"),
    set_option,
    show_config_option,
    usual_options,
)


@click.group(
    "sweep",
    cls=VerbGroup,
    epilog=examples_text(
        "tautools sweep ls                            sweep files there are",
        "tautools sweep plan demo                     cells, conversations, servers, time; starts nothing",
        "tautools sweep run demo                      servers up, work, servers down; run again to resume",
        "tautools sweep run demo --cells 0-3,7 --set tasks.limit=2",
        "tautools sweep status demo --watch",
    ),
)
def sweep_command() -> None:
    """Plan many cells, work on them, see where they stand. NAME is a file of params/sweeps/ or a path."""


@sweep_command.command("ls")
@usual_options
def list_sweeps(workspace: Path) -> None:
    """List the sweep files: the workspace's own and those that come with tautools."""
    sweeps, broken = load_all(SweepParams, workspace)
    rows: list[dict[str, Any]] = [
        {"name": name, "cells": len(expand(sweep)), "description": sweep.description} for name, sweep in sweeps.items()
    ]
    lines = [f"{row['name']:<20} {row['cells']:>4} cells  {row['description']}" for row in rows]
    emit_files(rows, broken, text="\n".join(lines))


@sweep_command.command(
    epilog=examples_text("tautools sweep plan demo", "tautools sweep plan demo --json | jq .pending")
)
@sweep_options
def plan(chosen: SweepRequest) -> None:
    """Say what a sweep would cost. Nothing is started and nothing is written."""
    _plan(chosen)


def _plan(chosen: SweepRequest) -> None:
    outline = outline_sweep(chosen.sweep, workspace=chosen.workspace, only=chosen.only)
    if outline is not None:
        emit(outline)
        return
    made = plan_sweep(chosen.sweep, workspace=chosen.workspace, only=chosen.only)
    emit(_plan_dict(made), text=lambda: _show_plan(made))


def _show_plan(made: SweepPlan) -> None:
    click.echo(str(made))
    print_wide(plain_table(*PLAN_COLUMNS, rows=[each.columns for each in made.cells]))


def _plan_dict(made: SweepPlan) -> dict[str, Any]:
    return {
        "sweep": made.sweep.name,
        **pick(made, "conversations shared done pending basis"),
        "estimate_s": round(made.estimate_s, 1),
        "context": [str(forecast) for forecast in made.context],
        "servers": [pick(need, "name model roles cells running") for need in made.servers],
        "cells": [
            cell.as_dict() | pick(cell, "model planned shared pending") | {"setting_id": cell.prepared.setting.id}
            for cell in made.cells
        ],
    }


@sweep_command.command(
    epilog=examples_text("tautools sweep run demo", "tautools sweep run demo --cells 0-3 --parallel 4")
)
@click.option("--parallel", type=click.IntRange(1), help="Settings worked on at a time, instead of the file's.")
@dry_run_option
@sweep_options
def run(chosen: SweepRequest, *, parallel: int | None, dry_run: bool) -> None:
    """Bring servers up, work on the pending cells, stop what was started. Run it again to resume.

    Ends with 0 when nothing is pending any more, 3 when something is, 130 after an interrupt.
    """
    if dry_run:
        _plan(chosen)
        return
    sweep = chosen.sweep.model_copy(update={"parallel_settings": parallel} if parallel is not None else {})
    with sweep_progress() as on_event:
        result = run_sweep(sweep, workspace=chosen.workspace, only=chosen.only, on_event=on_event)
    value = pick(result, "sweep executed interrupted finished cells") | {"took_s": round(result.took_s, 1)}
    emit(value, text=str(result))
    if not result.finished or result.interrupted:
        raise SystemExit(EXIT_INTERRUPTED if result.interrupted else EXIT_UNFINISHED)


@sweep_command.command(epilog=examples_text("tautools sweep status demo", "tautools sweep status demo --watch"))
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, or until nothing is pending.")
@sweep_options
def status(chosen: SweepRequest, *, watch: bool) -> None:
    """Say where each cell stands, from the ledger."""
    sweep = SweepWatch(chosen.sweep, workspace=chosen.workspace, only=chosen.only)
    if not watch:
        cells = sweep.status()
        emit(list(cells), text=lambda: print_wide(_status_table(cells)))
        return
    with Live(auto_refresh=False) as live:
        while True:
            cells = sweep.status()
            live.update(_status_table(cells), refresh=True)
            if all(cell.state == "done" for cell in cells):
                return
            time.sleep(2.0)


def _status_table(cells: SweepStatus) -> Group:
    table = plain_table(*STATUS_COLUMNS, rows=[cell.columns for cell in cells])
    causes = [Text(f"cell {cell.index}: {cell.cause}", style="red") for cell in cells if cell.cause]
    waits = {f"waiting for {cell.waiting}": None for cell in cells if cell.waiting}
    notes = [Text(note, style="yellow") for note in cells.notes]
    return Group(Text(cells.summary), table, *causes, *(Text(each, style="yellow") for each in waits), *notes)


DEMO_SWEEP = "demo"
"""The sweep file that is run; with `--full` it is `demo-full`."""

_PAGES = ("pass_k.html", "latency.html")


def run_demo(workspace: Path, *, sweep: str = DEMO_SWEEP) -> tuple[Path, ...]:
    """Make the workspace, run the sweep, build the reports, and show how far each of them is.

    Returns the two reports; when they are of an earlier run nothing is built. An unfinished sweep ends the command.
    """
    click.echo("Loading the benchmark's tasks.")
    from tautools.report import build_reports
    from tautools.session import plan_init, write_workspace

    workspace = workspace.expanduser().absolute()
    write_workspace(plan_init(workspace, copy_params=False))
    with sweep_progress() as on_event:
        result = run_sweep(load_sweep(sweep, workspace=workspace), workspace=workspace, on_event=on_event)
    click.echo(str(result))
    if not result.finished:
        click.echo("The reports are built when the sweep is finished. Next: run `tautools demo` again to go on.")
        raise SystemExit(EXIT_INTERRUPTED if result.interrupted else EXIT_UNFINISHED)
    known = () if result.executed else _earlier_pages(workspace, sweep)
    if known:
        return known
    click.echo("Building two reports: about 15 s")
    bars = progress_bars(TimeElapsedColumn(), TextColumn("{task.description}"), transient=True)
    task = bars.add_task("building the reports")
    with spoken(bars):
        return build_reports(
            workspace=workspace, sweep=sweep, on_progress=lambda line: bars.update(task, description=line)
        ).pages


def _earlier_pages(workspace: Path, sweep: str) -> tuple[Path, ...]:
    """Return the newest complete pair of reports, or nothing."""
    for folder in sorted((workspace / "reports" / sweep).glob("*"), reverse=True):
        pages = tuple(folder / name for name in _PAGES)
        if all(page.is_file() for page in (*pages, folder / "report.html")):
            return pages
    return ()


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
        workspace = workspace.expanduser().absolute()
        click.echo(str(plan_sweep(load_sweep(sweep, workspace=workspace), workspace=workspace)))
        click.echo("Then two reports are built. Nothing was started and nothing was written.")
        return
    pages = run_demo(workspace, sweep=sweep)
    from tautools.report import how_to_open

    click.echo("Reports (SIMULATED):")
    for page in pages:
        click.echo(f"  {page}")
    click.echo(how_to_open(pages[0].parent / "report.html"))
