"""Personas, certificates and comparisons as a terminal shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.run.personas import Compared, Comparison, PersonaCertificate
    from tautools.stats import PairedEffect

__all__ = ["print_certificate", "print_comparison", "print_personas"]

_MARKS = {True: "[green]yes[/]", False: "[red]NO[/]", None: "[yellow]?[/]"}
_LARGE = 100
"""From here on figures are shown without decimals."""
_SIMULATED = " [bold red]SIMULATED[/]"


def print_personas(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print what can be chosen."""
    table = Table("persona", "intensities", "", box=None, pad_edge=False)
    for row in rows:
        levels = ", ".join(f"{level}*" if level == row["default"] else str(level) for level in row["levels"])
        own = "" if row["shipped"] else "[dim](your own)[/] "
        table.add_row(escape(str(row["name"])), escape(levels or "-"), f"{own}{escape(str(row['description']))}")
    console = Console(highlight=False)
    console.print(table)
    console.print("* when none is asked for; --persona NAME:INTENSITY asks for another", style="dim")


def print_certificate(found: PersonaCertificate) -> None:
    """Print what one persona's records prove."""
    console = Console(highlight=False)
    marked = _SIMULATED if found.simulated else ""
    place = f"{found.env} {found.strategy}{_kind(found.user_strategy)} {found.persona}"
    title = f"{escape(place)}: {found.conversations} conversations, setting {found.setting_id}"
    console.print(f"\n[bold]{title}[/]{marked}")  # a rule would cut the mark off
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in found.checks:
        table.add_row(_MARKS[check.passed], check.name, escape(check.detail))
    console.print(table)
    if found.labels is not None:
        console.print(_labels(found))
    if not found.wording:
        console.print("wording: not told, control was not run on the same tasks yet (n = 0)")
        return
    console.print(_wording(found.wording, found.distinct))
    console.print(
        f"distinct from control in {len(found.distinct)} of {len(found.wording)} measures "
        "(*: the interval, widened for their number, leaves 0 out)",
        style="dim",
    )


def _kind(user_strategy: str) -> str:
    return "" if user_strategy == "llm" else f" (customer by {user_strategy})"


def _labels(found: PersonaCertificate) -> str:
    labels = found.labels
    if labels is None:
        return ""
    marked = _SIMULATED if labels.simulated else ""
    share = labels.right / labels.conversations
    return (
        f"blind labels by {escape(labels.judge)}{marked}: {labels.right} of {labels.conversations} right ({share:.2f}, "
        f"exact 95 % interval {labels.low:.2f} to {labels.high:.2f}; chance {labels.chance:.2f}, p = {labels.p:.2g})"
    )


def _wording(effects: Mapping[str, PairedEffect], distinct: Sequence[str]) -> Table:
    table = Table("difference to control", box=None, pad_edge=False)
    for name in ("mean", "95 % interval", "d", "tasks"):
        table.add_column(name, justify="right")
    for name, each in effects.items():
        size = "" if each.d is None else f"{each.d:+.2f}"
        star = "*" if name in distinct else ""
        table.add_row(f"{name}{star}", f"{each.mean:+.2f}", _interval(each, 2), size, str(each.tasks))
    return table


def print_comparison(found: Comparison) -> None:
    """Print the personas of one setting beside control."""
    console = Console(highlight=False)
    marked = _SIMULATED if found.simulated else ""
    what = f"{found.env} {found.strategy} {found.agent}, customer {found.user}{_kind(found.user_strategy)}"
    console.print(f"\n[bold]{escape(what)}[/]{marked}")
    console.print(_scores(found))
    console.print(_differences(found.personas, ("turns", "prompt tokens", "output tokens", "facts told")))
    console.print(_differences(found.personas, ("apologies", "clarifications", "transfers")))
    console.print(_words(found.personas))
    if not found.has_control:
        console.print("[yellow]Control was not run: nothing to compare with. Run the same without --persona.[/]")
    console.print(
        "Differences are to control (whose own means are shown) on the same tasks and trials: means over tasks, below "
        "them 95 % intervals by drawing tasks. Wording: per message; capitals and words of the mood per 100 words.",
        style="dim",
    )


def _scores(found: Comparison) -> Table:
    most = max((len(each.pass_hat) for each in found.personas), default=0)
    ks = [1] if most < 2 else [1, most]
    table = _table("n", "user errors", *(f"pass^{k}" for k in ks), "pass^1 - control", "certificate")
    for each in found.personas:
        passes = [f"{each.pass_hat[k - 1]:.3f}" if len(each.pass_hat) >= k else "n = 0" for k in ks]
        change = "" if each.difference is None else _change(each.difference, 3)
        proof = "" if each.certificate is None else _MARKS[each.certificate.passed]
        table.add_row(escape(each.label), str(each.conversations), str(each.user_errors), *passes, change, proof)
    return table


def _differences(personas: Sequence[Compared], names: Sequence[str]) -> Table:
    """Return a table with control's means, and for each persona the difference to them."""
    table = _table(*names)
    for each in personas:
        table.add_row(escape(each.label), *(_figure(each.effects.get(name), each.means.get(name)) for name in names))
    return table


def _words(personas: Sequence[Compared]) -> Table:
    """Return the differences in wording; the last column is of the persona's own mood."""
    names = ("words per message", "questions per message", "exclamations per message", "capitals per 100 words")
    table = _table("words", "questions", "exclamations", "capitals", "words of its mood")
    for each in personas:
        if each.certificate is None:
            continue
        wording = each.certificate.wording
        own = next((name for name in wording if each.label.startswith(name.partition(" words")[0])), "")
        table.add_row(escape(each.label), *(_figure(wording.get(name), None) for name in (*names, own)))
    return table


def _table(*names: str) -> Table:
    table = Table("persona", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _figure(change: PairedEffect | None, mean: float | None) -> str:
    if change is not None:
        return _change(change, 0 if abs(change.mean) >= _LARGE else 2)
    return "" if mean is None else f"{mean:.{0 if abs(mean) >= _LARGE else 2}f}"


def _change(each: PairedEffect, digits: int) -> str:
    interval = _interval(each, digits)
    return f"{each.mean:+.{digits}f}\n[dim]{interval}[/]" if interval else f"{each.mean:+.{digits}f}"


def _interval(each: PairedEffect, digits: int) -> str:
    if each.low is None or each.high is None:
        return ""
    return f"{each.low:+.{digits}f} to {each.high:+.{digits}f}"
