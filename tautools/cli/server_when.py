"""`tautools server when`: when Slurm would start a server, and which smaller request would start sooner."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import ParamsName, json_option, set_option, site_option, workspace_option

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.server.on_slurm.sooner import Offer

__all__ = ["when"]


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
    from tautools.server.on_slurm.sooner import offers
    from tautools.slurm import Slurm

    where = load_site(site, workspace=workspace) if site else None
    if where is None or where.scheduler != "slurm":
        raise click.UsageError("--site must name a site with Slurm, such as sol-gaudi")
    found = offers(load_server(name, workspace=workspace, overrides=overrides), where, workspace=workspace)
    nodes = Slurm().nodes(where.partition)
    if as_json:
        rows = [{"asks": each.asks, "starts_at": each.starts_at, "refused": each.refused or None} for each in found]
        told = [{"node": n.name, "state": n.state, "cards": n.cards, "cards_used": n.cards_used} for n in nodes]
        click.echo(json.dumps({"offers": rows, "nodes": told}, indent=1))
        return
    for node in nodes:
        click.echo(f"{node.name}: {node.state}, {node.cards - node.cards_used} of {node.cards} cards free")
    for each in found:
        click.echo(f"{each.asks}: {_start(each)}")
    sooner = [each for each in found[1:] if _before(each, found[0])]
    if sooner:
        click.echo(f"Sooner: {min(sooner, key=lambda each: each.starts_at or 0.0).asks}, in the site file.")


def _start(offer: Offer) -> str:
    if offer.refused:
        return offer.refused
    if offer.starts_at is None:
        return "Slurm takes it and gives no estimate"
    left = max(0, round((offer.starts_at - time.time()) / 60))
    clock = time.strftime("%Y-%m-%d %H:%M", time.localtime(offer.starts_at))
    return "now" if left == 0 else f"{clock}, in {left // 60} h {left % 60} min"


def _before(offer: Offer, whole: Offer) -> bool:
    """Whether it would start more than a minute earlier."""
    if offer.starts_at is None:
        return False
    return bool(whole.refused) or (whole.starts_at is not None and whole.starts_at - offer.starts_at > 60)
