"""`tautools init`: a workspace from a site."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import ParamsName, json_option
from tautools.params import workspace_path

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.session import InitPlan

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools init                                    here, for this machine
  tautools init ~/work --site sol-gaudi            for the cluster
  tautools init ~/agent-project --site sol-gaudi   beside scripts and results that are there already
  tautools init ~/work --dry-run                   only show what would be written
"""


@click.command("init", epilog=_EPILOG)
@click.argument("folder", required=False, metavar="[DIR]")
@click.option("--site", type=ParamsName("sites"), default="local", show_default=True, help="Site, by name or path.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@json_option
@guard
def command(folder: str | None, site: str, dry_run: bool, as_json: bool) -> None:
    """Write a workspace into DIR: params to edit, notebooks, folders for logs and results.

    What exists is kept as it is. A folder with the scripts, logs, results and checkout of an agent-project is
    recognised: the workspace is written beside them and nothing of theirs is changed.
    """
    from tautools.session import plan_init, write_workspace

    plan = plan_init(workspace_path(folder), site)
    written, kept = tuple(plan.files), plan.kept
    if not dry_run:
        made = write_workspace(plan)
        written, kept = made.written, made.kept
    if as_json:
        click.echo(json.dumps(_told(plan, written, kept, dry_run=dry_run), indent=1))
    else:
        _tell(plan, written, kept, dry_run=dry_run)


def _tell(plan: InitPlan, written: tuple[Path, ...], kept: tuple[Path, ...], *, dry_run: bool) -> None:
    for line in plan.found.lines() if plan.found else []:
        click.echo(line)
    verb = "would write" if dry_run else "wrote"
    for path in written:
        click.echo(f"{verb:>11}  {path.relative_to(plan.workspace)}")
    for path in kept:
        click.echo(f"{'kept':>11}  {path.relative_to(plan.workspace)}")
    if dry_run:
        click.echo(f"Nothing was written to {plan.workspace}.")
    elif not written:
        click.echo(f"{plan.workspace} was complete already; nothing was changed.")
    else:
        click.echo(f"The workspace {plan.workspace} is ready for the site {plan.site}.")
        click.echo(f"Next: cd {shlex.quote(str(plan.workspace))} && tautools doctor --site {plan.site}")


def _told(plan: InitPlan, written: tuple[Path, ...], kept: tuple[Path, ...], *, dry_run: bool) -> dict[str, object]:
    found = plan.found
    return {
        "workspace": str(plan.workspace),
        "site": plan.site,
        "dry_run": dry_run,
        "written": [str(path) for path in written],
        "kept": [str(path) for path in kept],
        "agent_project": found
        and {
            "scripts": list(found.scripts),
            "tau_bench": str(found.tau_bench) if found.tau_bench else None,
            "results": [str(each.path) for each in found.results],
        },
    }
