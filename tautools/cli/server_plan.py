"""`tautools server plan`, `script` and `up --dry-run`, and the options that lay servers out on nodes."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.markup import escape

from tautools.cli.commands import EXIT_FAILED, GroupedOption, ListOption, command
from tautools.cli.options import ParamsName, json_option, set_option, site_option, workspace_option
from tautools.cli.output import emit, pick, plain_table, print_wide
from tautools.files import ensure_folder, write_new
from tautools.params import load_server
from tautools.params.secrets import without_secrets
from tautools.servers import Registry, check_launch, launch_all, launch_one_job
from tautools.servers.accelerators.probe import visible_device
from tautools.servers.backends import check_options
from tautools.servers.backends.slurm import estimate_starts, job_script_text
from tautools.servers.placement import (
    LaunchRequest,
    apply_layout_options,
    plan_launch,
    plan_layout,
    plan_multi_node,
    plan_one_job,
    site_node_state,
    this_node_state,
    unknown_node_state,
)
from tautools.servers.start import check_one_job
from tautools.servers.vllm.command import (
    KEY_VARIABLE,
    ListenAddress,
    choose_profile,
    installed_versions,
    server_argv,
    server_env,
)
from tautools.slurm.client import Slurm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tautools.params.models import ServerParams, SiteParams
    from tautools.servers import Server
    from tautools.servers.backends.slurm import StartEstimate
    from tautools.servers.placement import Layout, NodeState
    from tautools.slurm.jobs import Node

_NODES_HELP = "Cards, ports, order"


def stagger_value(_ctx: click.Context, option: click.Parameter, value: str | None) -> float | str | None:
    """Read `--stagger`: seconds, or the word `loaded`."""
    if value in (None, "loaded"):
        return value
    try:
        seconds = float(value or "")
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise click.BadParameter(f"{value!r} is neither seconds nor `loaded`", param=option)
    return seconds


@dataclass(frozen=True, slots=True)
class LayoutRequest:
    """How the command line lays servers out, in place of what their files say."""

    replicas: tuple[str, ...] = ()
    gpu_ids: list[int] | None = None
    start_port: int | None = None
    stagger: float | Literal["loaded"] | None = None
    force: bool = False
    one_job: bool = False

    def arranged(self, servers: Sequence[ServerParams]) -> list[ServerParams]:
        """Return the servers with it; errors as `tautools.servers.placement.apply_layout_options`."""
        counts: dict[str, int] = {}
        for text in self.replicas:
            name, _, count = text.rpartition("=")
            if not count.isdigit() or not 1 <= int(count) <= 256:
                raise click.UsageError(f"--replicas {text}: write NAME=N, or N for all; N from 1 to 256")
            counts |= {name: int(count)} if name else {params.name: int(count) for params in servers}
        return apply_layout_options(servers, replicas=counts, start_port=self.start_port, stagger=self.stagger)


_LAYOUT_OPTIONS = (
    click.option("--replicas", multiple=True, metavar="NAME=N", cls=GroupedOption, group=_NODES_HELP,
                 help="Servers of one model; a bare N for all."),
    click.option("--gpu-ids", cls=ListOption, numbers=True, group=_NODES_HELP,
                 help="Use these cards only, such as 0 1 2 3 or 0-3."),
    click.option("--start-port", type=click.IntRange(1, 65535), cls=GroupedOption, group=_NODES_HELP,
                 help="First port; the others follow."),
    click.option("--stagger", metavar="SECONDS|loaded", callback=stagger_value, cls=GroupedOption, group=_NODES_HELP,
                 help="Start the next after SECONDS, or when one has `loaded`."),
    click.option("--one-job", is_flag=True, cls=GroupedOption, group=_NODES_HELP,
                 help="With Slurm: all in one job on one node, not a job each."),
    click.option("--force", is_flag=True, cls=GroupedOption, group=_NODES_HELP, help="Use cards that are in use."),
)  # fmt: skip


def layout_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a layout; the command gets them as `layout: LayoutRequest`."""

    @functools.wraps(verb)
    def with_layout(**options: Any) -> Any:
        asked = {name: options.pop(name) for name in LayoutRequest.__dataclass_fields__}
        return verb(layout=LayoutRequest(**asked), **options)

    for option in reversed(_LAYOUT_OPTIONS):
        with_layout = option(with_layout)
    return with_layout


def start_servers(
    servers: Sequence[ServerParams], layout: LayoutRequest, site: SiteParams, workspace: Path
) -> list[Server]:
    """Start all or none; errors as `tautools.servers.launch_all`."""
    if layout.one_job:
        if layout.gpu_ids is not None:
            raise click.UsageError("--gpu-ids: Slurm chooses the cards of a job; leave it out")
        return launch_one_job(layout.arranged(servers), workspace=workspace, site=site)
    return launch_all(
        layout.arranged(servers),
        workspace=workspace,
        site=site,
        gpu_ids=layout.gpu_ids,
        force=layout.force,
        emit=lambda text: click.echo(text, err=True),
    )


@command(
    "tautools server plan qwen3-8b qwen3-32b --site sol-gaudi --replicas qwen3-8b=4",
    "tautools server plan sim-small --replicas 4 --start-port 1900",
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=ParamsName("servers"))
@layout_options
@site_option
@set_option
@workspace_option
@json_option
def plan(
    names: tuple[str, ...],
    layout: LayoutRequest,
    site: SiteParams,
    overrides: tuple[str, ...],
    workspace: Path,
    as_json: bool,
) -> None:
    """Show which card holds what, what cannot be, and when it would start; nothing is started.

    On this node as it is now; for a Slurm site, on nodes as its file describes them, as few as it takes. Where Slurm
    is, it says what is free now, when each server would start, and what could be asked for less to start sooner.
    """
    servers = layout.arranged([load_server(name, workspace=workspace, overrides=overrides) for name in names])
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
    starts = _StartTimes.ask(servers, site, workspace)
    emit(_plan_dict(layouts, node, starts), as_json=as_json, text=lambda: _show_layouts(layouts, node, starts))
    if any(each.problems for each in layouts):
        raise SystemExit(EXIT_FAILED)


@dataclass(frozen=True, slots=True)
class _StartTimes:
    """When Slurm would start each server, and what is free now; nothing where there is no Slurm."""

    estimates: Mapping[str, Sequence[StartEstimate]]
    partition: Sequence[Node]

    @classmethod
    def ask(cls, servers: Sequence[ServerParams], site: SiteParams, workspace: Path) -> _StartTimes:
        if not site.uses_slurm or shutil.which("sbatch") is None:
            return cls({}, ())
        requests = [LaunchRequest(params, site, params.name) for params in servers]
        asked = {each.name: estimate_starts(each, workspace=workspace) for each in requests}
        return cls(asked, Slurm().nodes(site.partition))

    def lines(self) -> Iterator[str]:
        """Yield the nodes of the partition, each server's estimates, and the smaller request that starts soonest."""
        for node in self.partition:
            yield f"{node.name}: {node.state}, {node.cards - node.cards_used} of {node.cards} cards free"
        for name, estimates in self.estimates.items():
            yield from (f"{name}, {each.asks}: {_start_text(each)}" for each in estimates)
            sooner = [each for each in estimates[1:] if _starts_sooner(each, estimates[0])]
            if sooner:
                yield f"Sooner: {min(sooner, key=lambda each: each.starts_at or 0.0).asks}, in the site file."


def _start_text(estimate: StartEstimate) -> str:
    if estimate.refused:
        return estimate.refused
    if estimate.starts_at is None:
        return "Slurm takes it and gives no estimate"
    left_min = max(0, round((estimate.starts_at - time.time()) / 60))
    clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(estimate.starts_at))
    return "now" if left_min == 0 else f"{clock}, in {left_min // 60} h {left_min % 60} min"


def _starts_sooner(estimate: StartEstimate, whole: StartEstimate) -> bool:
    """Whether it would start more than a minute earlier."""
    if estimate.starts_at is None:
        return False
    return bool(whole.refused) or (whole.starts_at is not None and whole.starts_at - estimate.starts_at > 60)


def _plan_dict(layouts: Sequence[Layout], node: NodeState, starts: _StartTimes) -> dict[str, Any]:
    numbered = list(enumerate(layouts, 1))
    return {
        "fits": not any(layout.problems for layout in layouts),
        "nodes": len(layouts),
        "servers": [_placement_dict(place) | {"node": n} for n, layout in numbered for place in layout.places],
        "cards": [row | {"node": n} for n, layout in numbered for row in _card_rows(layout, node)],
        "problems": [problem for layout in layouts for problem in layout.problems],
        "notes": [note for layout in layouts for note in layout.notes],
        "starts": starts.estimates,
        "partition": starts.partition,
    }


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


def _show_layouts(layouts: Sequence[Layout], node: NodeState, starts: _StartTimes) -> None:
    for number, layout in enumerate(layouts, 1):
        if len(layouts) > 1:
            click.secho(f"Node {number} of {len(layouts)}", bold=True)
        _show_layout(layout, node)
    if len(layouts) > 1:
        click.echo("Each server is a job of its own; Slurm chooses the nodes, and may choose others.")
    for line in starts.lines():
        click.echo(line)


