"""`tautools sweep`: plan many cells, work on them, see where they stand."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.options import ParamsName, json_option, new_workspace_option, set_option, show_config_option
from tautools.cli.output import EXIT_INTERRUPTED, EXIT_UNFINISHED, broken_rows, guard, show_broken
from tautools.cli.setup import show_resolved
from tautools.params import resolve
from tautools.params.models import SweepParams

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tautools.sweep import SweepPlan, SweepResult, SweepStatus


_SWEEP_EPILOG = """\b
Examples:
  tautools sweep ls                            sweep files there are
  tautools sweep plan demo                     cells, conversations, servers, time; starts nothing
  tautools sweep run demo                      servers up, work, servers down; run again to resume
  tautools sweep run demo --cells 0-3,7 --set tasks.limit=2
  tautools sweep status demo --watch
"""


@dataclass(frozen=True, slots=True)
class _SweepRequest:
    """The sweep that a command is about."""

    sweep: SweepParams
    only: list[int] | None
    workspace: Path


def _of_a_sweep(verb: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument and options that name a sweep, and hand it what they name."""

    @click.argument("name", metavar="NAME", type=ParamsName("sweeps"))
    @click.option("--cells", metavar="LIST", help="Indices of cells, such as 0-3,7.  [default: all]")
    @set_option
    @show_config_option
    @new_workspace_option
    @guard
    @functools.wraps(verb)
    def named(name: str, cells: str | None, workspace: Path, **options: Any) -> None:
        from tautools.sweep import parse_indices

        resolved = resolve(SweepParams, name, workspace=workspace, overrides=options.pop("overrides"))
        if options.pop("show_config"):
            show_resolved(resolved, as_json=options["as_json"])
            return
        only = None if cells is None else parse_indices(cells)
        verb(_SweepRequest(resolved.params, only, workspace), **options)

    return named


@click.group("sweep", epilog=_SWEEP_EPILOG)
def sweep_command() -> None:
    """Plan many cells, work on them, see where they stand. NAME is a file of params/sweeps/ or a path."""


@sweep_command.command("ls")
@new_workspace_option
@json_option
@guard
def list_sweeps(workspace: Path, as_json: bool) -> None:
    """List the sweep files: the workspace's own and those that come with tautools."""
    from tautools.params import load_all
    from tautools.sweep import expand

    sweeps, broken = load_all(SweepParams, workspace)
    rows = [
        {"name": name, "cells": len(expand(sweep)), "description": sweep.description} for name, sweep in sweeps.items()
    ]
    if as_json:
        click.echo(json.dumps(rows + broken_rows(broken), indent=1))
        return
    for row in rows:
        click.echo(f"{row['name']:<20} {row['cells']:>4} cells  {row['description']}")
    show_broken(broken)


@sweep_command.command(
    epilog="\b\nExamples:\n  tautools sweep plan demo\n  tautools sweep plan demo --json | jq .pending"
)
@json_option
@_of_a_sweep
def plan(chosen: _SweepRequest, *, as_json: bool) -> None:
    """Say what a sweep would cost. Nothing is started and nothing is written."""
    _show_plan(chosen, as_json=as_json)


@sweep_command.command(
    epilog="\b\nExamples:\n  tautools sweep run demo\n  tautools sweep run demo --cells 0-3 --parallel 4"
)
@click.option("--parallel", type=click.IntRange(1), help="Settings worked on at a time, instead of the file's.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop.")
@json_option
@_of_a_sweep
def run(chosen: _SweepRequest, *, parallel: int | None, dry_run: bool, as_json: bool) -> None:
    """Bring servers up, work on the pending cells, stop what was started. Run it again to resume.

    Ends with 0 when nothing is pending any more, 3 when something is, 130 after an interrupt.
    """
    if dry_run:
        _show_plan(chosen, as_json=as_json)
        return
    from tautools.cli.output import sweep_progress
    from tautools.sweep import run_sweep

    sweep = chosen.sweep.model_copy(update={"parallel_settings": parallel} if parallel is not None else {})
    with sweep_progress(quiet=as_json) as on_event:
        result = run_sweep(sweep, workspace=chosen.workspace, only=chosen.only, on_event=on_event)
    click.echo(json.dumps(_result_row(result), indent=1) if as_json else str(result))
    if result.interrupted:
        raise SystemExit(EXIT_INTERRUPTED)
    if not result.finished:
        raise SystemExit(EXIT_UNFINISHED)


