"""`tautools sweep`: plan many cells, work on them, see where they stand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.text import Text

from tautools.cli.commands import EXIT_INTERRUPTED, EXIT_UNFINISHED, ListOption, VerbGroup, examples_text
from tautools.cli.options import ParamsName, dry_run_option, gathered, set_option, show_config_option, usual_options
from tautools.cli.output import emit, emit_files, pick, plain_table, print_wide, show_resolved, sweep_progress
from tautools.params import load_all, resolve
from tautools.params.models import SweepParams
from tautools.sweep import expand, outline_sweep, plan_sweep, run_sweep
from tautools.sweep.plan import PLAN_COLUMNS
from tautools.sweep.status import STATUS_COLUMNS, SweepWatch

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.sweep import SweepPlan, SweepStatus


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """The sweep that a command is about, and how it is to answer."""

    sweep: SweepParams
    only: list[int] | None
    workspace: Path
    as_json: bool


def _sweep_request(
    name: str, cells: list[int] | None, overrides: tuple[str, ...], workspace: Path, show_config: bool, as_json: bool
) -> SweepRequest:
    """Return the sweep that is meant; with `show_config` print it and end."""
    resolved = resolve(SweepParams, name, workspace=workspace, overrides=overrides)
    if show_config:
        show_resolved(resolved, as_json=as_json)
        raise click.exceptions.Exit
    return SweepRequest(resolved.params, sorted(cells) if cells else None, workspace, as_json)


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
def list_sweeps(workspace: Path, as_json: bool) -> None:
    """List the sweep files: the workspace's own and those that come with tautools."""
    sweeps, broken = load_all(SweepParams, workspace)
    rows: list[dict[str, Any]] = [
        {"name": name, "cells": len(expand(sweep)), "description": sweep.description} for name, sweep in sweeps.items()
    ]
    lines = [f"{row['name']:<20} {row['cells']:>4} cells  {row['description']}" for row in rows]
    emit_files(rows, broken, as_json=as_json, text="\n".join(lines))


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
        emit(outline, as_json=chosen.as_json)
        return
    made = plan_sweep(chosen.sweep, workspace=chosen.workspace, only=chosen.only)
    emit(_plan_dict(made), as_json=chosen.as_json, text=lambda: _show_plan(made))


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
    with sweep_progress(quiet=chosen.as_json) as on_event:
        result = run_sweep(sweep, workspace=chosen.workspace, only=chosen.only, on_event=on_event)
    value = pick(result, "sweep executed interrupted finished cells") | {"took_s": round(result.took_s, 1)}
    emit(value, as_json=chosen.as_json, text=str(result))
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
        emit(list(cells), as_json=chosen.as_json, text=lambda: print_wide(_status_table(cells)))
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
    return Group(Text(cells.summary), table, *causes)
