"""`tautools server cards`: what this node's cards hold, and the way to free those that a crash of ours left held."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.server.cards.holders import Holder
    from tautools.server.cards.node import Card
    from tautools.server.registry import Registry

__all__ = ["cards"]


@click.command(
    epilog="\b\nExamples:\n  tautools server cards\n  tautools server cards --json | jq '.[] | .index'\n"
    "  tautools server cards --stop-stale"
)
@click.option("--stop-stale", is_flag=True, help="Name your processes that hold a card and are no server's.")
@click.option(
    "--confirm",
    "confirmed",
    multiple=True,
    metavar="PID@START",
    help="With --stop-stale: stop this one; as it was named.  [several times]",
)
@click.option(
    "--assign", type=click.IntRange(1), help="Choose so many idle cards of this job; print the line that shows them."
)
@workspace_option
@json_option
@guard
def cards(stop_stale: bool, confirmed: tuple[str, ...], assign: int | None, workspace: Path, as_json: bool) -> None:
    """Show this node's cards: memory, and who holds them.

    Another user's process is never touched, and nothing of yours without its name and start time.
    """
    from tautools.server import Registry
    from tautools.server.cards.guard import assign_cards
    from tautools.server.cards.node import CardDoor

    if confirmed and not stop_stale:
        raise click.UsageError("--confirm goes with --stop-stale")
    if assign is not None:
        for name, value in assign_cards(assign).items():
            click.echo(json.dumps({name: value}) if as_json else f"export {name}={shlex.quote(value)}")
        return
    registry, found = Registry(workspace), CardDoor().read()
    if stop_stale:
        _stop_stale(confirmed, found, registry)
    elif as_json:
        click.echo(json.dumps(_rows(found, registry), indent=1))
    elif not found:
        click.echo("No cards can be seen here: neither hl-smi nor nvidia-smi is on PATH, or they name none.")
    else:
        _show(found, registry)


def _stop_stale(confirmed: tuple[str, ...], found: list[Card], registry: Registry) -> None:
    from tautools.server.cards.release import wait_released
    from tautools.server.cards.stale import stale_holders, stop_stale

    if not confirmed:
        stale = stale_holders(found, registry)
        for holder in stale:
            click.echo(f"{_cards_of(holder, found)}: {holder}")
        if stale:
            words = " ".join(f"--confirm {holder.token}" for holder in stale)
            click.echo(f"Nothing was stopped. To stop them: tautools server cards --stop-stale {words}")
        else:
            click.echo("No process of yours holds a card without being a server of this workspace.")
        return
    from tautools.server.cards.node import CardDoor

    stopped = stop_stale(confirmed, found, registry, tell=lambda holder: click.echo(f"process {holder.pid}: stopped"))
    gone = {holder.pid for holder in stopped}
    held = [card.index for card in found if gone & {holder.pid for holder in card.holders}]
    if wait_released(held, CardDoor(), tell=click.echo):
        click.echo(f"idle again: {', '.join(f'card {index}' for index in held)}")


def _cards_of(holder: Holder, found: list[Card]) -> str:
    held = [card.index for card in found if holder.pid in {each.pid for each in card.holders}]
    return ", ".join(f"card {index}" for index in held)


def _rows(found: list[Card], registry: Registry) -> list[dict[str, Any]]:
    from tautools.server.cards.guard import promised_cards
    from tautools.server.cards.stale import stale_holders

    promised = promised_cards(registry)
    stale = {holder.pid for holder in stale_holders(found, registry)}
    return [
        {
            "index": card.index,
            "module": card.module,
            "device": card.device,
            "name": card.name,
            "used_mib": card.used_mib,
            "total_mib": card.total_mib,
            "idle": card.idle,
            "server": promised.get(card.index),
            "holders": [
                {
                    "pid": holder.pid,
                    "started_at": holder.started_at,
                    "age_s": round(holder.age_s, 1),
                    "user": holder.user,
                    "mine": holder.mine,
                    "stale": holder.pid in stale,
                    "command": holder.command,
                }
                for holder in card.holders
            ],
        }
        for card in found
    ]


def _show(found: list[Card], registry: Registry) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("card", "module", "memory MiB", "state", "held by", box=None, pad_edge=False)
    rows = _rows(found, registry)
    for card, row in zip(found, rows, strict=True):
        who = [f"server {row['server']}"] if row["server"] else []
        marks = {each["pid"]: " (stale)" if each["stale"] else "" for each in row["holders"]}
        who += [f"{holder}{marks[holder.pid]}" for holder in card.holders]
        state = "[green]idle[/]" if card.idle else "[yellow]in use[/]"
        memory = f"{card.used_mib} / {card.total_mib}"
        table.add_row(str(card.index), str(card.module), memory, state, escape("; ".join(who)))
    Console(soft_wrap=True).print(table)
    if any(each["stale"] for row in rows for each in row["holders"]):
        click.echo("Stale: yours, and no server of this workspace; see `tautools server cards --stop-stale`.")
