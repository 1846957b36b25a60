"""`tautools server plan`, `script` and `up --dry-run`: what a start would do."""

import os
import shlex
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tautools.cli.commands import command, exit_if, refuse_if
from tautools.cli.options import (
    LayoutRequest,
    ParamsName,
    layout_options,
    site_options,
    usual_options,
    workspace_option,
)
from tautools.cli.output import emit, pick, plain_table, print_wide
from tautools.files import ensure_folder, write_new
from tautools.params import load_server
from tautools.params.models import ServerParams, SiteParams
from tautools.redaction import without_secrets
from tautools.servers import Registry, check_launch
from tautools.servers.accelerators.probe import visible_device
from tautools.servers.backends import check_options
from tautools.servers.backends.slurm import estimate_starts, job_script_text
from tautools.servers.placement import (
    LaunchRequest,
    Layout,
    NodeState,
    plan_launch,
    plan_layout,
    plan_multi_node,
    plan_one_job,
    site_node_state,
    this_node_state,
    unknown_node_state,
)
from tautools.servers.vllm.command import KEY_VARIABLE, choose_profile, installed_versions, server_argv, server_env
from tautools.slurm.client import Slurm


@command(
    "tautools server plan qwen3-8b qwen3-32b --site sol-gaudi --replicas qwen3-8b=4",
    "tautools server plan sim-small --replicas 4 --start-port 1900",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=ParamsName("servers"))
@layout_options
@site_options
@usual_options
def plan(names: tuple[str, ...], layout: LayoutRequest, site: SiteParams, workspace: Path, **options: Any) -> None:
    """Show which card holds what, what cannot be, and when it would start; nothing is started.

    On this node as it is now; for a Slurm site, on nodes as its file describes them, as few as it takes. Where Slurm
    is, it says what is free now, when each server would start, and what could be asked for less to start sooner.
    """
    servers = layout.arranged(
        [load_server(name, workspace=workspace, overrides=options["overrides"]) for name in names]
    )
    elsewhere = site.uses_slurm and visible_device(site.device) is None
    if elsewhere:
        node = site_node_state(servers, site, workspace)
    else:
        node = this_node_state(servers, site, workspace, force=layout.force)
    if layout.one_job:
        layouts = [plan_one_job(servers, workspace=workspace, site=site)]
    elif elsewhere and layout.gpu_ids is None:
        layouts = plan_multi_node(servers, node)
    else:
        layouts = [plan_layout(servers, node, gpu_ids=layout.gpu_ids)]
    asked = servers if site.uses_slurm and shutil.which("sbatch") else []
    requests = [LaunchRequest(params, site, params.name) for params in asked]
    starts = {each.name: estimate_starts(each, workspace=workspace) for each in requests}
    slurm = {"starts": starts, "partition": Slurm().nodes(site.partition) if asked else []}
    numbered = list(enumerate(layouts, 1))
    value = {
        "fits": not any(each.problems for each in layouts),
        "nodes": len(layouts),
        "servers": [_placement_dict(place) | {"node": n} for n, each in numbered for place in each.places],
        "cards": [row | {"node": n} for n, each in numbered for row in _card_rows(each, node)],
        "problems": [problem for each in layouts for problem in each.problems],
        "notes": [note for each in layouts for note in each.notes],
    }
    emit(value | slurm, text=lambda: _show_plan(layouts, node, slurm))
    exit_if(not value["fits"])


def _card_rows(layout: Layout, node: NodeState) -> list[dict[str, Any]]:
    server = dict(node.promised) | {index: place.name for place in layout.places for index in place.params.cards}
    return [
        pick(card, "index used_mib total_mib") | {"server": server.get(card.index), "in_use": card.why_busy or None}
        for card in node.cards
    ]


def _placement_dict(place: LaunchRequest) -> dict[str, Any]:
    tensor_parallel, weights = place.params.vllm.tensor_parallel_size, place.facts.weights_gib
    return {
        "name": place.name,
        **pick(place.params, "cards model engine port"),
        "tensor_parallel_size": tensor_parallel,
        "attention_heads": place.facts.heads,
        "weights_gib_per_card": None if weights is None else round(weights / tensor_parallel, 2),
    }


def _show_plan(layouts: Sequence[Layout], node: NodeState, slurm: Mapping[str, Any]) -> None:
    for number, layout in enumerate(layouts, 1):
        if len(layouts) > 1:
            click.secho(f"Node {number} of {len(layouts)}", bold=True)
        _show_layout(layout, node)
    if len(layouts) > 1:
        click.echo("Each server is a job of its own; Slurm chooses the nodes, and may choose others.")
    for each in slurm["partition"]:
        click.echo(f"{each.name}: {each.state}, {each.cards - each.cards_used} of {each.cards} cards free")
    for name, estimates in slurm["starts"].items():
        for each in estimates:
            click.echo(f"{name}, {each.asks}: {each.refused or _start_text(each.starts_at)}")
        whole, *less = estimates
        latest = float("inf") if whole.refused else (whole.starts_at or 0.0) - 60
        sooner = [(each.starts_at, each.asks) for each in less if each.starts_at and each.starts_at < latest]
        if sooner:
            click.echo(f"Sooner: {min(sooner)[1]}, in the site file.")


