"""Anatomies of conversations as people read them in a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tautools.bench.anatomy import Fate
from tautools.bench.anatomy.fields import ABSENT, Wrong
from tautools.run.failures import count_causes, count_fields, count_missed
from tautools.run.show import passed_and_scored, rows_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from tautools.bench.anatomy import ActionFate, Anatomy, FieldDifference
    from tautools.run.failures import Failure
    from tautools.run.folder import SettingFolder

__all__ = ["print_anatomy", "print_failures"]

_SHORT = 60
"""Characters of a value that are shown."""


def print_failures(folder: SettingFolder, found: Sequence[Failure], *, most: int) -> None:
    """Print the failures of one setting: counted by cause, by action and by field, then one line each."""
    console = Console(highlight=False)
    setting = folder.setting
    _, scored = passed_and_scored(rows_of(folder))
    marked = " [bold red]SIMULATED[/]" if setting.simulated else ""
    console.rule(f"{escape(setting.env)} {setting.strategy.value} {escape(setting.agent.model)}{marked}", align="left")
    console.print(f"{len(found)} of {scored} scored conversations did not pass.")
    if not found:
        return
    _counts(console, ("lost by",), {(name,): n for name, n in count_causes(found).items()}, most)
    _counts(console, ("reference action", "it was"), count_missed(found), most)
    _counts(console, ("field of the database", "it was"), count_fields(found), most)
    table = Table(box=None, pad_edge=False)
    table.add_column("task", overflow="fold")
    for name in ("trial", "outcome", "lost by"):
        table.add_column(name)
    table.add_column("actions not made", overflow="fold")
    table.add_column("not said", overflow="fold")
    for each in found:
        row, anatomy = each.row, each.anatomy
        missed = ", ".join(dict.fromkeys(one.name for one in anatomy.missed))
        cells = (row.task_id, str(row.trial), row.outcome.value, ", ".join(each.causes), missed)
        table.add_row(*map(escape, cells), escape(", ".join(anatomy.unsaid)))
    console.print(table)


def _counts(console: Console, names: Sequence[str], found: Counter[Any] | dict[Any, int], most: int) -> None:
    if not found:
        return
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    table = Table(*names, box=None, pad_edge=False)
    table.add_column("conversations", justify="right")
    for key, number in ordered[:most]:
        table.add_row(*map(escape, key), str(number))
    console.print(table)
    if len(ordered) > most:
        console.print(f"[bright_black]and {len(ordered) - most} more; --most {len(ordered)} shows all[/]")
    console.print()


def print_anatomy(anatomy: Anatomy) -> None:
    """Print why one conversation got its reward; nothing where nothing is wrong."""
    console = Console(highlight=False)
    if anatomy.unsaid:
        console.print(f"[red]never told to the user:[/] {escape(', '.join(anatomy.unsaid))}")
    for each in anatomy.unmet:
        console.print(f"[red]does not hold:[/] {escape(each)}")
    for action in anatomy.unmade:
        console.print(f"[red]required and not made:[/] {escape(action)}")
    if anatomy.fields:
        scored = "[red]the database is not as it should be:[/]"
        console.print(scored if anatomy.scores_database else "not as the reference leaves it (not scored as such):")
    for field in anatomy.fields:
        console.print(f"  {_field(field)}")
    for one in anatomy.missed:
        console.print(f"[red]{one.fate.value}:[/] {escape(_fate(one))}")
    for call in anatomy.unasked:
        console.print(f"[red]changed the database, not asked for:[/] {escape(_cut(call, 3 * _SHORT))}")


def _field(each: FieldDifference) -> str:
    before, expected, actual = (escape(_value(value)) for value in (each.before, each.expected, each.actual))
    place = escape(f"{each.table}/{each.key} {each.field}".rstrip())
    is_now = f"is {actual}" if each.wrong is Wrong.NOT_CHANGED else f"is {actual}, was {before}"
    return f"[bold]{place}[/]: {each.wrong.value}; expected {expected}, {is_now}"


def _fate(one: ActionFate) -> str:
    who = "" if one.by == "assistant" else f" (by the {one.by})"
    if one.fate is Fate.OTHER_ARGUMENTS:
        pairs = (f"{name}={_value(got)} in place of {_value(wanted)}" for name, (wanted, got) in one.differs.items())
        answer = f"; the tool said: {_cut(one.answer, _SHORT)}" if one.answer else ""
        return f"{one.name}{who} {', '.join(pairs)}{answer}"
    given = ", ".join(f"{name}={_value(value)}" for name, value in one.expected.items())
    answer = f": {_cut(one.answer, _SHORT)}" if one.answer else ""
    return f"{one.name}({given}){who}{answer}"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return ABSENT if value == ABSENT else _cut(json.dumps(value, ensure_ascii=False), _SHORT)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