def _show_layout(layout: Layout, node: NodeState) -> None:
    table = plain_table("server", "cards", "port", "weights a card", "model")
    for row in map(_placement_dict, layout.places):
        weights = row["weights_gib_per_card"]
        cards = ",".join(str(index) for index in row["cards"]) or "-"
        size = "-" if weights is None else f"{weights:.1f} GiB"
        table.add_row(row["name"], cards, str(row["port"] or "free"), size, escape(row["model"]))
    print_wide(table)
    used = {index for place in layout.places for index in place.params.cards}
    for card in node.cards:
        reason = node.promised.get(card.index) or card.why_busy
        if reason and card.index not in used:
            click.echo(f"card {card.index} is left alone: {reason}")
    left = [str(card.index) for card in node.cards if card.index not in used and card.idle]
    if left:
        click.echo(f"cards left: {', '.join(left)}")
    for note in layout.notes:
        click.echo(note)
    for problem in layout.problems:
        click.secho(problem, fg="red", err=True)


@command(
    "tautools server script qwen3-32b --site sol-gaudi",
    "tautools server script qwen3-32b --site sol-gaudi -o user-server.sh && sbatch user-server.sh",
)
@click.argument("name", type=ParamsName("servers"))
@site_option
@set_option
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
    if not site.uses_slurm:
        raise click.UsageError("--site must name a site with Slurm, such as sol-gaudi")
    params = load_server(name, workspace=workspace, overrides=overrides)
    servers = apply_layout_options([params], replicas={params.name: replicas} if replicas is not None else {})
    places = plan_launch(servers, workspace=workspace, site=site).require()
    texts = [job_script_text([place], workspace=workspace) for place in places]
    if out is None:
        click.echo("\n".join(texts), nl=False)
    else:
        _write_scripts(texts, out, workspace)


def _write_scripts(texts: Sequence[str], out: Path, workspace: Path) -> None:
    """Write one script to `out`, several next to it with their number before the ending."""
    numbered = [out.with_name(f"{out.stem}-{number}{out.suffix}") for number in range(len(texts))]
    files = numbered if len(texts) > 1 else [out]
    existing = next((file for file in files if file.exists()), None)
    if existing is not None:
        raise click.UsageError(f"{existing} exists already")
    for folder in ("logs", "errors"):  # Slurm ends a job without a word when it cannot write these
        ensure_folder(workspace / folder)
    for file, text in zip(files, texts, strict=True):
        if not write_new(file, text):
            raise click.UsageError(f"{file} exists already")
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


def show_dry_run(chosen: Sequence[ServerParams], layout: LayoutRequest, site: SiteParams, workspace: Path) -> None:
    """Print what a start would do, each replica for itself, and whether it would be taken; nothing is started."""
    servers = layout.arranged(chosen)
    for params in servers:
        show_profile(params, site)
    if layout.one_job:
        _show_shared_job(servers, site, workspace)
        return
    # A command for a node with cards can be read on one without.
    elsewhere = site.uses_slurm or visible_device(site.device) is None
    node = (
        unknown_node_state(servers, site, workspace)
        if elsewhere
        else this_node_state(servers, site, workspace, force=layout.force)
    )
    for place in plan_layout(servers, node, gpu_ids=layout.gpu_ids).require():
        params, name = place.params, place.name
        if site.uses_slurm:
            click.echo(job_script_text([place], workspace=workspace))
            check_options(params, site, Registry(workspace))
            _show_accepted(name, check_launch(params, workspace=workspace, site=site, name=name))
        else:
            check_launch(params, workspace=workspace, site=site, name=name, force=layout.force)
            click.echo(shlex.join(server_argv(params, site, ListenAddress(site.host, params.port or 0, "launch-…"))))


def _show_shared_job(servers: Sequence[ServerParams], site: SiteParams, workspace: Path) -> None:
    places = plan_one_job(servers, workspace=workspace, site=site).require_job()
    click.echo(job_script_text(places, workspace=workspace))
    for place in places:
        check_options(place.params, site, Registry(workspace))
    starts_at = check_one_job(places, workspace=workspace)
    _show_accepted(", ".join(place.name for place in places), starts_at)


def _show_accepted(names: str, starts_at: float | None) -> None:
    clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(starts_at)) if starts_at else ""
    start = f" and expects to start it at {clock}" if clock else ""
    click.echo(f"{names}: Slurm would take this job{start}.", err=True)