def _show_layout(layout: Layout, node: NodeState) -> None:
    rows = []
    for row in map(_placement_dict, layout.places):
        weights, cards = row["weights_gib_per_card"], ",".join(map(str, row["cards"])) or "-"
        size = "-" if weights is None else f"{weights:.1f} GiB"
        rows.append((row["name"], cards, row["port"] or "free", size, row["model"]))
    print_wide(plain_table("server", "cards", "port", "weights a card", "model", rows=rows))
    used = {index for place in layout.places for index in place.params.cards}
    unused = [card for card in node.cards if card.index not in used]
    for card in unused:
        if reason := node.promised.get(card.index) or card.why_busy:
            click.echo(f"card {card.index} is left alone: {reason}")
    if left := [str(card.index) for card in unused if card.idle]:
        click.echo(f"cards left: {', '.join(left)}")
    for note in layout.notes:
        click.echo(note)
    for problem in layout.problems:
        click.secho(problem, fg="red", err=True)


def _start_text(starts_at: float | None) -> str:
    if starts_at is None:
        return "Slurm takes it and gives no estimate"
    left_min = max(0, round((starts_at - time.time()) / 60))
    return "now" if left_min == 0 else f"{_clock(starts_at)}, in {left_min // 60} h {left_min % 60} min"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


@command(
    "tautools server script qwen3-32b --site sol-gaudi",
    "tautools server script qwen3-32b --site sol-gaudi -o user-server.sh && sbatch user-server.sh",
)
@click.argument("name", type=ParamsName("servers"))
@site_options
@click.option("--replicas", type=click.IntRange(1, 256), help="A script for each of so many servers of this model.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False),
              help="File to write; it must be new. With replicas FILE-0, FILE-1, …")  # fmt: skip
@workspace_option
def script(
    name: str, site: SiteParams, overrides: tuple[str, ...], replicas: int | None, out: Path | None, workspace: Path
) -> None:
    """Print the Slurm job script of a server; nothing is submitted.

    Submitted by hand from the workspace, the job registers its server itself: `server ls`, `verify`, `stop` know it.
    Replicas are jobs of their own: NAME-0, NAME-1 and so on.
    """
    refuse_if(not site.uses_slurm, "--site must name a site with Slurm, such as sol-gaudi")
    params = load_server(name, workspace=workspace, overrides=overrides)
    servers = LayoutRequest((f"{params.name}={replicas}",) if replicas is not None else ()).arranged([params])
    places = plan_launch(servers, workspace=workspace, site=site).require()
    texts = [job_script_text([place], workspace=workspace) for place in places]
    if out is None:
        click.echo("\n".join(texts), nl=False)
        return
    many = len(texts) > 1
    files = [out.with_name(f"{out.stem}-{number}{out.suffix}") if many else out for number in range(len(texts))]
    for file in files:
        refuse_if(file.exists(), f"{file} exists already")
    for folder in ("logs", "errors"):  # Slurm ends a job without a word when it cannot write these
        ensure_folder(workspace / folder)
    for file, text in zip(files, texts, strict=True):
        refuse_if(not write_new(file, text), f"{file} exists already")
        click.echo(f"Written to {file}. Submit it with: sbatch {shlex.quote(str(file))}")


def show_profile(params: ServerParams, site: SiteParams) -> None:
    """Print the profile, and the variables that the server gets and this shell does not have, on the error stream."""
    versions = installed_versions(params.serve_command or site.serve_command)
    profile = choose_profile(params, site, versions)
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "versions cannot be seen"
    click.secho(f"# {params.name}: profile {profile.name} ({shown})", err=True, bold=True)
    env = server_env(params, site, key="", cache=Path("servers/cache") / params.name, inherited=os.environ)
    for name, value in sorted(without_secrets(env).items()):
        if os.environ.get(name) != env[name] and name != KEY_VARIABLE:
            click.echo(f"#   {name}={value}", err=True)
    for note in profile.notes:
        click.echo(f"# {note}", err=True)


def show_dry_run(servers: Sequence[ServerParams], layout: LayoutRequest, site: SiteParams, workspace: Path) -> None:
    """Print what a start would do, each replica for itself, and whether it would be taken; nothing is started."""
    for params in servers:
        show_profile(params, site)
    # A command for a node with cards can be read on one without.
    if site.uses_slurm or visible_device(site.device) is None:
        node = unknown_node_state(servers, site, workspace)
    else:
        node = this_node_state(servers, site, workspace, force=layout.force)
    if layout.one_job:
        jobs = [plan_one_job(servers, workspace=workspace, site=site).require_job()]
    else:
        jobs = [[place] for place in plan_layout(servers, node, gpu_ids=layout.gpu_ids).require()]
    for places in jobs:
        if site.uses_slurm:
            _show_job(places, workspace)
            continue
        params = places[0].params
        check_launch(places, workspace=workspace)
        click.echo(shlex.join(server_argv(params, site, port=params.port or 0, alias="launch-…")))


def _show_job(places: Sequence[LaunchRequest], workspace: Path) -> None:
    """Print the script of a job, and whether Slurm would take it."""
    click.echo(job_script_text(places, workspace=workspace))
    for place in places:
        check_options(place.params, place.site, Registry(workspace))
    starts_at = check_launch(places, workspace=workspace)
    start = f" and expects to start it at {_clock(starts_at)}" if starts_at else ""
    click.echo(f"{', '.join(place.name for place in places)}: Slurm would take this job{start}.", err=True)
