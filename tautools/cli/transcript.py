"""Conversations as people read them in a terminal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tautools.cli.anatomy import print_anatomy
from tautools.errors import TautoolsError
from tautools.run.count import is_tool_output
from tautools.run.coverage import folder_judged
from tautools.run.failures import anatomy_of
from tautools.run.interleave import interleaved, is_customers
from tautools.run.ledger import read_conversation, read_ledger
from tautools.run.show import actions_of, beside, expected_of, missing_info, passed_and_scored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.records import Adopted, CommitRow, Conversation
    from tautools.run.folder import SettingFolder
    from tautools.run.show import Did

__all__ = ["Transcript", "print_conversation", "print_outcome", "print_overview", "print_rows"]

SHORT = 400
"""Characters of a tool's result or a system prompt that are shown unless `--full` is given."""

_SHORT_NAME = 30
"""Characters of a task's id that fit into a heading; telecom has ids of 250."""
_STYLES = {"system": "bright_black", "user": "cyan", "assistant": "green", "tool": "yellow"}
_MARKS = {
    "same": "[green]same[/]",
    "differs": "[red]differs[/]",
    "missing": "[red]missing[/]",
    "more": "[bright_black]more[/]",
}


def _console() -> Console:
    return Console(highlight=False)


class Transcript:
    """Prints messages one by one."""

    def __init__(self, *, full: bool = False) -> None:
        self._full = full
        self._console = _console()

    def head(self, folder: SettingFolder, task_id: str, trial: int) -> None:
        """Print what conversation this is."""
        setting = folder.setting
        marked = " [bold red]SIMULATED[/]" if setting.simulated else ""
        task = f"task {escape(task_id)}, trial {trial}"
        short = len(task_id) <= _SHORT_NAME
        of = f"{escape(setting.env)} {setting.strategy.value} {escape(setting.agent.model)}"
        self._console.rule(f"{of}  {task}{marked}" if short else of + marked)
        if not short:
            self._console.print(task, soft_wrap=True)

    def message(self, message: Mapping[str, Any]) -> None:
        """Print one message, an expert's under its name; tool results and the system prompt are shortened.

        What a customer with tools calls stands as `user` with an arrow, what came back as `user tool`.
        """
        role = "tool" if is_tool_output(message) else str(message["role"])
        text = str(message.get("content") or "")
        if role in {"tool", "system"} and not self._full:
            text = _shortened(text)
        style = _STYLES.get("user" if is_customers(message) else role, "")
        who = escape(_who(message, role))
        if text:
            self._console.print(f"[bold {style}]{who:>9}[/]  [{style}]{escape(text)}[/]")
        for call in message.get("tool_calls") or ():
            said = call["function"]
            self._console.print(f"[bold {style}]{who:>9}[/]  → {escape(said['name'])}({escape(said['arguments'])})")


def _who(message: Mapping[str, Any], role: str) -> str:
    if is_customers(message):
        return "user tool" if role == "tool" else "user"
    return str(message.get("expert") or role)


def print_conversation(folder: SettingFolder, row: CommitRow, *, full: bool = False) -> None:
    """Print a finished conversation, then what it came to."""
    transcript = Transcript(full=full)
    transcript.head(folder, row.task_id, row.trial)
    conversation = read_conversation(folder.path, row)
    for message in interleaved(conversation):
        transcript.message(message)
    _print_result(folder, row, conversation)


def print_outcome(folder: SettingFolder, task_id: str, trial: int) -> None:
    """Print what a conversation came to that was followed; it may have been lost instead."""
    row = read_ledger(folder.path).get((folder.id, task_id, trial))
    if row is None:
        _console().print("It ended without a result and is owed again.")
        return
    _print_result(folder, row, read_conversation(folder.path, row))


def print_overview(found: Sequence[tuple[SettingFolder, Sequence[CommitRow]]]) -> None:
    """Print one line for each setting."""
    taken = [_adopted(rows) for _, rows in found]
    heads = ("env", "strategy", "model", "finished", *(["adopted"] if any(taken) else []), "passed")
    table = Table(*heads, box=None, pad_edge=False)
    table.add_column("folder", overflow="fold")
    for (folder, rows), adopted in zip(found, taken, strict=True):
        passed, scored = passed_and_scored(rows)
        model = folder.setting.agent.model + (" SIMULATED" if folder.setting.simulated else "")
        rate = f"{passed}/{scored}" if scored else "n = 0"
        names = (folder.setting.env, folder.setting.strategy.value, model)
        table.add_row(
            *map(escape, names),
            str(len(rows)),
            *([str(adopted)] if any(taken) else []),
            rate,
            escape(_short(folder.path)),
        )
    _console().print(table)


