"""`tautools server plan`, `script` and `when`, and the options that lay servers out on nodes."""

from __future__ import annotations

import json
import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from tautools.cli.options import ParamsName, json_option, set_option, site_option, workspace_option
from tautools.cli.output import EXIT_FAILED, guard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.params.models import ServerParams, SiteParams
    from tautools.servers import Server
    from tautools.servers.backends.slurm import StartEstimate
    from tautools.servers.placement import Layout, NodeState, PlannedServer


def show_profile(params: ServerParams, site: SiteParams) -> None:
    """Print the profile and the variables that the server gets and this session has not, on the error stream."""
    from tautools.params.secrets import without_secrets
    from tautools.servers.vllm.command import KEY_VARIABLE, choose_profile, installed_versions, server_env

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


def show_advice(params: ServerParams) -> None:
    """Print what may be wrong with a server file, on the error stream."""
    from tautools.servers.vllm.flags import warnings_for

    for line in warnings_for(params):
        click.secho(f"{params.name}: {line}", err=True, fg="yellow")


F = TypeVar("F", bound="Callable[..., Any]")


class IdList(click.ParamType[list[int]]):
    """Cards by index: `0,1,2`, `0-3`, or both."""

    name = "cards"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Return the indices in the order they were given."""
        if isinstance(value, list):
            return value
        found: list[int] = []
        for part in str(value).replace(",", " ").split():
            first, _, last = part.partition("-")
            if not first.isdigit() or not (last or first).isdigit():
                self.fail(f"{part!r} is not a card; write 0,1,2 or 0-3", param, ctx)
            found.extend(range(int(first), int(last or first) + 1))
        if not found:
            self.fail("no card is named", param, ctx)
        return found


class StaggerType(click.ParamType[Any]):
    """Seconds, or `loaded`."""

    name = "seconds|loaded"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | Literal["loaded"]:
        """Return a number of seconds or the word."""
        if value == "loaded":
            return "loaded"
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            self.fail(f"{value!r} is neither seconds nor `loaded`", param, ctx)
        return seconds


@dataclass(frozen=True, slots=True)
class LayoutRequest:
    """What was asked for of a layout, over what the files say."""

    replicas: tuple[str, ...] = ()
    gpu_ids: list[int] | None = None
    start_port: int | None = None
    stagger: float | Literal["loaded"] | None = None
    force: bool = False
    one_job: bool = False

    def arranged(self, servers: Sequence[ServerParams]) -> list[ServerParams]:
        """Return the servers with it; errors as `tautools.servers.replicas.apply_layout_options`."""
        from tautools.servers.replicas import apply_layout_options

        counts: dict[str, int] = {}
        for text in self.replicas:
            name, _, count = text.rpartition("=")
            if not count.isdigit() or not 1 <= int(count) <= 256:
                raise click.UsageError(f"--replicas {text}: write NAME=N, or N for all; N from 1 to 256")
            counts |= {name: int(count)} if name else {params.name: int(count) for params in servers}
        return apply_layout_options(servers, replicas=counts, start_port=self.start_port, stagger=self.stagger)


def layout_options(function: F) -> F:
    """Add the options of a layout; `take_layout` makes them into an `Asked`."""
    options = (
        click.option("--replicas", multiple=True, metavar="NAME=N", help="Servers of one model; a bare N for all."),
        click.option("--gpu-ids", type=IdList(), help="Use these cards only, such as 0,1,2,3 or 0-3."),
        click.option("--start-port", type=click.IntRange(1, 65535), help="First port; the others follow."),
        click.option("--stagger", type=StaggerType(), help="Start the next after SECONDS, or when one has `loaded`."),
        click.option("--one-job", is_flag=True, help="With Slurm: all in one job on one node, not a job each."),
        click.option("--force", is_flag=True, help="Use cards that are in use."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def take_layout(options: dict[str, Any]) -> LayoutRequest:
    """Take the options of `layout_options` out of a command's."""
    names = ("replicas", "gpu_ids", "start_port", "stagger", "force", "one_job")
    return LayoutRequest(**{name: options.pop(name) for name in names})


