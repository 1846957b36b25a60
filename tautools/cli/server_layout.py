"""`tautools server plan`, and the options by which several servers are laid out on a node."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from tautools.cli.errors import EXIT_FAILED, guard
from tautools.cli.options import ParamsName, json_option, set_option, site_option, workspace_option

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tautools.params.models import ServerParams, SiteParams
    from tautools.server import Server
    from tautools.server.layout.plan import Layout, Planned, Surroundings

__all__ = ["Asked", "CardList", "StaggerType", "layout_options", "plan", "start_asked", "take_asked"]

F = TypeVar("F", bound="Callable[..., Any]")


class CardList(click.ParamType[list[int]]):
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
class Asked:
    """What was asked for of a layout, over what the files say."""

    replicas: tuple[str, ...] = ()
    gpu_ids: list[int] | None = None
    start_port: int | None = None
    stagger: float | Literal["loaded"] | None = None
    force: bool = False
    one_job: bool = False

    def arranged(self, servers: Sequence[ServerParams]) -> list[ServerParams]:
        """Return the servers with it; errors as `tautools.server.layout.fleet.arrange`."""
        from tautools.server.layout.fleet import arrange

        counts: dict[str, int] = {}
        for text in self.replicas:
            name, _, count = text.rpartition("=")
            if not count.isdigit() or not 1 <= int(count) <= 256:
                raise click.UsageError(f"--replicas {text}: write NAME=N, or N for all; N from 1 to 256")
            counts |= {name: int(count)} if name else {params.name: int(count) for params in servers}
        return arrange(servers, replicas=counts, start_port=self.start_port, stagger=self.stagger)


def layout_options(function: F) -> F:
    """Add the options of a layout; `take_asked` makes them into an `Asked`."""
    options = (
        click.option("--replicas", multiple=True, metavar="NAME=N", help="Servers of one model; a bare N for all."),
        click.option("--gpu-ids", type=CardList(), help="Use these cards only, such as 0,1,2,3 or 0-3."),
        click.option("--start-port", type=click.IntRange(1, 65535), help="First port; the others follow."),
        click.option("--stagger", type=StaggerType(), help="Start the next after SECONDS, or when one has `loaded`."),
        click.option("--one-job", is_flag=True, help="With Slurm: all in one job on one node, not a job each."),
        click.option("--force", is_flag=True, help="Use cards that are in use."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def take_asked(options: dict[str, Any]) -> Asked:
    """Take the options of `layout_options` out of a command's."""
    names = ("replicas", "gpu_ids", "start_port", "stagger", "force", "one_job")
    return Asked(**{name: options.pop(name) for name in names})


def start_asked(
    servers: Sequence[ServerParams], asked: Asked, site: SiteParams | None, workspace: Path
) -> list[Server]:
    """Start all or none; errors as `tautools.server.launch_all`."""
    from tautools.params.models import SiteParams
    from tautools.server import launch_all, launch_one_job

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
        tell=lambda text: click.echo(text, err=True),
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
    from tautools.server.cards.node import CardDoor
    from tautools.server.layout.fleet import plan_one_job
    from tautools.server.layout.plan import plan_layout
    from tautools.server.layout.spread import plan_nodes
    from tautools.server.layout.surroundings import on_site, on_this_node

    asked = take_asked(options)
    where = load_site(site, workspace=workspace) if site else SiteParams(name="local")
    servers = asked.arranged([load_server(name, workspace=workspace, overrides=overrides) for name in names])
    away = where.scheduler != "none" and CardDoor(where.device).device is None
    around = on_site(servers, where, workspace) if away else on_this_node(servers, where, workspace, force=asked.force)
    spread = away and asked.gpu_ids is None
    if asked.one_job:
        layouts = [plan_one_job(servers, workspace=workspace, site=where)]
    else:
        layouts = plan_nodes(servers, around) if spread else [plan_layout(servers, around, gpu_ids=asked.gpu_ids)]
    if as_json:
        click.echo(json.dumps(_told(layouts, around), indent=1))
    else:
        _show_all(layouts, around)
    if any(layout.problems for layout in layouts):
        raise SystemExit(EXIT_FAILED)


def _told(layouts: Sequence[Layout], around: Surroundings) -> dict[str, Any]:
    return {
        "fits": not any(layout.problems for layout in layouts),
        "nodes": len(layouts),
        "servers": [_row(place) | {"node": n} for n, layout in enumerate(layouts, 1) for place in layout.places],
        "cards": [row | {"node": n} for n, layout in enumerate(layouts, 1) for row in _card_rows(layout, around)],
        "problems": [problem for layout in layouts for problem in layout.problems],
        "notes": [note for layout in layouts for note in layout.notes],
    }


def _card_rows(layout: Layout, around: Surroundings) -> list[dict[str, Any]]:
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


def _row(place: Planned) -> dict[str, Any]:
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


def _show_all(layouts: Sequence[Layout], around: Surroundings) -> None:
    for number, layout in enumerate(layouts, 1):
        if len(layouts) > 1:
            click.secho(f"Node {number} of {len(layouts)}", bold=True)
        _show(layout, around)
    if len(layouts) > 1:
        click.echo("Each server is a job of its own; Slurm chooses the nodes, and may put them otherwise.")


def _show(layout: Layout, around: Surroundings) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("server", "cards", "port", "weights a card", "model", box=None, pad_edge=False)
    for row in map(_row, layout.places):
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
