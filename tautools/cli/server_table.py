"""The table of servers: one line each where the terminal is wide, and words below the figures where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.cli.server_words import age_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console, RenderableType
    from rich.table import Table

    from tautools.server.watch import Watched

__all__ = ["server_table", "table_console"]

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


def server_table(seen: Sequence[Watched], workspace: Path, *, width: int) -> RenderableType:
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


def _narrow(seen: Sequence[Watched], workspace: Path) -> RenderableType:
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


def _coloured(each: Watched, text: str) -> str:
    from rich.markup import escape

    return f"[{_COLOURS.get(each.snapshot.state.value, 'red')}]{escape(text)}[/]"


def _said(each: Watched) -> str:
    """Return what the state says beyond its name."""
    told = str(each.snapshot).removeprefix(each.snapshot.state.value).lstrip(": ")
    return f"{told}{_stale(each)}".strip()


def _model(each: Watched) -> str:
    return each.record.model + (" SIMULATED" if each.record.simulated else "")


def _note(each: Watched, workspace: Path) -> str:
    from tautools.server.keeping import kept

    note = kept(each.record, workspace=workspace)
    return "" if note is None else str(note)


def _stale(each: Watched) -> str:
    """Say how old the figures are, when they are not of this look."""
    return f" (figures {age_of(each.health_age_s)} old)" if each.health_age_s else ""


def _figures(each: Watched) -> tuple[str, ...]:
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
