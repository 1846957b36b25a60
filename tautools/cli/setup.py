"""`tautools init`, `doctor`, `config` and `demo`: the way to a first result."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.commands import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNFINISHED, VerbCommand, VerbGroup
from tautools.cli.options import (
    ParamsName,
    dry_run_option,
    json_option,
    run_flags,
    run_options,
    set_option,
    site_option,
    workspace_option,
)
from tautools.cli.output import broken_rows, emit, show_broken, show_resolved, sweep_progress
from tautools.files import ensure_folder
from tautools.params import (
    KINDS,
    find_params,
    list_params,
    load_all,
    load_sweep,
    resolve,
    resolve_run,
    shipped,
    workspace_path,
)
from tautools.params.models import ServerParams
from tautools.params.paths import WORKSPACE_VARIABLE
from tautools.params.resolve import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.params import Kind
    from tautools.params.models import SiteParams
    from tautools.session import InitPlan
    from tautools.sweep import SweepEvent, SweepResult

_INIT_EPILOG = """\b
Examples:
  tautools init                                    here, for this machine
  tautools init ~/work --site sol-gaudi            for the cluster
  tautools init ~/agent-project --site sol-gaudi   next to scripts and results that are there already
  tautools init ~/work --dry-run                   only show what would be written
"""


@click.command("init", cls=VerbCommand, epilog=_INIT_EPILOG)
@click.argument("folder", required=False, metavar="[DIR]")
@click.option("--site", type=ParamsName("sites"), default="local", show_default=True, help="Site, by name or path.")
@dry_run_option
@json_option
def init_command(folder: str | None, site: str, dry_run: bool, as_json: bool) -> None:
    """Write a workspace into DIR: params to edit, notebooks, folders for logs and results.

    What exists is kept as it is. A folder with the scripts, logs, results and checkout of an agent-project is
    recognised: the workspace is written next to them and nothing of theirs is changed.
    """
    from tautools.session import plan_init, write_workspace

    plan = plan_init(workspace_path(folder), site)
    written, kept = tuple(plan.files), plan.kept
    if not dry_run:
        made = write_workspace(plan)
        written, kept = made.written, made.kept
    value = {
        "workspace": plan.workspace,
        "site": plan.site,
        "dry_run": dry_run,
        "written": written,
        "kept": kept,
        "agent_project": plan.found
        and {
            "scripts": plan.found.scripts,
            "tau_bench": plan.found.tau_bench,
            "results": plan.found.results,
        },
    }
    emit(value, as_json=as_json, text="\n".join(_init_lines(plan, written, kept, dry_run=dry_run)))


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


_DOCTOR_EPILOG = """\b
Examples:
  tautools doctor
  tautools doctor --site sol-gaudi --sweep sol-gaudi-120
  tautools doctor --paste
  tautools doctor --json | jq '.findings[] | select(.status != "ok")'

\b
Exit codes: 0 when nothing fails (warnings do not count), 1 when something does.
"""

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor", cls=VerbCommand, epilog=_DOCTOR_EPILOG)
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
    from tautools.session import FindingStatus, doctor

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


_CONFIG_EPILOG = """\b
Examples:
  tautools config list
  tautools config sweep demo --set agent.temperature=0.2
  tautools config server qwen3-4b --json
  tautools config server qwen3-8b --site sol-gaudi
  tautools config persona anger
  tautools config run --env retail --model M --limit 2
"""


@click.group("config", cls=VerbGroup, epilog=_CONFIG_EPILOG)
def config_command() -> None:
    """Show sites, servers, sweeps, personas and runs as they will be used; nothing is started."""


@config_command.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@workspace_option
@json_option
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
    @workspace_option
    @json_option
    def one(name: str, overrides: tuple[str, ...], workspace: Path, as_json: bool) -> None:
        show_resolved(resolve(MODELS[kind], name, workspace=workspace, overrides=overrides), as_json=as_json)


_by_name("sites")
_by_name("sweeps")
_by_name("personas")


@config_command.command("server")
@click.argument("name", type=ParamsName("servers"))
@site_option
@set_option
@workspace_option
@json_option
def config_server(name: str, site: SiteParams, overrides: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Show one server as it will be used, by name or path, with the profile of the site's cards."""
    from tautools.cli.server_plan import show_profile

    resolved = resolve(ServerParams, name, workspace=workspace, overrides=overrides)
    show_resolved(resolved, as_json=as_json)
    if not as_json:
        show_profile(resolved.params, site)