def start_servers(
    servers: Sequence[ServerParams], asked: LayoutRequest, site: SiteParams | None, workspace: Path
) -> list[Server]:
    """Start all or none; errors as `tautools.servers.launch_all`."""
    from tautools.params.models import SiteParams
    from tautools.servers import launch_all, launch_one_job

    if asked.one_job:
        if asked.gpu_ids is not None:
            raise click.UsageError("--gpu-ids: Slurm chooses the cards of a job; leave it out")
        site = site or SiteParams(name="local")
        return launch_one_job(asked.arranged(servers), workspace=workspace, site=site)
    return launch_all(
        asked.arranged(servers),
        workspace=workspace,
        site=site,
        gpu_ids=asked.gpu_ids,
        force=asked.force,
        emit=lambda text: click.echo(text, err=True),
    )


@click.command(
    epilog="\b\nExamples:\n  tautools server plan qwen3-8b qwen3-32b --site sol-gaudi --replicas qwen3-8b=4\n"
    "  tautools server plan sim-small --replicas 4 --start-port 1900"
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=ParamsName("servers"))
@layout_options
@site_option
@set_option
@workspace_option
@json_option
@guard
def plan(
    names: tuple[str, ...], site: str | None, overrides: tuple[str, ...], workspace: Path, as_json: bool, **options: Any
) -> None:
    """Show which card holds what, and what cannot be; nothing is started.

    On this node as it is now; for a Slurm site, on nodes as its file describes them, as few as it takes.
    """
    from tautools.params import load_server, load_site
    from tautools.params.models import SiteParams
    from tautools.servers.accelerators.probe import AcceleratorProbe
    from tautools.servers.placement import plan_layout, plan_multi_node, site_node_state, this_node_state
    from tautools.servers.replicas import plan_one_job

    asked = take_layout(options)
    where = load_site(site, workspace=workspace) if site else SiteParams(name="local")
    servers = asked.arranged([load_server(name, workspace=workspace, overrides=overrides) for name in names])
    away = where.uses_slurm and AcceleratorProbe(where.device).device is None
    around = (
        site_node_state(servers, where, workspace)
        if away
        else this_node_state(servers, where, workspace, force=asked.force)
    )
    spread = away and asked.gpu_ids is None
    if asked.one_job:
        layouts = [plan_one_job(servers, workspace=workspace, site=where)]
    else:
        layouts = plan_multi_node(servers, around) if spread else [plan_layout(servers, around, gpu_ids=asked.gpu_ids)]
    if as_json:
        click.echo(json.dumps(_plan_dict(layouts, around), indent=1))
    else:
        _show_layouts(layouts, around)
    if any(layout.problems for layout in layouts):
        raise SystemExit(EXIT_FAILED)


def _plan_dict(layouts: Sequence[Layout], around: NodeState) -> dict[str, Any]:
    return {
        "fits": not any(layout.problems for layout in layouts),
        "nodes": len(layouts),
        "servers": [
            _placement_dict(place) | {"node": n} for n, layout in enumerate(layouts, 1) for place in layout.places
        ],
        "cards": [row | {"node": n} for n, layout in enumerate(layouts, 1) for row in _card_rows(layout, around)],
        "problems": [problem for layout in layouts for problem in layout.problems],
        "notes": [note for layout in layouts for note in layout.notes],
    }


def _card_rows(layout: Layout, around: NodeState) -> list[dict[str, Any]]:
    holders = {index: place.name for place in layout.places for index in place.cards}
    return [
        {
            "index": card.index,
            "used_mib": card.used_mib,
            "total_mib": card.total_mib,
            "server": holders.get(card.index) or around.promised.get(card.index),
            "in_use": card.why_busy or None,
        }
        for card in around.cards
    ]


def _placement_dict(place: PlannedServer) -> dict[str, Any]:
    across, weights = place.params.vllm.tensor_parallel_size, place.facts.weights_gib
    return {
        "name": place.name,
        "model": place.params.model,
        "engine": place.params.engine,
        "cards": place.cards,
        "port": place.params.port,
        "tensor_parallel_size": across,
        "attention_heads": place.facts.heads,
        "weights_gib_per_card": None if weights is None else round(weights / across, 2),
    }


def _show_layouts(layouts: Sequence[Layout], around: NodeState) -> None:
    for number, layout in enumerate(layouts, 1):
        if len(layouts) > 1:
            click.secho(f"Node {number} of {len(layouts)}", bold=True)
        _show_layout(layout, around)
    if len(layouts) > 1:
        click.echo("Each server is a job of its own; Slurm chooses the nodes, and may put them otherwise.")


