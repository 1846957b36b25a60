"""What `tautools fidelity` shows: how far it is, the table, deviations by kind, and where the two sides part."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.progress import Progress, TaskID

    from tautools.bench.fidelity import Row

__all__ = ["Teller", "progress", "show"]

_SHOWN = 5
"""Differences that are printed in full."""


class Teller:
    """Told of each part that is compared."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar, self._task = bar, task
        self._before = 0

    def __call__(self, done: int, _of: int) -> None:
        """Show how much of the row under way is done."""
        self._bar.update(self._task, completed=self._before + done)

    def finished(self, row: Row) -> None:
        """Show a row that is done; a terminal has the bar, everything else a line."""
        self._before += row.conversations
        self._bar.update(self._task, completed=self._before, description=row.name)
        if not self._bar.console.is_terminal:
            self._bar.console.print(f"{row.name}: {_result(row)}", highlight=False)


@contextlib.contextmanager
def progress(total: int, *, quiet: bool) -> Iterator[Teller]:
    """Show a bar over all conversations while the block runs."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, quiet=quiet)
    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    bar = Progress(*columns, console=console, disable=quiet or not console.is_terminal)
    with bar:
        yield Teller(bar, bar.add_task("comparing", total=total))


def show(rows: Sequence[Row], verdicts: Mapping[str, str], *, version: str, as_json: bool) -> None:
    """Print what was found.

    Parameters
    ----------
    rows : sequence of Row
        In order.
    verdicts : mapping of str to str
        By row, how it stands to the hashes that were kept: `same`, `differs`, or not at all.
    version : str
        Of the original's files.
    as_json : bool
        For a program to read.
    """
    if as_json:
        told = [_told(row, verdicts.get(row.name, "")) for row in rows]
        click.echo(json.dumps({"version": version, "rows": told}, indent=1))
        return
    _print_table(rows, verdicts)
    _print_deviations(rows)
    _print_differences(rows)


def _told(row: Row, verdict: str) -> dict[str, Any]:
    return {
        "env": row.env,
        "split": row.split,
        "strategy": row.approach.strategy.value,
        "user_strategy": row.approach.user_strategy.value,
        "conversations": row.conversations,
        "requests_compared": row.requests,
        "ends_compared": row.rewards,
        "differences": row.differences,
        "deviations": {kind.value: count for kind, count in sorted(row.deviations.items())},
        "oddities": dict(sorted(row.oddities.items())),
        "sha256": row.kept.sha256,
        "kept_hash": verdict or None,
    }


def _print_table(rows: Sequence[Row], verdicts: Mapping[str, str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("env/split", "agent", "user"):
        table.add_column(title, no_wrap=True)
    for title in ("talks", "requests", "rewards"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("hash", "result"):
        table.add_column(title, no_wrap=True)
    for row in rows:
        names = (f"{row.env}/{row.split}", row.approach.strategy.value, row.approach.user_strategy.value)
        counts = map(str, (row.conversations, row.requests, row.rewards))
        colour = "red" if row.differences else "green"
        table.add_row(*names, *counts, verdicts.get(row.name) or "-", f"[{colour}]{_result(row)}[/]")
    totals = (
        sum(row.conversations for row in rows),
        sum(row.requests for row in rows),
        sum(row.rewards for row in rows),
    )
    table.add_row("all", "", "", *map(str, totals))
    Console(highlight=False).print(table)


def _result(row: Row) -> str:
    return f"{len(row.differences)} differ" if row.differences else "equal"


def _print_deviations(rows: Sequence[Row]) -> None:
    from tautools.bench.fidelity import REASONS

    counted = sum((row.deviations for row in rows), Counter())
    heard = sum((row.oddities for row in rows), Counter())
    click.echo(f"\nOdd answers that both sides heard: {heard.total()} of {len(heard)} kinds.")
    click.echo("Intended deviations (docs/fidelity.md), and in how many conversations:")
    for kind, count in counted.most_common():
        click.echo(f"  {count:>6}  {kind.value}")
        click.echo(click.wrap_text(REASONS[kind], width=min(100, _width()), initial_indent=" " * 10,
                                   subsequent_indent=" " * 10))  # fmt: skip


def _print_differences(rows: Sequence[Row]) -> None:
    found = [each for row in rows for each in row.differences]
    for each in found[:_SHOWN]:
        click.echo(f"\n{click.style('DIFFERENT', fg='red', bold=True)} {each}")
    if len(found) > _SHOWN:
        click.echo(f"\nand {len(found) - _SHOWN} more; --json lists all.")


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns
