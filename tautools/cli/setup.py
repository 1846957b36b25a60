"""`tautools init`, `doctor` and `config`: the way to a first result."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.commands import EXIT_FAILED, VerbGroup, command, examples_text
from tautools.cli.options import (
    ParamsName,
    dry_run_option,
    json_option,
    run_flags,
    run_options,
    set_option,
    site_options,
    usual_options,
)
from tautools.cli.output import broken_rows, emit, pick, show_broken, show_resolved
from tautools.cli.server_plan import show_profile
from tautools.params import (
    KINDS,
    find_params,
    list_params,
    load_all,
    resolve,
    resolve_run,
    shipped,
    workspace_path,
)
from tautools.params.models import ServerParams
from tautools.params.paths import WORKSPACE_VARIABLE
from tautools.params.resolve import MODELS
from tautools.session import FindingStatus, doctor, plan_init, write_workspace

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.params import Kind
    from tautools.params.models import SiteParams
    from tautools.session import InitPlan


@command(
    "tautools init                                    here, for this machine",
    "tautools init ~/work --site sol-gaudi            for the cluster",
    "tautools init ~/agent-project --site sol-gaudi   next to scripts and results that are there already",
    "tautools init ~/work --dry-run                   only show what would be written",
    name="init",
)
@click.argument("folder", required=False, metavar="[DIR]")
@click.option("--site", type=ParamsName("sites"), default="local", show_default=True, help="Site, by name or path.")
@dry_run_option
@json_option
def init_command(folder: str | None, site: str, dry_run: bool, as_json: bool) -> None:
    """Write a workspace into DIR: params to edit, notebooks, folders for logs and results.

    What exists is kept as it is. A folder with the scripts, logs, results and checkout of an agent-project is
    recognised: the workspace is written next to them and nothing of theirs is changed.
    """
    plan = plan_init(workspace_path(folder), site)
    written, kept = tuple(plan.files), plan.kept
    if not dry_run:
        made = write_workspace(plan)
        written, kept = made.written, made.kept
    files = {"dry_run": dry_run, "written": written, "kept": kept}
    found = plan.found and pick(plan.found, "scripts tau_bench results")
    value = pick(plan, "workspace site") | files | {"agent_project": found}
    emit(value, as_json=as_json, text=lambda: "\n".join(_init_lines(plan, written, kept, dry_run=dry_run)))


def _init_lines(plan: InitPlan, written: tuple[Path, ...], kept: tuple[Path, ...], *, dry_run: bool) -> list[str]:
    lines = plan.found.lines() if plan.found else []
    verb = "would write" if dry_run else "wrote"
    lines += [f"{verb:>11}  {path.relative_to(plan.workspace)}" for path in written]
    lines += [f"{'kept':>11}  {path.relative_to(plan.workspace)}" for path in kept]
    if dry_run:
        return [*lines, f"Nothing was written to {plan.workspace}."]
    if not written:
        return [*lines, f"{plan.workspace} was complete already; nothing was changed."]
    return [
        *lines,
        f"The workspace {plan.workspace} is ready for the site {plan.site}.",
        f"Next: cd {shlex.quote(str(plan.workspace))} && tautools doctor --site {plan.site}",
    ]


_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@command(
    "tautools doctor",
    "tautools doctor --site sol-gaudi --sweep sol-gaudi-120",
    "tautools doctor --paste",
    "tautools doctor --json | jq '.findings[] | select(.status != \"ok\")'",
    name="doctor",
    notes="Exit codes: 0 when nothing fails (warnings do not count), 1 when something does.",
)
@click.option("--site", type=ParamsName("sites"),
              help="Where the work runs.  [default: the workspace's own site, else this machine]")  # fmt: skip
@click.option("--sweep", "sweeps", multiple=True, type=ParamsName("sweeps"),
              help="Check the models of this sweep.  [default: the workspace's own sweeps]")  # fmt: skip
@click.option("--paste", is_flag=True, help="Print a text block for a help request, without secrets and user names.")
@click.option(
    "--workspace", metavar="FOLDER", help=f"The workspace.  [default: {WORKSPACE_VARIABLE} or the current folder]"
)
@json_option
def doctor_command(
    site: str | None, sweeps: tuple[str, ...], paste: bool, workspace: str | None, as_json: bool
) -> None:
    """Say whether this machine can do the work: each problem with what to do. Nothing is changed."""
    report = doctor(workspace_path(workspace), site=site, sweeps=sweeps or None)
    if as_json:
        emit(report.as_json(), as_json=True)
    elif paste:
        click.echo(report.shareable(os.environ))
    else:
        for line in str(report).splitlines():
            mark, space, rest = line.partition(" ")
            click.echo(click.style(mark, fg=_COLOURS[mark]) + space + rest if mark in _COLOURS else line)
    if report.worst is FindingStatus.FAIL:
        raise SystemExit(EXIT_FAILED)


@click.group(
    "config",
    cls=VerbGroup,
    epilog=examples_text(
        "tautools config list",
        "tautools config sweep demo --set agent.temperature=0.2",
        "tautools config server qwen3-4b --json",
        "tautools config server qwen3-8b --site sol-gaudi",
        "tautools config persona anger",
        "tautools config run --env retail --model M --limit 2",
    ),
)
def config_command() -> None:
    """Show sites, servers, sweeps, personas and runs as they will be used; nothing is started."""


@config_command.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@usual_options
def config_list(kind: str | None, workspace: Path, as_json: bool) -> None:
    """List what can be named: the workspace's own params and the shipped ones."""
    kinds = [each for each in KINDS if kind in (None, each)]
    files = [
        (each, name, find_params(each, name, workspace)) for each in kinds for name in list_params(each, workspace)
    ]
    ours = shipped("params")
    lines = [f"{each:<8} {name:<28} {'shipped' if file.is_relative_to(ours) else file}" for each, name, file in files]
    rows: list[dict[str, Any]] = [{"kind": each, "name": name, "file": file} for each, name, file in files]
    broken = {name: error for each in kinds for name, error in load_all(MODELS[each], workspace)[1].items()}
    emit(rows + broken_rows(broken), as_json=as_json, text="\n".join(lines))
    show_broken(broken)


def _by_name(kind: Kind) -> None:
    @config_command.command(kind[:-1], help=f"Show one {kind[:-1]} as it will be used, by name or path.")
    @click.argument("name", type=ParamsName(kind))
    @set_option
    @usual_options
    def one(name: str, overrides: tuple[str, ...], workspace: Path, as_json: bool) -> None:
        show_resolved(resolve(MODELS[kind], name, workspace=workspace, overrides=overrides), as_json=as_json)


_by_name("sites")
_by_name("sweeps")
_by_name("personas")


@config_command.command("server")
@click.argument("name", type=ParamsName("servers"))
@site_options
@usual_options
def config_server(name: str, site: SiteParams, overrides: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Show one server as it will be used, by name or path, with the profile of the site's cards."""
    resolved = resolve(ServerParams, name, workspace=workspace, overrides=overrides)
    show_resolved(resolved, as_json=as_json)
    if not as_json:
        show_profile(resolved.params, site)


@config_command.command("run")
@run_options()
@click.option("--file", type=click.Path(), default=None, help="YAML file with the params of one run.")
@set_option
@usual_options
def config_run(file: str | None, overrides: tuple[str, ...], workspace: Path, as_json: bool, **options: Any) -> None:
    """Show one run as `tautools run` with the same options would do it."""
    resolved = resolve_run(run_flags(options), workspace=workspace, file=file, overrides=overrides)
    show_resolved(resolved, as_json=as_json)
