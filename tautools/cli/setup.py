"""`tautools init`, `doctor`, `config`, `model` and `simulate`: the way to a first result."""

import asyncio
import contextlib
import os
import shlex
from pathlib import Path
from typing import Any, cast

import click

from tautools.cli.commands import VerbGroup, command, examples_text, exit_if, wants_json
from tautools.cli.options import (
    ParamsName,
    dry_run_option,
    json_option,
    params_options,
    run_flags,
    run_options,
    set_option,
    site_options,
    usual_options,
)
from tautools.cli.output import emit, emit_files, pick, show_resolved
from tautools.cli.server_plan import show_profile
from tautools.errors import ParamsError
from tautools.params import (
    KINDS,
    Kind,
    find_params,
    list_params,
    load_all,
    load_server,
    resolve,
    resolve_run,
    shipped,
    workspace_path,
)
from tautools.params.keys import read_key
from tautools.params.models import SIMULATE_OPTIONS, ServerParams, SimulateParams, SiteParams
from tautools.params.paths import WORKSPACE_VARIABLE
from tautools.params.resolve import MODELS
from tautools.servers.weights import Weights, check_weights, fetch_weights
from tautools.session import FindingStatus, InitPlan, doctor, plan_init, write_workspace


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
def init_command(folder: str | None, site: str, dry_run: bool) -> None:
    """Write a workspace into DIR: params to edit, notebooks, folders for logs and results.

    What exists is kept as it is. A folder with the scripts, logs, results and checkout of an agent-project is
    recognised: the workspace is written next to them and nothing of theirs is changed.
    """
    plan = plan_init(workspace_path(folder), site)
    done = plan if dry_run else write_workspace(plan)
    files = {"dry_run": dry_run, "written": tuple(done.files), "kept": done.kept}
    found = plan.found and pick(plan.found, "scripts tau_bench results")
    value = pick(plan, "workspace site") | files | {"agent_project": found}
    emit(value, text=lambda: "\n".join(_init_lines(done, dry_run=dry_run)))


def _init_lines(done: InitPlan, *, dry_run: bool) -> list[str]:
    lines = done.found.lines() if done.found else []
    verb = "would write" if dry_run else "wrote"
    lines += [f"{verb:>11}  {path.relative_to(done.workspace)}" for path in done.files]
    lines += [f"{'kept':>11}  {path.relative_to(done.workspace)}" for path in done.kept]
    if dry_run:
        return [*lines, f"Nothing was written to {done.workspace}."]
    if not done.files:
        return [*lines, f"{done.workspace} was complete already; nothing was changed."]
    return [
        *lines,
        f"The workspace {done.workspace} is ready for the site {done.site}.",
        f"Next: cd {shlex.quote(str(done.workspace))} && tautools doctor --site {done.site}",
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
def doctor_command(site: str | None, sweeps: tuple[str, ...], paste: bool, workspace: str | None) -> None:
    """Say whether this machine can do the work: each problem with what to do. Nothing is changed."""
    report = doctor(workspace_path(workspace), site=site, sweeps=sweeps or None)
    if wants_json():
        emit(report.as_json())
    elif paste:
        click.echo(report.shareable(os.environ))
    else:
        for line in str(report).splitlines():
            mark, space, rest = line.partition(" ")
            click.echo(click.style(mark, fg=_COLOURS[mark]) + space + rest if mark in _COLOURS else line)
    exit_if(report.worst is FindingStatus.FAIL)


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
def config_list(kind: str | None, workspace: Path) -> None:
    """List what can be named: the workspace's own params and the shipped ones."""
    kinds, ours = [each for each in KINDS if kind in (None, each)], shipped("params")
    names = [(each, name) for each in kinds for name in list_params(each, workspace)]
    files = [(*each, find_params(*each, workspace)) for each in names]
    lines = [f"{each:<8} {name:<28} {'shipped' if file.is_relative_to(ours) else file}" for each, name, file in files]
    rows = [{"kind": each, "name": name, "file": file} for each, name, file in files]
    broken = {name: error for each in kinds for name, error in load_all(MODELS[each], workspace)[1].items()}
    emit_files(rows, broken, text="\n".join(lines))


def _config_of(kind: Kind) -> None:
    """Add the command that shows one file of a kind; a server is shown with the profile of a site's cards."""
    with_site = kind == "servers"
    profile = ", with the profile of the site's cards" if with_site else ""

    @config_command.command(kind[:-1], help=f"Show one {kind[:-1]} as it will be used, by name or path{profile}.")
    @click.argument("name", type=ParamsName(kind))
    @(site_options if with_site else set_option)
    @usual_options
    def one(name: str, overrides: tuple[str, ...], workspace: Path, site: SiteParams | None = None) -> None:
        resolved = resolve(MODELS[kind], name, workspace=workspace, overrides=overrides)
        show_resolved(resolved)
        if site is not None and not wants_json():
            show_profile(cast("ServerParams", resolved.params), site)


for _kind in KINDS:
    _config_of(_kind)


@config_command.command("run")
@run_options()
@click.option("--file", type=click.Path(), default=None, help="YAML file with the params of one run.")
@set_option
@usual_options
def config_run(file: str | None, overrides: tuple[str, ...], workspace: Path, **options: Any) -> None:
    """Show one run as `tautools run` with the same options would do it."""
    resolved = resolve_run(run_flags(options), workspace=workspace, file=file, overrides=overrides)
    show_resolved(resolved)


@click.group(
    "model",
    cls=VerbGroup,
    epilog=examples_text(
        "tautools model check Qwen/Qwen3-8B",
        "tautools model check qwen3-8b qwen3-32b      the models of two server files",
        "tautools model fetch Qwen/Qwen3-8B",
        notes="HF_HOME says where weights are kept, HF_TOKEN who asks, HF_ENDPOINT which hub, "
        "HF_HUB_OFFLINE=1 that none is asked.\nExit codes: 0 complete here, 1 not, 2 no possible name.",
    ),
)
def model_command() -> None:
    """Check and fetch the weights of models."""


@model_command.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=ParamsName("servers"))
@usual_options
def check(models: tuple[str, ...], workspace: Path) -> None:
    """Say whether weights are cached and complete, gated, absent, and whether the disk has room. Fetches nothing.

    MODEL is a name at the hub, a folder, or a server file, whose model is meant.
    """
    _show_weights([check_weights(_model_of(name, workspace)) for name in models])


