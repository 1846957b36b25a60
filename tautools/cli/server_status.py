"""`tautools server ls`, `top` and `cards`: what runs, how it is, and what the node's accelerators hold."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.options import json_option, workspace_option
from tautools.cli.output import guard

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console, RenderableType
    from rich.table import Table

    from tautools.records import Certificate, Check, ServerRecord
    from tautools.servers import Server
    from tautools.servers.accelerators.probe import Card, CardProcess
    from tautools.servers.metrics import WatchedServer
    from tautools.servers.registry import Registry


_MARKS = {True: ("ok", "green"), False: ("FAILED", "red"), None: ("-", "bright_black")}


_PUBLIC = "name backend engine model base_url host pid log_out log_err key_file simulated"


def record_dict(record: ServerRecord) -> dict[str, Any]:
    """Return what a program may know of a server; where the key lies is told, the key is not."""
    return record.model_dump(mode="json", include=set(_PUBLIC.split()))


def server_dict(server: Server) -> dict[str, Any]:
    """Return the same with the server's state now."""
    seen = server.state()
    return record_dict(server.record) | {"state": seen.state.value, "detail": seen.detail}


def show_check(check: Check) -> None:
    """Print one check of the ladder."""
    word, colour = _MARKS[check.passed]
    mark = click.style(f"{word:>6}", fg=colour)
    click.echo(f"{mark}  {check.number} {check.name:<14} {check.took_s:6.2f} s  {check.detail}")


def show_certificate(certificate: Certificate, *, as_json: bool) -> None:
    """Print the verdict, and exit with 1 when it is bad."""
    if as_json:
        click.echo(json.dumps(certificate.model_dump(mode="json") | {"passed": certificate.passed}, indent=1))
    else:
        mark = "SIMULATED " if certificate.simulated else ""
        verdict = "passed" if certificate.passed else "failed"
        click.secho(f"{mark}{certificate.model or certificate.base_url}: {verdict}", bold=True)
    if not certificate.passed:
        raise SystemExit(1)


def age_of(seconds: float) -> str:
    """Return a duration as people say it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def shell_variable(name: str) -> str:
    """Return a server's name as the beginning of a shell variable's."""
    text = "".join(char if char.isalnum() and char.isascii() else "_" for char in name).upper()
    return f"_{text}" if text[0].isdigit() else text


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


def table_console() -> Console:
    """Return a console as wide as the terminal; a pipe or a file gets lines of any length."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=400)


def server_table(seen: Sequence[WatchedServer], workspace: Path, *, width: int) -> RenderableType:
    """Return the servers as a table.

    Parameters
    ----------
    seen : sequence of Watched
        What was seen of each.
    workspace : Path
        Where notes of their keepers lie.
    width : int
        Columns of the terminal.
    """
    from rich.markup import escape

    if width < _WIDE:
        return _narrow(seen, workspace)
    table = _figures_table()
    for title in ("model", "address"):
        table.add_column(title, overflow="fold")
    for each in seen:
        note = _note(each, workspace)
        state = f"{_coloured(each, str(each.snapshot))}{_stale(each)}" + (f"\n{escape(note)}" if note else "")
        table.add_row(
            escape(each.record.name), state, *_figures(each), escape(_model(each)), escape(each.record.base_url)
        )
    return table


def _narrow(seen: Sequence[WatchedServer], workspace: Path) -> RenderableType:
    from rich.console import Group
    from rich.markup import escape
    from rich.padding import Padding
    from rich.text import Text

    table = _figures_table()
    words: list[RenderableType] = []
    for each in seen:
        table.add_row(escape(each.record.name), _coloured(each, each.snapshot.state.value), *_figures(each))
        parts = (_model(each), each.record.base_url, _said(each), _note(each, workspace))
        words.append(Text(f"{each.record.name}: {', '.join(filter(None, parts[:2]))}"))
        words += [Padding(Text(part), (0, 0, 0, 2)) for part in parts[2:] if part]
    return Group(table, Text(), *words)


def _figures_table() -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("name", overflow="fold")
    table.add_column("state", overflow="fold")
    table.add_column("age", no_wrap=True)
    for title in ("run", "wait", "KV", "prefix", "tok/s in", "out"):
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _coloured(each: WatchedServer, text: str) -> str:
    from rich.markup import escape

    return f"[{_COLOURS.get(each.snapshot.state.value, 'red')}]{escape(text)}[/]"


def _said(each: WatchedServer) -> str:
    """Return what the state says beyond its name."""
    told = str(each.snapshot).removeprefix(each.snapshot.state.value).lstrip(": ")
    return f"{told}{_stale(each)}".strip()


def _model(each: WatchedServer) -> str:
    return each.record.model + (" SIMULATED" if each.record.simulated else "")


def _note(each: WatchedServer, workspace: Path) -> str:
    from tautools.servers.lease import active_lease

    note = active_lease(each.record, workspace=workspace)
    return "" if note is None else str(note)


def _stale(each: WatchedServer) -> str:
    """Say how old the figures are, when they are not of this look."""
    return f" (figures {age_of(each.health_age_s)} old)" if each.health_age_s else ""