def print_rows(folder: SettingFolder, rows: Sequence[CommitRow]) -> None:
    """Print one line for each finished conversation of a setting."""
    table = Table(box=None, pad_edge=False)
    table.add_column("task", overflow="fold")
    for name in ("trial", "outcome", "reward", "calls", "tools", "output tokens", "took"):
        table.add_column(name)
    for row in rows:
        table.add_row(
            escape(row.task_id),
            str(row.trial),
            row.outcome.value,
            _figure(row.reward),
            str(row.model_calls),
            str(row.tool_calls),
            "–" if row.adopted and not row.output_tokens else str(row.output_tokens),
            _took(row),
        )
    console = _console()
    passed, scored = passed_and_scored(rows)
    console.print(table)
    marked = "; SIMULATED" if folder.setting.simulated else ""
    console.print(f"{_finished(rows)} finished, {passed} of {scored} passed{marked}")
    if unjudged := folder_judged(folder, {row.task_id for row in rows}):
        console.print(unjudged)


def _print_result(folder: SettingFolder, row: CommitRow, conversation: Conversation) -> None:
    console = _console()
    console.rule()
    style = "green" if row.reward else "red"
    console.print(f"[bold {style}]{row.outcome.value}[/], reward {_figure(row.reward)}, {_took(row)}")
    if row.adopted:
        console.print(escape(_origin(row.adopted)))
    if conversation.error:
        console.print(escape(conversation.error))
    _print_causes(console, folder, row, conversation)
    _print_verdicts(console, folder, row, conversation)
    expected = expected_of(folder, row.task_id)
    if expected is None:
        console.print("The benchmark is not at hand; expected actions are not shown.")
        return
    table = Table("", title="expected beside actual", title_justify="left")
    for name in ("expected action", "actual action"):
        table.add_column(name, overflow="fold")
    for pair in beside(expected, actions_of(conversation, folder.setting)):
        table.add_row(_MARKS[pair.mark], _action(pair.expected), _action(pair.actual))
    console.print(table)


def _print_causes(console: Console, folder: SettingFolder, row: CommitRow, conversation: Conversation) -> None:
    """Print what the score was lost by: from a replay, or as the record has it when the benchmark is not at hand."""
    try:
        print_anatomy(anatomy_of(folder, row))
    except TautoolsError:
        missing = missing_info(conversation)
        if missing:
            console.print(f"[red]never told to the user:[/] {escape(', '.join(missing))}")
        for different in conversation.reward_info.get("different") or ():
            told = different if isinstance(different, str) else _plain(different)
            console.print(f"[red]not as it should be:[/] {escape(_shortened(told))}")


def _print_verdicts(console: Console, folder: SettingFolder, row: CommitRow, conversation: Conversation) -> None:
    """Print what the judge decided, or that nobody was asked."""
    for each in conversation.reward_info.get("nl_assertions") or ():
        style, word = ("green", "met") if each["met"] else ("red", "not met")
        console.print(f"[{style}]{word}:[/] {escape(each['assertion'])} – {escape(each['reason'])}")
    if unjudged := folder_judged(folder, [row.task_id]):
        console.print(unjudged)


def _action(did: Did | None) -> str:
    if did is None:
        return ""
    said = did.arguments
    inside = ", ".join(f"{name}={_plain(value)}" for name, value in said.items()) if isinstance(said, dict) else said
    who = "" if did.by == "assistant" else f"{did.by}: "
    return escape(f"{who}{did.name}({inside})")


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _shortened(text: str) -> str:
    return text if len(text) <= SHORT else f"{text[:SHORT]} … ({len(text)} characters)"


def _short(path: Path) -> str:
    """Return the path as seen from the current folder, when it lies in it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _finished(rows: Sequence[CommitRow]) -> str:
    adopted = _adopted(rows)
    return f"{len(rows)} ({adopted} adopted)" if adopted else str(len(rows))


def _adopted(rows: Sequence[CommitRow]) -> int:
    return sum(row.adopted is not None for row in rows)


def _origin(adopted: Adopted) -> str:
    times = "" if adopted.timed else "; it does not tell when"
    return f"adopted from {adopted.file}, row {adopted.row} ({adopted.format}, sha256 {adopted.sha256[:12]}…){times}"


def _took(row: CommitRow) -> str:
    return "not told" if row.duration_s is None else f"{row.duration_s:.1f} s"


def _figure(reward: float | None) -> str:
    return "none" if reward is None else f"{reward:g}"
