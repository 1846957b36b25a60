"""`tautools server why` and `relaunch`: what went wrong, and the same server again with what mends it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option

if TYPE_CHECKING:
    from tautools.server import Diagnosis

__all__ = ["relaunch", "why"]


@click.command(
    epilog="\b\nExamples:\n  tautools server why qwen3-8b\n  tautools server why logs/user_1.out errors/user_1.err"
)
@click.argument("sources", nargs=-1, required=True, metavar="NAME|LOG...")
@workspace_option
@json_option
@guard
def why(sources: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Tell why a server failed, and what helps.

    NAME is a registered server; LOG are log files of any vLLM or Slurm job, read in the given order.
    """
    from tautools.server import Registry, diagnose
    from tautools.server.state import cause_of

    logs = [Path(source) for source in sources if Path(source).is_file()]
    if logs:
        if len(logs) < len(sources):
            raise click.UsageError("give the name of one server, or log files that exist")
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        found = diagnose(lines)
    elif len(sources) > 1:
        raise click.UsageError("give the name of one server, or log files that exist")
    else:
        registry = Registry(workspace)
        found = cause_of(registry.get(sources[0]), registry)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        _show(found)


@click.command(
    epilog="\b\nExamples:\n  tautools server relaunch qwen3-8b\n  tautools server relaunch qwen3-8b --with-fix --yes\n"
    "  tautools server relaunch qwen3-32b --exclude gaudi003"
)
@click.argument("name")
@click.option("--with-fix", is_flag=True, help="Change what its log asks for; shown before it is done.")
@click.option(
    "--exclude", metavar="[NODE]", is_flag=False, flag_value="", help="Not on this node.  [NODE: the log's held one]"
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Return at once; `server ls` shows how far it is.")
@workspace_option
@guard
def relaunch(name: str, with_fix: bool, exclude: str | None, yes: bool, no_wait: bool, workspace: Path) -> None:
    """Start a server again as it was started, or with what mends it, or away from a node.

    A changed value is written into its record and shown by `server ls --json`; the server file stays as it is.
    """
    from tautools.cli.progress import watch_starts
    from tautools.server.cards.elsewhere import away_from
    from tautools.server.relaunch import plan_relaunch
    from tautools.server.relaunch import relaunch as start_again

    plan = plan_relaunch(name, workspace=workspace, with_fix=with_fix)
    if exclude is not None:
        plan = away_from(plan, exclude)
    if plan.diagnosis is not None:
        _show(plan.diagnosis)
    for change in plan.changes:
        click.secho(f"  {change}", bold=True)
    if with_fix and plan.changes and not yes:
        click.confirm("Start it with this change?", abort=True, err=True)
    server = start_again(plan, workspace=workspace)
    failures = {} if no_wait else watch_starts([server], timeout_s=None, quiet=False)
    if failures:
        raise failures[name]
    click.echo(f"{server.name}: {server.record.base_url}  model {server.record.model}")


def _show(found: Diagnosis) -> None:
    click.echo(f"Cause:    {found.cause}")
    for line in (found.evidence, *found.also):
        if line and line != found.cause:
            click.secho(f"  log:    {line[:400]}", dim=True)
    click.echo(f"Remedy:   {found.remedy}")
    for name, value in found.fix.items():
        click.echo(
            f"Fix:      {name} = {'not set' if value is None else json.dumps(value)}   (server relaunch --with-fix)"
        )