def _show_layout(layout: Layout, around: NodeState) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("server", "cards", "port", "weights a card", "model", box=None, pad_edge=False)
    for row in map(_placement_dict, layout.places):
        weights = row["weights_gib_per_card"]
        cards = ",".join(str(index) for index in row["cards"]) or "-"
        size = "-" if weights is None else f"{weights:.1f} GiB"
        table.add_row(row["name"], cards, str(row["port"] or "free"), size, escape(row["model"]))
    console = Console(soft_wrap=True)
    console.print(table)
    used = {index for place in layout.places for index in place.cards}
    for card in around.cards:
        why = around.promised.get(card.index) or card.why_busy
        if why and card.index not in used:
            console.print(f"card {card.index} is left alone: {why}", highlight=False, markup=False)
    left = [str(card.index) for card in around.cards if card.index not in used and card.idle]
    if left:
        console.print(f"cards left: {', '.join(left)}", highlight=False)
    for note in layout.notes:
        click.echo(note)
    for problem in layout.problems:
        click.secho(problem, fg="red", err=True)


_OUT = "File to write; it must be new. With replicas FILE-0, FILE-1, …"


@click.command(
    epilog="\b\nExamples:\n  tautools server script qwen3-32b --site sol-gaudi\n"
    "  tautools server script qwen3-32b --site sol-gaudi -o user-server.sh && sbatch user-server.sh"
)
@click.argument("name", type=ParamsName("servers"))
@site_option
@set_option
@click.option("--replicas", type=click.IntRange(1, 256), help="A script for each of so many servers of this model.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help=_OUT)
@workspace_option
@guard
def script(
    name: str, site: str | None, overrides: tuple[str, ...], replicas: int | None, out: Path | None, workspace: Path
) -> None:
    """Print the Slurm job script of a server; nothing is submitted.

    Submitted by hand from the workspace, the job registers its server itself: `server ls`, `verify`, `stop` know it.
    Replicas are jobs of their own: NAME-0, NAME-1 and so on.
    """
    from tautools.params import load_server, load_site
    from tautools.servers.backends.slurm import job_script_text
    from tautools.servers.replicas import apply_layout_options, plan_launch

    where = load_site(site, workspace=workspace) if site else None
    if where is None or not where.uses_slurm:
        raise click.UsageError("--site must name a site with Slurm, such as sol-gaudi")
    params = load_server(name, workspace=workspace, overrides=overrides)
    asked = apply_layout_options([params], replicas={params.name: replicas} if replicas is not None else {})
    places = plan_launch(asked, workspace=workspace, site=where).require().places
    texts = {
        place.name: job_script_text(place.params, workspace=workspace, site=where, name=place.name) for place in places
    }
    if out is None:
        click.echo("\n".join(texts.values()), nl=False)
        return
    _write_scripts(texts, out, workspace)


def _write_scripts(texts: dict[str, str], out: Path, workspace: Path) -> None:
    """Write one script to `out`, several beside it with their number before the ending."""
    from tautools.files import ensure_folder, write_new

    several = len(texts) > 1
    files = [out.with_name(f"{out.stem}-{number}{out.suffix}") if several else out for number in range(len(texts))]
    there = [file for file in files if file.exists()]
    if there:
        raise click.UsageError(f"{there[0]} exists already")
    for folder in ("logs", "errors"):  # Slurm ends a job without a word when it cannot write these
        ensure_folder(workspace / folder)
    for file, text in zip(files, texts.values(), strict=True):
        if not write_new(file, text):
            raise click.UsageError(f"{file} exists already")
        click.echo(f"Written to {file}. Submit it with: sbatch {shlex.quote(str(file))}")


def dry_run(chosen: list[ServerParams], asked: LayoutRequest, site: SiteParams | None, workspace: Path) -> None:
    """Print what a start would do, each replica for itself, and whether it would be taken; nothing is started."""
    from tautools.params.models import SiteParams
    from tautools.servers.accelerators.probe import AcceleratorProbe
    from tautools.servers.placement import plan_layout, this_node_state, unknown_node_state

    where = site or SiteParams(name="local")
    servers = asked.arranged(chosen)
    for params in servers:
        show_profile(params, where)
    if asked.one_job:
        _show_one_job(servers, where, workspace)
        return
    # A command for a node with cards can be read on one without.
    away = where.uses_slurm or AcceleratorProbe(where.device).device is None
    around = (unknown_node_state if away else this_node_state)(servers, where, workspace, force=asked.force)
    layout = plan_layout(servers, around, gpu_ids=asked.gpu_ids)
    show = _show_job if where.uses_slurm else _show_command
    for place in layout.require().places:
        show(place, where, workspace, asked.force)


def _show_one_job(servers: list[ServerParams], site: SiteParams, workspace: Path) -> None:
    from tautools.servers import Registry
    from tautools.servers.backends.base import check_options
    from tautools.servers.backends.slurm_shared import shared_job_script, without_cards
    from tautools.servers.replicas import plan_one_job
    from tautools.servers.start import check_shared_job

    places = plan_one_job(servers, workspace=workspace, site=site).require().places
    click.echo(shared_job_script(places, workspace=workspace, site=site))
    for place in places:
        check_options(without_cards(place), site, Registry(workspace))
    begins = check_shared_job(places, workspace=workspace, site=site)
    click.echo(
        f"{', '.join(place.name for place in places)}: Slurm would take this job{_expected_start(begins)}.", err=True
    )


def _expected_start(begins: float | None) -> str:
    return time.strftime(" and thinks it starts at %Y-%m-%d %H:%M", time.localtime(begins)) if begins else ""


def _show_job(place: PlannedServer, site: SiteParams, workspace: Path, _force: bool) -> None:
    from tautools.servers import Registry, check_launch
    from tautools.servers.backends.base import check_options
    from tautools.servers.backends.slurm import job_script_text

    click.echo(job_script_text(place.params, workspace=workspace, site=site, name=place.name))
    check_options(place.params, site, Registry(workspace))
    begins = check_launch(place.params, workspace=workspace, site=site, name=place.name)
    click.echo(f"{place.name}: Slurm would take this job{_expected_start(begins)}.", err=True)


def _show_command(place: PlannedServer, site: SiteParams, workspace: Path, force: bool) -> None:
    from tautools.servers import check_launch
    from tautools.servers.vllm.command import ListenAddress, server_argv

    check_launch(place.params, workspace=workspace, site=site, name=place.name, force=force)
    click.echo(
        shlex.join(server_argv(place.params, site, ListenAddress(site.host, place.params.port or 0, alias="launch-…")))
    )


@click.command(epilog="\b\nExamples:\n  tautools server when qwen3-32b --site sol-gaudi")
@click.argument("name", type=ParamsName("servers"))
@site_option
@set_option
@workspace_option
@json_option
@guard
def when(name: str, site: str | None, overrides: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Say what is free now, when Slurm would start this server, and what of it could be asked for less.

    Nothing is submitted. The estimates are Slurm's own, and change with the queue.
    """
    from tautools.params import load_server, load_site
    from tautools.servers.backends.slurm import estimate_starts
    from tautools.slurm import Slurm

    where = load_site(site, workspace=workspace) if site else None
    if where is None or not where.uses_slurm:
        raise click.UsageError("--site must name a site with Slurm, such as sol-gaudi")
    found = estimate_starts(load_server(name, workspace=workspace, overrides=overrides), where, workspace=workspace)
    nodes = Slurm().nodes(where.partition)
    if as_json:
        rows = [{"asks": each.asks, "starts_at": each.starts_at, "refused": each.refused or None} for each in found]
        told = [{"node": n.name, "state": n.state, "cards": n.cards, "cards_used": n.cards_used} for n in nodes]
        click.echo(json.dumps({"offers": rows, "nodes": told}, indent=1))
        return
    for node in nodes:
        click.echo(f"{node.name}: {node.state}, {node.cards - node.cards_used} of {node.cards} cards free")
    for each in found:
        click.echo(f"{each.asks}: {_start_text(each)}")
    sooner = [each for each in found[1:] if _starts_sooner(each, found[0])]
    if sooner:
        click.echo(f"Sooner: {min(sooner, key=lambda each: each.starts_at or 0.0).asks}, in the site file.")


def _start_text(offer: StartEstimate) -> str:
    if offer.refused:
        return offer.refused
    if offer.starts_at is None:
        return "Slurm takes it and gives no estimate"
    left = max(0, round((offer.starts_at - time.time()) / 60))
    clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(offer.starts_at))
    return "now" if left == 0 else f"{clock}, in {left // 60} h {left % 60} min"


def _starts_sooner(offer: StartEstimate, whole: StartEstimate) -> bool:
    """Whether it would start more than a minute earlier."""
    if offer.starts_at is None:
        return False
    return bool(whole.refused) or (whole.starts_at is not None and whole.starts_at - offer.starts_at > 60)