@model_command.command()
@click.argument("model", type=ParamsName("servers"))
@dry_run_option
@usual_options
def fetch(model: str, dry_run: bool, workspace: Path) -> None:
    """Bring weights into the cache: only what a server loads, and going on where a download was broken off."""
    get = check_weights if dry_run else fetch_weights
    _show_weights([get(_model_of(model, workspace))])


def _show_weights(found: list[Weights]) -> None:
    rows = []
    for each in found:
        copy, hub = each.copy, each.hub
        sizes = [known.size_bytes for known in (hub, copy) if known is not None and known.size_bytes]
        kept = {"folder": copy and copy.folder, "missing": copy.missing if copy else [], "hub": hub and hub.state}
        named = pick(each, "model state usable needed_bytes free_bytes near")
        rows.append(named | kept | {"size_bytes": sizes[0] if sizes else None})
    lines = [click.style(str(each), fg="green" if each.usable else "yellow") for each in found]
    emit(rows, text="\n".join(lines))
    exit_if(not all(each.usable for each in found))


def _model_of(name: str, workspace: Path) -> str:
    """Return the model of a server file of that name, else the name itself."""
    with contextlib.suppress(ParamsError):
        return name if "/" in name else load_server(name, workspace=workspace).model
    return name


@command(
    "tautools simulate --model demo --skill 0.7",
    "VLLM_API_KEY=secret tautools simulate --port 8007 --model Qwen/Qwen3-4B-Instruct-2507 --speed 10",
    name="simulate",
)
@click.option("--model", default="simulated", show_default=True, help="Served model name.")
@click.option("--alias", "aliases", multiple=True, help="A further served name; may be given several times.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for a free one.")
@params_options(SimulateParams, SIMULATE_OPTIONS)
def simulate_command(model: str, aliases: tuple[str, ...], host: str, port: int, **behaviour: Any) -> None:
    """Serve a SIMULATED model that plays agent and user of the benchmark's tasks, until Ctrl-C.

    The key that requests must carry is read from the environment variable VLLM_API_KEY, as vLLM does.
    """
    from tautools.simulate import SimulatedServer
    from tautools.simulate.server import serve_until_signal

    key = read_key(os.environ.get("VLLM_API_KEY", ""), "VLLM_API_KEY")
    params = SimulateParams(**{name: value for name, value in behaviour.items() if value is not None})
    server = SimulatedServer(params, model=model, aliases=aliases, key=key, host=host, port=port)

    def show(started: SimulatedServer) -> None:
        click.echo(f"SIMULATED model server, skill {started.params.skill:g}. No model stands behind its answers.")
        click.echo(f"Base URL: {started.base_url}")
        click.echo(f"Model:    {', '.join(started.names)}")
        click.echo("Key:      from VLLM_API_KEY" if key else "Key:      none; set VLLM_API_KEY to ask for one")
        click.echo("Ctrl-C ends it.")

    asyncio.run(serve_until_signal(server, show))
