"""`tautools server ls`, `top` and `cards`: what runs, how it is, and what the node's accelerators hold."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from tautools.cli.commands import command
from tautools.cli.options import json_option, workspace_option
from tautools.cli.output import age_of, emit, pick, plain_table, print_wide, table_console
from tautools.servers import Registry
from tautools.servers.accelerators.assignment import (
    assign_cards,
    promised_cards,
    stale_processes,
    stop_stale,
    wait_released,
)
from tautools.servers.accelerators.probe import read_cards
from tautools.servers.lease import active_lease
from tautools.servers.metrics import poll_servers, sample_servers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import RenderableType
    from rich.table import Table

    from tautools.records import ServerRecord
    from tautools.servers import Server
    from tautools.servers.accelerators.probe import Card, CardProcess
    from tautools.servers.metrics import WatchedServer

_PUBLIC = {
    "name",
    "backend",
    "engine",
    "model",
    "base_url",
    "host",
    "pid",
    "log_out",
    "log_err",
    "key_file",
    "simulated",
}
"""What a program may know of a server: where the key lies, and not the key."""

_WIDE = 140
"""Columns below which model, address and detail have lines of their own."""

_COLOURS = {
    "ready": "green",
    "starting": "cyan",
    "verifying": "cyan",
    "queued": "cyan",
    "stopping": "yellow",
    "degraded": "yellow",
    "unknown": "yellow",
    "stopped": "bright_black",
}


def server_dict(server: Server) -> dict[str, Any]:
    """Return what a program may know of a server, with its state now."""
    snapshot = server.state()
    return _record_dict(server.record) | {"state": snapshot.state.value, "detail": snapshot.detail}


def _record_dict(record: ServerRecord) -> dict[str, Any]:
    return record.model_dump(mode="json", include=_PUBLIC)


@command("tautools server ls", "tautools server ls --json | jq '.[].base_url'", name="ls")
@workspace_option
@json_option
def list_servers(workspace: Path, as_json: bool) -> None:
    """List servers with their state and load now.

    Rates of servers at work are measured over 0.3 s; `server top` watches for longer.
    """
    _show_servers(sample_servers(workspace), workspace, as_json=as_json)
    for problem in Registry(workspace).scan().problems:
        click.secho(str(problem), err=True, fg="yellow")


@command("tautools server top", "tautools server top --once --json", "tautools server top --every 10", name="top")
@click.option("--every", "every_s", type=click.FloatRange(0.2), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one table, with rates over --every seconds, and end.")
@workspace_option
@json_option
def top(every_s: float, once: bool, workspace: Path, as_json: bool) -> None:
    """Watch servers until Ctrl-C: health and its age, requests, KV cache, prefix cache, tokens.

    With --json one line for each look. A server that does not answer keeps its last figures, with their age.
    """
    statuses = poll_servers(workspace)
    if once:
        if any(status.sample is not None for status in statuses):
            time.sleep(every_s)
            statuses = poll_servers(workspace, statuses)
        _show_servers(statuses, workspace, as_json=as_json)
    elif as_json:
        while True:
            emit(_server_rows(statuses, workspace), as_json=True, indent=None)
            time.sleep(every_s)
            statuses = poll_servers(workspace, statuses)
    else:
        _watch_servers(statuses, workspace, every_s=every_s)


def _watch_servers(statuses: Sequence[WatchedServer], workspace: Path, *, every_s: float) -> None:
    console = table_console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(server_table(statuses, workspace, width=console.width), refresh=True)
            time.sleep(every_s)
            statuses = poll_servers(workspace, statuses)


def _show_servers(statuses: Sequence[WatchedServer], workspace: Path, *, as_json: bool) -> None:
    if as_json:
        emit(_server_rows(statuses, workspace), as_json=True)
    elif not statuses:
        click.echo(f"No server is registered in {workspace.resolve() / 'servers'}.")
    else:
        console = table_console()
        console.print(server_table(statuses, workspace, width=console.width))


def _server_rows(statuses: Sequence[WatchedServer], workspace: Path) -> list[dict[str, Any]]:
    return [
        _record_dict(status.record)
        | pick(status.snapshot, "state detail percent next_step")
        | pick(status, "health_age_s load")
        | {"age_s": round(status.snapshot.age, 1), "watchdog": _lease_text(status, workspace)}
        for status in statuses
    ]


def server_table(statuses: Sequence[WatchedServer], workspace: Path, *, width: int) -> RenderableType:
    """Return the servers as a table: one line each where the terminal is wide, else words below the figures.

    Parameters
    ----------
    statuses : sequence of WatchedServer
        What was seen of each.
    workspace : Path
        Where their leases lie.
    width : int
        Columns of the terminal.
    """
    table, lines = _figures_table(wide=width >= _WIDE), list[Any]()
    for status in statuses:
        record, snapshot, lease = status.record, status.snapshot, _lease_text(status, workspace)
        colour = _COLOURS.get(snapshot.state.value, "red")
        model = record.model + (" SIMULATED" if record.simulated else "")
        # How old the figures are, when they are not of this look.
        stale = f" (figures {age_of(status.health_age_s)} old)" if status.health_age_s else ""
        if width >= _WIDE:
            state = f"[{colour}]{escape(str(snapshot))}[/]{stale}" + (f"\n{escape(lease)}" if lease else "")
            figures = _figures(status)
            table.add_row(escape(record.name), state, *figures, escape(model), escape(record.base_url))
            continue
        table.add_row(escape(record.name), f"[{colour}]{snapshot.state.value}[/]", *_figures(status))
        detail = str(snapshot).removeprefix(snapshot.state.value).lstrip(": ")
        lines.append(Text(f"{record.name}: {', '.join(filter(None, (model, record.base_url)))}"))
        lines += [Padding(Text(line), (0, 0, 0, 2)) for line in (f"{detail}{stale}".strip(), lease) if line]
    return Group(table, Text(), *lines) if lines else table


def _figures_table(*, wide: bool) -> Table:
    figures = ("run", "wait", "KV", "prefix", "tok/s in", "out")
    words = ("name", "state", "model", "address")
    table = plain_table(*words[:2], "age", *figures, *(words[2:] if wide else ()), right=figures, fold=words)
    for column in table.columns[2:9]:
        column.no_wrap = True
    return table


def _lease_text(status: WatchedServer, workspace: Path) -> str:
    lease = active_lease(status.record, workspace=workspace)
    return "" if lease is None else str(lease)


def _figures(status: WatchedServer) -> tuple[str, ...]:
    def number(value: float | None, form: str = ".0f") -> str:
        return "-" if value is None else format(value, form)

    load = status.load
    return (
        age_of(status.snapshot.age),
        number(load.running),
        number(load.waiting),
        number(load.kv_usage, ".0%"),
        number(load.prefix_hit_rate, ".0%"),
        number(load.prompt_tokens_s),
        number(load.output_tokens_s),
    )


@command(
    "tautools server cards", "tautools server cards --json | jq '.[] | .index'", "tautools server cards --stop-stale"
)
@click.option("--stop-stale", is_flag=True, help="Name your processes that hold a card and are no server's.")
@click.option("--confirm", "confirmed", multiple=True, metavar="PID@START",
              help="With --stop-stale: stop this one; as it was named.  [several times]")  # fmt: skip
@click.option("--assign", type=click.IntRange(1),
              help="Choose so many idle cards of this job; print the line that shows them.")  # fmt: skip
@workspace_option
@json_option
def cards(stop_stale: bool, confirmed: tuple[str, ...], assign: int | None, workspace: Path, as_json: bool) -> None:
    """Show this node's cards: memory, and who holds them.

    Another user's process is never touched, and nothing of yours without its name and start time.
    """
    if confirmed and not stop_stale:
        raise click.UsageError("--confirm goes with --stop-stale")
    if assign is not None:
        for name, value in assign_cards(assign).items():
            click.echo(json.dumps({name: value}) if as_json else f"export {name}={shlex.quote(value)}")
        return
    registry, node_cards = Registry(workspace), read_cards()
    if stop_stale and confirmed:
        _stop_stale(confirmed, node_cards, registry)
    elif stop_stale:
        _name_stale(node_cards, registry)
    elif not node_cards and not as_json:
        click.echo("No cards can be seen here: neither hl-smi nor nvidia-smi is on PATH, or they name none.")
    else:
        rows = _card_dicts(node_cards, registry)
        emit(rows, as_json=as_json, text=lambda: _show_cards(node_cards, rows))


def _name_stale(node_cards: list[Card], registry: Registry) -> None:
    stale = stale_processes(node_cards, registry)
    for process in stale:
        held = [card.index for card in node_cards if process.pid in {each.pid for each in card.holders}]
        click.echo(f"{', '.join(f'card {index}' for index in held)}: {process}")
    if stale:
        words = " ".join(f"--confirm {process.token}" for process in stale)
        click.echo(f"Nothing was stopped. To stop them: tautools server cards --stop-stale {words}")
    else:
        click.echo("No process of yours holds a card without being a server of this workspace.")


def _stop_stale(confirmed: tuple[str, ...], node_cards: list[Card], registry: Registry) -> None:
    def stopped(process: CardProcess) -> None:
        click.echo(f"process {process.pid}: stopped")

    gone = {process.pid for process in stop_stale(confirmed, node_cards, registry, on_stopped=stopped)}
    held = [card.index for card in node_cards if gone & {process.pid for process in card.holders}]
    if wait_released(held, emit=click.echo):
        click.echo(f"idle again: {', '.join(f'card {index}' for index in held)}")


def _card_dicts(node_cards: list[Card], registry: Registry) -> list[dict[str, Any]]:
    promised = promised_cards(registry)
    stale = {process.pid for process in stale_processes(node_cards, registry)}

    def holder(process: CardProcess) -> dict[str, Any]:
        return asdict(process) | {"age_s": round(process.age_s, 1), "mine": process.mine, "stale": process.pid in stale}

    return [
        asdict(card) | {"idle": card.idle, "server": promised.get(card.index), "holders": [*map(holder, card.holders)]}
        for card in node_cards
    ]


def _show_cards(node_cards: list[Card], rows: list[dict[str, Any]]) -> None:
    table = plain_table("card", "module", "memory MiB", "state", "held by")
    for card, row in zip(node_cards, rows, strict=True):
        who = [f"server {row['server']}"] if row["server"] else []
        who += [
            f"{process}{' (stale)' if each['stale'] else ''}"
            for process, each in zip(card.holders, row["holders"], strict=True)
        ]
        state = "[green]idle[/]" if card.idle else "[yellow]in use[/]"
        memory = f"{card.used_mib} / {card.total_mib}"
        table.add_row(str(card.index), str(card.module), memory, state, escape("; ".join(who)))
    print_wide(table)
    if any(each["stale"] for row in rows for each in row["holders"]):
        click.echo("Stale: yours, and no server of this workspace; see `tautools server cards --stop-stale`.")
