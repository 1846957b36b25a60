"""`tautools server ls`, `top`, `logs`, `diagnose` and `cards`: what runs, how it is, and what the node's cards hold."""

import json
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from tautools.cli.commands import command, refuse_if, wants_json
from tautools.cli.options import usual_options, workspace_option
from tautools.cli.output import PUBLIC, age_of, emit, pick, plain_table, print_wide, table_console
from tautools.files import read_lines
from tautools.servers import Diagnosis, Registry, diagnose_log, open_server
from tautools.servers.accelerators.assignment import (
    assign_cards,
    promised_cards,
    stale_processes,
    stop_stale,
    wait_released,
)
from tautools.servers.accelerators.probe import Card, CardProcess, read_cards
from tautools.servers.backends import backend_of, require_fit
from tautools.servers.lease import active_lease
from tautools.servers.metrics import WatchedServer, poll_servers, sample_servers
from tautools.servers.vllm.log import Shape, proposed_buckets, read_cold_shapes

_WIDE = 140  # columns of a terminal below which model, address and detail have lines of their own
_FIGURES = {
    "run": ("running", ".0f"),
    "wait": ("waiting", ".0f"),
    "KV": ("kv_usage", ".0%"),
    "prefix": ("prefix_hit_rate", ".0%"),
    "tok/s in": ("prompt_tokens_s", ".0f"),
    "out": ("output_tokens_s", ".0f"),
}
_COLOURS = {
    **dict.fromkeys(("starting", "verifying", "queued"), "cyan"),
    **dict.fromkeys(("stopping", "degraded", "unknown"), "yellow"),
    "ready": "green",
    "stopped": "bright_black",
}


@command("tautools server ls", "tautools server ls --json | jq '.[].base_url'", name="ls")
@usual_options
def list_servers(workspace: Path) -> None:
    """List servers with their state and load now.

    Rates of servers at work are measured over 0.3 s; `server top` watches for longer.
    """
    _show_statuses(sample_servers(workspace), workspace)
    for problem in Registry(workspace).scan()[1]:
        click.secho(str(problem), err=True, fg="yellow")


@command("tautools server top", "tautools server top --once --json", "tautools server top --every 10")
@click.option("--every", "every_s", type=click.FloatRange(0.2), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Print one table, with rates over --every seconds, and end.")
@usual_options
def top(every_s: float, once: bool, workspace: Path) -> None:
    """Watch servers until Ctrl-C: health and its age, requests, KV cache, prefix cache, tokens.

    With --json one line for each look. A server that does not answer keeps its last figures, with their age.
    """
    looks = _looks(workspace, every_s)
    if once:
        statuses = next(looks)
        seen = next(looks) if any(status.sample is not None for status in statuses) else statuses
        _show_statuses(seen, workspace)
    elif wants_json():
        for statuses in looks:
            emit(_status_rows(statuses, workspace), indent=None)
    else:
        console = table_console()
        with Live(console=console, auto_refresh=False) as live:
            for statuses in looks:
                live.update(server_table(statuses, workspace, width=console.width), refresh=True)


def _looks(workspace: Path, every_s: float) -> Iterator[Sequence[WatchedServer]]:
    """Yield what is seen of the servers, again and again."""
    statuses = poll_servers(workspace)
    while True:
        yield statuses
        time.sleep(every_s)
        statuses = poll_servers(workspace, statuses)


def _show_statuses(statuses: Sequence[WatchedServer], workspace: Path) -> None:
    def show() -> None:
        console = table_console()
        console.print(server_table(statuses, workspace, width=console.width))

    none = f"No server is registered in {workspace.resolve() / 'servers'}."
    emit(_status_rows(statuses, workspace), text=show if statuses else none)


def _status_rows(statuses: Sequence[WatchedServer], workspace: Path) -> list[dict[str, Any]]:
    return [
        pick(status.record, PUBLIC)
        | pick(status.snapshot, "state detail percent next_step")
        | pick(status, "health_age_s load")
        | {"age_s": round(status.snapshot.age, 1)}
        | {"watchdog": str(active_lease(status.record, workspace=workspace) or "")}
        for status in statuses
    ]


def server_table(statuses: Sequence[WatchedServer], workspace: Path, *, width: int) -> RenderableType:
    """Return the servers as a table: one line each where the terminal is wide, else words below the figures."""
    wide, rows, lines = width >= _WIDE, list[Any](), list[Any]()
    for status in statuses:
        record, snapshot = status.record, status.snapshot
        lease = str(active_lease(record, workspace=workspace) or "")
        colour, whole = _COLOURS.get(snapshot.state.value, "red"), str(snapshot)
        model = record.model + (" SIMULATED" if record.simulated else "")
        # How old the figures are, when they are not of this look.
        stale = f" (figures {age_of(status.health_age_s)} old)" if status.health_age_s else ""
        values = [(getattr(status.load, name), form) for name, form in _FIGURES.values()]
        figures = [age_of(snapshot.age), *("-" if each is None else format(each, form) for each, form in values)]
        if wide:
            state = Text.assemble((whole, colour), stale, f"\n{lease}" if lease else "")
            rows.append((record.name, state, *figures, model, record.base_url))
            continue
        rows.append((record.name, Text(snapshot.state.value, colour), *figures))
        detail = whole.removeprefix(snapshot.state.value).lstrip(": ")
        lines.append(Text(f"{record.name}: {', '.join(filter(None, (model, record.base_url)))}"))
        lines += [Padding(Text(line), (0, 0, 0, 2)) for line in (f"{detail}{stale}".strip(), lease) if line]
    words = ("name", "state", "model", "address")
    titles = (*words[:2], "age", *_FIGURES, *(words[2:] if wide else ()))
    table = plain_table(*titles, rows=rows, right=tuple(_FIGURES), fold=words)
    for column in table.columns[2:9]:
        column.no_wrap = True
    return Group(table, Text(), *lines) if lines else table


@command("tautools server logs qwen3-8b -f")
@click.argument("name")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="Lines of each file.")
@click.option("-f", "--follow", "keep_on", is_flag=True, help="Go on until the server ends or Ctrl-C.")
@workspace_option
def logs(name: str, lines: int, keep_on: bool, workspace: Path) -> None:
    """Print the end of a server's log.

    Output first and then errors; -f goes on with what is added.
    """
    server = open_server(name, workspace=workspace)
    require_fit(server.record, "logs")
    for line in server.follow(lines) if keep_on else server.tail(lines):
        click.echo(line)