@sweep_command.command(epilog="\b\nExamples:\n  tautools sweep status demo\n  tautools sweep status demo --watch")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, or until nothing is pending.")
@json_option
@_of_a_sweep
def status(chosen: _SweepRequest, *, watch: bool, as_json: bool) -> None:
    """Say where each cell stands, from the ledger."""
    if watch:
        _watch_sweep(chosen)
        return
    found = _status(chosen)
    if as_json:
        click.echo(json.dumps([asdict(cell) for cell in found], indent=1))
        return
    from rich.console import Console

    Console(soft_wrap=True).print(_status_table(found))


def _show_plan(chosen: _SweepRequest, *, as_json: bool) -> None:
    from tautools.sweep import outline_sweep, plan_sweep

    outline = outline_sweep(chosen.sweep, workspace=chosen.workspace, only=chosen.only)
    if outline is not None:
        click.echo(json.dumps(outline.as_row(), indent=1) if as_json else str(outline))
        return
    made = plan_sweep(chosen.sweep, workspace=chosen.workspace, only=chosen.only)
    if as_json:
        click.echo(json.dumps(_plan_row(made), indent=1))
        return
    click.echo(str(made))
    from rich.console import Console
    from rich.table import Table

    table = Table("cell", "env", "strategy", "model", "trials", "conversations", "shared", "pending", box=None)
    for cell in made.cells:
        run = cell.cell.run
        numbers = (run.num_trials, cell.planned, cell.shared, cell.pending)
        words = (str(cell.cell.index), run.env, run.strategy.value, cell.model)
        table.add_row(*words, *(str(number) for number in numbers))
    Console(soft_wrap=True).print(table)


def _plan_row(made: SweepPlan) -> dict[str, Any]:
    return {
        "sweep": made.sweep.name,
        "conversations": made.conversations,
        "shared": made.shared,
        "done": made.done,
        "pending": made.pending,
        "estimate_s": round(made.estimate_s, 1),
        "basis": made.basis,
        "context": [str(each) for each in made.context],
        "servers": [
            {"name": need.name, "model": need.model, "roles": need.roles, "cells": need.cells, "running": need.running}
            for need in made.servers
        ],
        "cells": [
            {
                "index": cell.cell.index,
                "name": cell.cell.name,
                "env": cell.cell.run.env,
                "strategy": cell.cell.run.strategy.value,
                "model": cell.model,
                "num_trials": cell.cell.run.num_trials,
                "planned": cell.planned,
                "shared": cell.shared,
                "pending": cell.pending,
                "setting_id": cell.prepared.setting.id,
            }
            for cell in made.cells
        ],
    }


def _result_row(result: SweepResult) -> dict[str, Any]:
    return {
        "sweep": result.sweep,
        "executed": result.executed,
        "interrupted": result.interrupted,
        "finished": result.finished,
        "took_s": round(result.took_s, 1),
        "cells": [asdict(cell) for cell in result.cells],
    }


def _status(chosen: _SweepRequest) -> SweepStatus:
    from tautools.sweep import sweep_status

    return sweep_status(chosen.sweep, workspace=chosen.workspace, only=chosen.only)


def _status_table(found: SweepStatus) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from tautools.sweep.status import GLYPHS

    table = Table("cell", "env", "strategy", "model", "trials", "state", "conversations", box=None)
    for cell in found:
        state = f"{GLYPHS[cell.state]} {cell.state}"
        words = (str(cell.index), cell.env, cell.strategy, cell.model, str(cell.num_trials))
        table.add_row(*words, state, f"{cell.done} of {cell.planned}")
    causes = [Text(f"cell {cell.index}: {cell.cause}", style="red") for cell in found if cell.cause]
    return Group(Text(found.summary), table, *causes)


def _watch_sweep(chosen: _SweepRequest) -> None:
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        while True:
            found = _status(chosen)
            live.update(_status_table(found), refresh=True)
            if all(cell.state == "done" for cell in found):
                return
            time.sleep(2.0)