@config_command.command("run")
@run_options()
@click.option("--file", type=click.Path(), default=None, help="YAML file with the params of one run.")
@set_option
@workspace_option
@json_option
def config_run(file: str | None, overrides: tuple[str, ...], workspace: Path, as_json: bool, **options: Any) -> None:
    """Show one run as `tautools run` with the same options would do it."""
    resolved = resolve_run(run_flags(options), workspace=workspace, file=file, overrides=overrides)
    show_resolved(resolved, as_json=as_json)


DEMO_SWEEP = "demo"
"""The sweep file that is run."""

_DEMO_PAGES = ("pass_k.html", "latency.html")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration came to."""

    result: SweepResult
    pages: tuple[Path, ...]
    """The two reports; none when the sweep is not finished."""
    built: bool
    """Whether the reports were built by this run."""


def run_demo(workspace: Path, *, on_event: Callable[[SweepEvent], None] | None = None) -> DemoResult:
    """Make the workspace, run the sweep, build the reports.

    Parameters
    ----------
    workspace : Path
        Made when it is not there.
    on_event : callable, optional
        Told what happens in the sweep.

    Raises
    ------
    TautoolsError
        When the workspace cannot be written, a server does not start, or a report cannot be built.
    """
    from tautools.sweep import run_sweep

    workspace = ensure_folder(workspace.expanduser().absolute())
    result = run_sweep(load_sweep(DEMO_SWEEP, workspace=workspace), workspace=workspace, on_event=on_event)
    if not result.finished:
        return DemoResult(result, (), built=False)
    known = () if result.executed else _earlier_pages(workspace)
    return DemoResult(result, known or _build_demo_reports(workspace), built=not known)


def _earlier_pages(workspace: Path) -> tuple[Path, ...]:
    """Return the newest complete pair of reports, or nothing."""
    for folder in sorted((workspace / "reports" / DEMO_SWEEP).glob("*"), reverse=True):
        pages = tuple(folder / name for name in _DEMO_PAGES)
        if all(page.is_file() for page in pages) and (folder / "report.html").is_file():
            return pages
    return ()


def _build_demo_reports(workspace: Path) -> tuple[Path, ...]:
    from tautools.report import build_reports

    return build_reports(workspace=workspace, sweep=DEMO_SWEEP).pages


_DEMO_EPILOG = """\b
Examples:
  tautools demo                       in ./demo; about two minutes, a second run takes seconds
  tautools demo --workspace /tmp/try  somewhere else
"""


@click.command("demo", cls=VerbCommand, epilog=_DEMO_EPILOG)
@click.option("--workspace", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), show_default=True,
              help="Folder to make and work in.")  # fmt: skip
def demo_command(workspace: Path) -> None:
    """Start simulated servers, run a small sweep of real tau2 tasks, build two reports."""
    click.echo(f"Demo in {workspace}. The tasks are tau2's own; the models are SIMULATED, and so is every figure.")
    with sweep_progress() as on_event:
        demo = run_demo(workspace, on_event=on_event)
    click.echo(str(demo.result))
    if not demo.pages:
        click.echo("The reports are built when the sweep is finished. Next: run `tautools demo` again to go on.")
        raise SystemExit(EXIT_INTERRUPTED if demo.result.interrupted else EXIT_UNFINISHED)
    from tautools.report import how_to_open

    click.echo("Reports (SIMULATED):" if demo.built else "Reports (SIMULATED), built by an earlier run:")
    for page in demo.pages:
        click.echo(f"  {page}")
    click.echo(how_to_open(demo.pages[0].parent / "report.html"))