@command("tautools server diagnose qwen3-8b", "tautools server diagnose logs/user_1.out errors/user_1.err")
@click.argument("sources", nargs=-1, required=True, metavar="NAME|LOG...")
@usual_options
def diagnose(sources: tuple[str, ...], workspace: Path) -> None:
    """Say why a server failed, and what helps.

    NAME is a registered server; LOG are log files of any vLLM or Slurm job, read in the given order. Of a Gaudi server
    it also counts the requests that met a shape which was not warmed up, and proposes wider buckets: each of them
    waited for a compilation, and many of them spoil a latency figure.
    """
    files = [Path(source) for source in sources if Path(source).is_file()]
    refuse_if(len(files) < len(sources) > 1, "give the name of one server, or log files that exist")
    server = None if files else open_server(sources[0], workspace=workspace)
    if server is not None:
        files = [log for log in backend_of(server.record).logs(server.record) if log.exists()]
    lines = [line.decode(errors="replace") for file in files for line in read_lines(file)]
    cause = diagnose_log(lines) if server is None else server.cause()
    cold = read_cold_shapes(lines)
    fields = ("batch_size", "query_tokens", "context_blocks")
    shapes = [
        {"phase": phase.lower()} | dict(zip(fields, sizes, strict=True)) | {"count": count}
        for (phase, *sizes), count in cold.items()
    ]
    value = asdict(cause) | {
        "cold_shapes": {"count": cold.total(), "shapes": shapes, "proposed": proposed_buckets(cold)}
    }
    emit(value, text=lambda: show_diagnosis(cause, cold, registered=server is not None))