def _figures(each: WatchedServer) -> tuple[str, ...]:
    load = each.load
    return (
        age_of(each.snapshot.age),
        _number(load.running),
        _number(load.waiting),
        _share(load.kv_usage),
        _share(load.prefix_hit_rate),
        _number(load.prompt_tokens_s),
        _number(load.output_tokens_s),
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


@click.command("ls", epilog="\b\nExamples:\n  tautools server ls\n  tautools server ls --json | jq '.[].base_url'")
@workspace_option
@json_option
@guard
def list_servers(workspace: Path, as_json: bool) -> None:
    """List servers with their state and load now.

    Rates of servers at work are measured over 0.3 s; `server top` watches for longer.
    """
    from tautools.servers.metrics import sample_servers

    _show_servers(sample_servers(workspace), workspace, as_json=as_json)


@click.command(
    "top",
    epilog="\b\nExamples:\n  tautools server top\n  tautools server top --once --json\n"
    "  tautools server top --every 10",
)
@click.option("--every", "every_s", type=click.FloatRange(0.2), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one table, with rates over --every seconds, and end.")
@workspace_option
@json_option
@guard
def top(every_s: float, once: bool, workspace: Path, as_json: bool) -> None:
    """Watch servers until Ctrl-C: health and its age, requests, KV cache, prefix cache, tokens.

    With --json one line for each look. A server that does not answer keeps its last figures, with their age.
    """
    from tautools.servers.metrics import poll_servers

    seen = poll_servers(workspace)
    if once:
        if any(each.sample is not None for each in seen):
            time.sleep(every_s)
            seen = poll_servers(workspace, seen)
        _show_servers(seen, workspace, as_json=as_json)
        return
    _watch_servers(seen, workspace, every_s=every_s, as_json=as_json)


def _watch_servers(seen: Sequence[WatchedServer], workspace: Path, *, every_s: float, as_json: bool) -> None:
    from rich.live import Live

    from tautools.servers.metrics import poll_servers

    if as_json:
        while True:
            click.echo(json.dumps(_server_rows(seen, workspace)))
            time.sleep(every_s)
            seen = poll_servers(workspace, seen)
    console = table_console()
    with Live(server_table(seen, workspace, width=console.width), console=console, auto_refresh=False) as live:
        while True:
            live.update(server_table(seen, workspace, width=console.width), refresh=True)
            time.sleep(every_s)
            seen = poll_servers(workspace, seen)


def _show_servers(seen: Sequence[WatchedServer], workspace: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_server_rows(seen, workspace), indent=1))
    elif not seen:
        click.echo(f"No server is registered in {workspace.resolve() / 'servers'}.")
    else:
        console = table_console()
        console.print(server_table(seen, workspace, width=console.width))


def _server_rows(seen: Sequence[WatchedServer], workspace: Path) -> list[dict[str, Any]]:
    from tautools.servers.lease import active_lease

    rows = []
    for each in seen:
        snapshot, note = each.snapshot, active_lease(each.record, workspace=workspace)
        row = record_dict(each.record) | {"state": snapshot.state.value, "detail": snapshot.detail}
        row |= {"age_s": round(snapshot.age, 1), "percent": snapshot.percent, "next_step": snapshot.next_step}
        row |= {"health_age_s": each.health_age_s, "load": asdict(each.load)}
        rows.append(row | {"keeper": str(note) if note is not None else ""})
    return rows


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
    from tautools.servers import Registry
    from tautools.servers.accelerators.assignment import assign_cards
    from tautools.servers.accelerators.probe import AcceleratorProbe

    if confirmed and not stop_stale:
        raise click.UsageError("--confirm goes with --stop-stale")
    if assign is not None:
        for name, value in assign_cards(assign).items():
            click.echo(json.dumps({name: value}) if as_json else f"export {name}={shlex.quote(value)}")
        return
    registry, found = Registry(workspace), AcceleratorProbe().read()
    if stop_stale:
        _stop_stale(confirmed, found, registry)
    elif as_json:
        click.echo(json.dumps(_card_dicts(found, registry), indent=1))
    elif not found:
        click.echo("No cards can be seen here: neither hl-smi nor nvidia-smi is on PATH, or they name none.")
    else:
        _show_cards(found, registry)


def _stop_stale(confirmed: tuple[str, ...], found: list[Card], registry: Registry) -> None:
    from tautools.servers.accelerators.assignment import stale_processes, stop_stale, wait_released

    if not confirmed:
        stale = stale_processes(found, registry)
        for holder in stale:
            click.echo(f"{_cards_of(holder, found)}: {holder}")
        if stale:
            words = " ".join(f"--confirm {holder.token}" for holder in stale)
            click.echo(f"Nothing was stopped. To stop them: tautools server cards --stop-stale {words}")
        else:
            click.echo("No process of yours holds a card without being a server of this workspace.")
        return
    from tautools.servers.accelerators.probe import AcceleratorProbe

    stopped = stop_stale(
        confirmed, found, registry, on_stopped=lambda holder: click.echo(f"process {holder.pid}: stopped")
    )
    gone = {holder.pid for holder in stopped}
    held = [card.index for card in found if gone & {holder.pid for holder in card.holders}]
    if wait_released(held, AcceleratorProbe(), emit=click.echo):
        click.echo(f"idle again: {', '.join(f'card {index}' for index in held)}")


def _cards_of(holder: CardProcess, found: list[Card]) -> str:
    held = [card.index for card in found if holder.pid in {each.pid for each in card.holders}]
    return ", ".join(f"card {index}" for index in held)


def _card_dicts(found: list[Card], registry: Registry) -> list[dict[str, Any]]:
    from tautools.servers.accelerators.assignment import promised_cards, stale_processes

    promised = promised_cards(registry)
    stale = {holder.pid for holder in stale_processes(found, registry)}
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


def _show_cards(found: list[Card], registry: Registry) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("card", "module", "memory MiB", "state", "held by", box=None, pad_edge=False)
    rows = _card_dicts(found, registry)
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
