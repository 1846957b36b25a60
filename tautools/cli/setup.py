"""`tautools init`, `doctor`, `config` and `demo`: the way to a first result."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.options import (
    ParamsName,
    json_option,
    new_workspace_option,
    run_flags,
    run_options,
    set_option,
    site_option,
    workspace_option,
)
from tautools.cli.output import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNFINISHED, broken_rows, guard, show_broken
from tautools.files import ensure_folder
from tautools.params import (
    KINDS,
    Resolved,
    find_params,
    list_params,
    load_all,
    load_sweep,
    resolve,
    resolve_run,
    shipped,
    workspace_path,
)
from tautools.params.resolve import MODELS
from tautools.sweep import SweepEvent, SweepResult, run_sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tautools.errors import ParamsError
    from tautools.params import Kind
    from tautools.session import InitPlan


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


_INIT_EPILOG = """\b
Examples:
  tautools init                                    here, for this machine
  tautools init ~/work --site sol-gaudi            for the cluster
  tautools init ~/agent-project --site sol-gaudi   beside scripts and results that are there already
  tautools init ~/work --dry-run                   only show what would be written
"""


@click.command("init", epilog=_INIT_EPILOG)
@click.argument("folder", required=False, metavar="[DIR]")
@click.option("--site", type=ParamsName("sites"), default="local", show_default=True, help="Site, by name or path.")
@click.option("--dry-run", is_flag=True, help="Show what would be written, and write nothing.")
@json_option
@guard
def init_command(folder: str | None, site: str, dry_run: bool, as_json: bool) -> None:
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
        click.echo(json.dumps(_init_dict(plan, written, kept, dry_run=dry_run), indent=1))
    else:
        _show_init(plan, written, kept, dry_run=dry_run)


def _show_init(plan: InitPlan, written: tuple[Path, ...], kept: tuple[Path, ...], *, dry_run: bool) -> None:
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


def _init_dict(
    plan: InitPlan, written: tuple[Path, ...], kept: tuple[Path, ...], *, dry_run: bool
) -> dict[str, object]:
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
            "results": [str(path) for path in found.results],
        },
    }


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


@click.command("doctor", epilog=_DOCTOR_EPILOG)
@site_option
@click.option("--sweep", "sweeps", multiple=True, type=ParamsName("sweeps"),
              help="Check the models of this sweep.  [default: the workspace's own sweeps]")  # fmt: skip
@click.option("--paste", is_flag=True, help="Print a text block for a help request, without secrets and user names.")
@new_workspace_option
@json_option
@guard
def doctor_command(site: str | None, sweeps: tuple[str, ...], paste: bool, workspace: Path, as_json: bool) -> None:
    """Say whether this session can do the work: each problem with what to do. Nothing is changed."""
    from tautools.session import FindingStatus, doctor

    report = doctor(workspace, site=site, sweeps=sweeps or None)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    elif paste:
        click.echo(report.shareable(os.environ))
    else:
        for line in str(report).splitlines():
            mark, space, rest = line.partition(" ")
            click.echo(click.style(mark, fg=_COLOURS[mark]) + space + rest if mark in _COLOURS else line)
    if report.worst is FindingStatus.FAIL:
        sys.exit(EXIT_FAILED)


_CONFIG_EPILOG = """\b
Examples:
  tautools config list
  tautools config sweep demo --set agent.temperature=0.2
  tautools config server qwen3-4b --json
  tautools config server qwen3-8b --site sol-gaudi
  tautools config persona anger
  tautools config run --env retail --model M --limit 2
"""


def show_resolved(resolved: Resolved[Any], *, as_json: bool = False) -> None:
    """Print params with where each value came from: what `--show-config` prints."""
    if as_json:
        click.echo(json.dumps(resolved.as_json(), indent=1, ensure_ascii=False))
        return
    rows = [(row.key, _value_text(row.value), str(row.origin)) for row in resolved.rows()]
    wide = [max(len(row[column]) for row in [*rows, ("key", "value", "")]) for column in (0, 1)]
    value_width = min(wide[1], 60)
    click.secho(f"{'key':<{wide[0]}}  {'value':<{value_width}}  from", bold=True)
    for key, value, place in rows:
        line = f"{key:<{wide[0]}}  {value:<{value_width}}  {place}"
        click.secho(line, dim=place == "default")


@click.group("config", epilog=_CONFIG_EPILOG)
def config_command() -> None:
    """Show sites, servers, sweeps, personas and runs as they will be used; nothing is started."""


@config_command.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@workspace_option
@json_option
@guard
def config_list(kind: str | None, workspace: Path, as_json: bool) -> None:
    """List what can be named: the workspace's own params and the shipped ones."""
    rows = [
        {"kind": each, "name": name, "file": str(find_params(each, name, workspace))}
        for each in KINDS
        if kind in (None, each)
        for name in list_params(each, workspace)
    ]
    broken = {name: error for each in KINDS if kind in (None, each) for name, error in _broken(each, workspace)}
    if as_json:
        click.echo(json.dumps(rows + broken_rows(broken), indent=1))
        return
    ours = str(shipped("params"))
    for row in rows:
        place = "shipped" if row["file"].startswith(ours) else row["file"]
        click.echo(f"{row['kind']:<8} {row['name']:<28} {place}")
    show_broken(broken)


def _broken(kind: Kind, workspace: Path) -> Iterator[tuple[str, ParamsError]]:
    """Yield the files of a kind that cannot be used, each with the reason."""
    yield from load_all(MODELS[kind], workspace)[1].items()


def _by_name(kind: Any) -> None:
    @config_command.command(kind[:-1], help=f"Show one {kind[:-1]} as it will be used, by name or path.")
    @click.argument("name", type=ParamsName(kind))
    @set_option
    @workspace_option
    @json_option
    @guard
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
@guard
def config_server(name: str, site: str | None, overrides: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Show one server as it will be used, by name or path, with the profile of the site's cards."""
    from tautools.cli.server_plan import show_profile
    from tautools.params import load_site
    from tautools.params.models import ServerParams, SiteParams

    resolved = resolve(ServerParams, name, workspace=workspace, overrides=overrides)
    show_resolved(resolved, as_json=as_json)
    if not as_json:
        show_profile(resolved.params, load_site(site, workspace=workspace) if site else SiteParams(name="local"))


@config_command.command("run")
@run_options
@click.option("--file", type=click.Path(), default=None, help="YAML file with the params of one run.")
@set_option
@workspace_option
@json_option
@guard
def config_run(file: str | None, overrides: tuple[str, ...], workspace: Path, as_json: bool, **options: Any) -> None:
    """Show one run as `tautools run` with the same options would do it."""
    resolved = resolve_run(run_flags(options), workspace=workspace, file=file, overrides=overrides)
    show_resolved(resolved, as_json=as_json)


def _value_text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) and "\n" not in value else json.dumps(value, ensure_ascii=False)


_DEMO_EPILOG = """\b
Examples:
  tautools demo                       in ./demo; about two minutes, a second run takes seconds
  tautools demo --workspace /tmp/try  somewhere else
"""


@click.command("demo", epilog=_DEMO_EPILOG)
@click.option(
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder to make and work in.",
)
@guard
def demo_command(workspace: Path) -> None:
    """Bring simulated servers up, run a small sweep of real tau2 tasks, build two reports."""
    from tautools.cli.output import sweep_progress

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