def show_diagnosis(found: Diagnosis, cold: Counter[Shape] | None = None, *, registered: bool = True) -> None:
    """Print why a server failed and what helps, and the shapes that were not warmed up, where there are any."""
    click.echo(f"Cause:    {found.cause}")
    for line in (found.evidence, *found.also):
        if line and line != found.cause:
            click.secho(f"  log:    {line[:400]}", dim=True)
    click.echo(f"Fix:      {found.fix}")
    for name, value in found.changes.items():
        shown = "not set" if value is None else json.dumps(value)
        click.echo(f"Change:   {name} = {shown}   ({'server restart --fix' if registered else 'in the server file'})")
    if not cold:
        return
    click.echo(f"{cold.total()} requests met {len(cold)} shapes that were not warmed up, and waited.")
    for (phase, batch, query, blocks), count in cold.most_common(12):
        size = f"{query} tokens, " if phase == "PROMPT" else ""
        click.echo(f"  {count:4} x {phase.lower()}: batch {batch}, {size}{blocks} context blocks")
    click.echo("Buckets that hold them, for `env` of the server file; the warm-up takes longer by the graphs added:")
    for variable, value in proposed_buckets(cold).items():
        click.echo(f'  {variable}: "{value}"')


@command(
    "tautools server cards", "tautools server cards --json | jq '.[] | .index'", "tautools server cards --stop-stale"
)
@click.option("--stop-stale", "named", is_flag=True, help="Name your processes that hold a card and are no server's.")
@click.option("--confirm", "confirmed", multiple=True, metavar="PID@START",
              help="With --stop-stale: stop this one; as it was named.  [several times]")  # fmt: skip
@click.option("--assign", type=click.IntRange(1),
              help="Choose so many idle cards of this job; print the line that shows them.")  # fmt: skip
@usual_options
def cards(named: bool, confirmed: tuple[str, ...], assign: int | None, workspace: Path) -> None:
    """Show this node's cards: memory, and who holds them.

    Another user's process is never touched, and nothing of yours without its name and start time.
    """
    refuse_if(confirmed and not named, "--confirm goes with --stop-stale")
    if assign is not None:
        for name, value in assign_cards(assign).items():
            click.echo(json.dumps({name: value}) if wants_json() else f"export {name}={shlex.quote(value)}")
        return
    registry, node_cards = Registry(workspace), read_cards()
    if named:
        _stop_stale(confirmed, node_cards, registry)
    elif node_cards or wants_json():
        _show_cards(node_cards, registry)
    else:
        click.echo("No cards can be seen here: neither hl-smi nor nvidia-smi is on PATH, or they name none.")


def _stop_stale(confirmed: Sequence[str], node_cards: Sequence[Card], registry: Registry) -> None:
    """Stop the confirmed processes and wait for their cards; name all of them where none is confirmed."""

    def held(process: CardProcess) -> dict[int, str]:
        pid = process.pid
        return {each.index: f"card {each.index}" for each in node_cards if pid in [by.pid for by in each.holders]}

    if confirmed:
        freed: dict[int, str] = {}
        for process in stop_stale(confirmed, node_cards, registry):
            click.echo(f"process {process.pid}: stopped")
            freed |= held(process)
        if wait_released(freed, emit=click.echo):
            click.echo(f"idle again: {', '.join(freed.values())}")
    elif stale := stale_processes(node_cards, registry):
        for process in stale:
            click.echo(f"{', '.join(held(process).values())}: {process}")
        words = " ".join(f"--confirm {process.token}" for process in stale)
        click.echo(f"Nothing was stopped. To stop them: tautools server cards --stop-stale {words}")
    else:
        click.echo("No process of yours holds a card without being a server of this workspace.")


def _show_cards(node_cards: Sequence[Card], registry: Registry) -> None:
    promised, rows, lines = promised_cards(registry), list[Any](), list[Any]()
    stale = {process.pid for process in stale_processes(node_cards, registry)}
    for card in node_cards:
        server = promised.get(card.index)
        holders = [asdict(each) | {"age_s": round(each.age_s, 1), "stale": each.pid in stale} for each in card.holders]
        rows.append(asdict(card) | {"idle": card.idle, "server": server, "holders": holders})
        who = [f"{process}{' (stale)' if process.pid in stale else ''}" for process in card.holders]
        state = Text("idle", "green") if card.idle else Text("in use", "yellow")
        memory = f"{card.used_mib} / {card.total_mib}"
        lines.append((card.index, card.module, memory, state, "; ".join([f"server {server}", *who] if server else who)))
    titles = ("card", "module", "memory MiB", "state", "held by")
    emit(rows, text=lambda: print_wide(plain_table(*titles, rows=lines)))
    if stale and not wants_json():
        click.echo("Stale: yours, and no server of this workspace; see `tautools server cards --stop-stale`.")
