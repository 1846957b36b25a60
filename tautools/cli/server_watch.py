"""`tautools server ls` and `tautools server top`: what runs, how it is, how much it has to do."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option
from tautools.cli.server_words import public

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.server.watch import Watched

__all__ = ["list_servers", "top"]


@click.command("ls", epilog="\b\nExamples:\n  tautools server ls\n  tautools server ls --json | jq '.[].base_url'")
@workspace_option
@json_option
@guard
def list_servers(workspace: Path, as_json: bool) -> None:
    """List servers with their state and load now.

    Rates of servers at work are measured over 0.3 s; `server top` watches for longer.
    """
    from tautools.server.watch import watch_servers

    _show(watch_servers(workspace), workspace, as_json=as_json)


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
    from tautools.server.watch import look

    seen = look(workspace)
    if once:
        if any(each.sample is not None for each in seen):
            time.sleep(every_s)
            seen = look(workspace, seen)
        _show(seen, workspace, as_json=as_json)
        return
    _watch(seen, workspace, every_s=every_s, as_json=as_json)


def _watch(seen: Sequence[Watched], workspace: Path, *, every_s: float, as_json: bool) -> None:
    from rich.live import Live

    from tautools.cli.server_table import server_table, table_console
    from tautools.server.watch import look

    if as_json:
        while True:
            click.echo(json.dumps(_rows(seen, workspace)))
            time.sleep(every_s)
            seen = look(workspace, seen)
    console = table_console()
    with Live(server_table(seen, workspace, width=console.width), console=console, auto_refresh=False) as live:
        while True:
            live.update(server_table(seen, workspace, width=console.width), refresh=True)
            time.sleep(every_s)
            seen = look(workspace, seen)


def _show(seen: Sequence[Watched], workspace: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_rows(seen, workspace), indent=1))
    elif not seen:
        click.echo(f"No server is registered in {workspace.resolve() / 'servers'}.")
    else:
        from tautools.cli.server_table import server_table, table_console

        console = table_console()
        console.print(server_table(seen, workspace, width=console.width))


def _rows(seen: Sequence[Watched], workspace: Path) -> list[dict[str, Any]]:
    from tautools.server.keeping import kept

    rows = []
    for each in seen:
        snapshot, note = each.snapshot, kept(each.record, workspace=workspace)
        row = public(each.record) | {"state": snapshot.state.value, "detail": snapshot.detail}
        row |= {"age_s": round(snapshot.age, 1), "percent": snapshot.percent, "next_step": snapshot.next_step}
        row |= {"health_age_s": each.health_age_s, "load": asdict(each.load)}
        rows.append(row | {"keeper": str(note) if note is not None else ""})
    return rows
