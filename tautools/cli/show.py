"""`tautools show`: what has been run, and one conversation in full."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tautools.cli.analysis import print_analysis
from tautools.cli.commands import VerbCommand
from tautools.cli.options import ChosenResults, json_option, results_options
from tautools.cli.output import NOTHING_RUN, emit, plain_table, setting_title, table_console
from tautools.errors import ParamsError, TautoolsError
from tautools.run.failures import analysis_of
from tautools.run.judging import folder_judging_note
from tautools.run.ledger import is_tool_output, read_ledger
from tautools.run.show import (
    align_actions,
    choose_row,
    conversation_dict,
    expected_of,
    follow,
    made_calls_of,
    now_running,
    only_folder,
    passed_and_scored,
)
from tautools.run.trajectory import interleaved, made_by_user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.records import CommitRow, Conversation
    from tautools.run.folder import SettingFolder
    from tautools.run.show import MadeCall


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


_console = partial(Console, highlight=False)


class Transcript:
    """Prints messages one by one."""

    def __init__(self, *, full: bool = False) -> None:
        self._full = full
        self._console = _console()

    def head(self, folder: SettingFolder, task_id: str, trial: int) -> None:
        """Print what conversation this is."""
        task = f"task {escape(task_id)}, trial {trial}"
        short = len(task_id) <= _SHORT_NAME
        self._console.rule(setting_title(folder.setting) + (f"  {task}" if short else ""))
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
        style = _STYLES.get("user" if made_by_user(message) else role, "")
        who = "user" if made_by_user(message) else str(message.get("expert") or role)
        who = "user tool" if made_by_user(message) and role == "tool" else escape(who)
        if text:
            self._console.print(f"[bold {style}]{who:>9}[/]  [{style}]{escape(text)}[/]")
        for call in message.get("tool_calls") or ():
            made = f"{call['function']['name']}({call['function']['arguments']})"
            self._console.print(f"[bold {style}]{who:>9}[/]  → {escape(made)}")


def print_conversation(folder: SettingFolder, row: CommitRow, *, full: bool = False) -> None:
    """Print a finished conversation, then what it came to."""
    transcript = Transcript(full=full)
    transcript.head(folder, row.task_id, row.trial)
    conversation = folder.conversation(row)
    for message in interleaved(conversation):
        transcript.message(message)
    _print_result(folder, row, conversation)


def print_outcome(folder: SettingFolder, task_id: str, trial: int) -> None:
    """Print what a conversation came to that was followed; it may have been lost instead."""
    row = read_ledger(folder.path).get((folder.id, task_id, trial))
    if row is None:
        _console().print("It ended without a result and is pending again.")
        return
    _print_result(folder, row, folder.conversation(row))


def print_overview(found: Sequence[tuple[SettingFolder, Sequence[CommitRow]]]) -> None:
    """Print one line for each setting."""
    any_imported = any(_imported_rows(rows) for _, rows in found)
    table = plain_table("env", "strategy", "model", "finished", *(["imported"] * any_imported), "passed", "folder")
    for folder, rows in found:
        setting = folder.setting
        model = escape(setting.agent.model) + (" SIMULATED" if setting.simulated else "")
        counts = (str(len(rows)), *([str(_imported_rows(rows))] * any_imported), _rate(rows))
        table.add_row(escape(setting.env), setting.strategy.value, model, *counts, escape(_short(folder.path)))
    console = table_console()
    if Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
        console.print(table)
        return
    for folder, rows in found:  # too narrow for the table, which would break the folders' names
        console.print(f"{setting_title(folder.setting)}: {_finished(rows)} finished, {_rate(rows)} passed")
        console.print(Text(f"  {_short(folder.path)}"), soft_wrap=True)


def _rate(rows: Sequence[CommitRow]) -> str:
    passed, scored = passed_and_scored(rows)
    return f"{passed}/{scored}" if scored else "n = 0"


def print_rows(folder: SettingFolder, rows: Sequence[CommitRow]) -> None:
    """Print one line for each finished conversation of a setting."""
    figures = ("trial", "outcome", "reward", "calls", "tools", "output tokens", "took")
    table = plain_table("task", *figures, fold=["task"])
    for row in rows:
        table.add_row(
            escape(row.task_id),
            str(row.trial),
            row.outcome.value,
            _figure(row.reward),
            str(row.model_calls),
            str(row.tool_calls),
            "–" if row.imported and not row.output_tokens else str(row.output_tokens),
            _took(row),
        )
    console = _console()
    passed, scored = passed_and_scored(rows)
    console.print(table)
    marked = "; SIMULATED" if folder.setting.simulated else ""
    console.print(f"{_finished(rows)} finished, {passed} of {scored} passed{marked}")
    if awaiting_judge := folder_judging_note(folder, {row.task_id for row in rows}):
        console.print(awaiting_judge)


def _print_result(folder: SettingFolder, row: CommitRow, conversation: Conversation) -> None:
    console = _console()
    console.rule()
    style = "green" if row.reward else "red"
    console.print(f"[bold {style}]{row.outcome.value}[/], reward {_figure(row.reward)}, {_took(row)}")
    if (origin := row.imported) is not None:
        source = f"imported from {origin.file}, row {origin.row} ({origin.format}, sha256 {origin.sha256[:12]}…)"
        console.print(escape(source if origin.timed else f"{source}; it does not say when"))
    if conversation.error:
        console.print(escape(conversation.error))
    _print_causes(console, folder, row, conversation)
    for verdict in conversation.reward_info.get("nl_assertions") or ():
        style, word = ("green", "met") if verdict["met"] else ("red", "not met")
        console.print(f"[{style}]{word}:[/] {escape(verdict['assertion'])} – {escape(verdict['reason'])}")
    if awaiting_judge := folder_judging_note(folder, [row.task_id]):
        console.print(awaiting_judge)
    expected = expected_of(folder, row.task_id)
    if expected is None:
        console.print("The benchmark is not installed here; expected actions are not shown.")
        return
    table = Table("", title="expected and actual actions", title_justify="left")
    for name in ("expected action", "actual action"):
        table.add_column(name, overflow="fold")
    for pair in align_actions(expected, made_calls_of(conversation, folder.setting)):
        table.add_row(_MARKS[pair.mark], _action(pair.expected), _action(pair.actual))
    console.print(table)


def _print_causes(console: Console, folder: SettingFolder, row: CommitRow, conversation: Conversation) -> None:
    """Print what the score was lost by: from a replay, or as the record has it when the benchmark is not here."""
    try:
        print_analysis(analysis_of(folder, row))
    except TautoolsError:
        if missing := conversation.reward_info.get("missing_info"):
            console.print(f"[red]never said to the user:[/] {escape(', '.join(map(str, missing)))}")
        for different in conversation.reward_info.get("different") or ():
            text = different if isinstance(different, str) else _plain(different)
            console.print(f"[red]not as it should be:[/] {escape(_shortened(text))}")


def _action(call: MadeCall | None) -> str:
    if call is None:
        return ""
    given = call.arguments
    inside = ", ".join(f"{name}={_plain(value)}" for name, value in given.items()) if isinstance(given, dict) else given
    who = "" if call.by == "assistant" else f"{call.by}: "
    return escape(f"{who}{call.name}({inside})")


def _plain(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _shortened(text: str) -> str:
    return text if len(text) <= SHORT else f"{text[:SHORT]} … ({len(text)} characters)"


def _short(path: Path) -> str:
    """Return the path as seen from the current folder, when it lies in it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _finished(rows: Sequence[CommitRow]) -> str:
    imported = _imported_rows(rows)
    return f"{len(rows)} ({imported} imported)" if imported else str(len(rows))


def _imported_rows(rows: Sequence[CommitRow]) -> int:
    return sum(row.imported is not None for row in rows)


def _took(row: CommitRow) -> str:
    return "not recorded" if row.duration_s is None else f"{row.duration_s:.1f} s"


def _figure(reward: float | None) -> str:
    return "none" if reward is None else f"{reward:g}"


_SHOW_EPILOG = """\b
Examples:
  tautools show                                        what has been run
  tautools show --env retail --strategy fc --model 4B  every conversation of a setting
  tautools show --env retail --model 4B --task 12      one conversation, expected and actual actions
  tautools show results/retail/fc/4B --task 12 --trial 3
  tautools show --follow                               watch the one that has run longest
"""


@click.command("show", cls=VerbCommand, epilog=_SHOW_EPILOG)
@click.option("--task", "task_id", help="The conversation of this task.")
@click.option("--trial", type=click.IntRange(0), help="Its trial, from 0.  [default: the first that is finished]")
@click.option("--follow", is_flag=True, help="Watch a conversation that is running, until it ends.")
@click.option("--full", is_flag=True, help="Do not shorten prompts and tool results.")
@json_option
@results_options
def show_command(
    chosen: ChosenResults, task_id: str | None, trial: int | None, *, follow: bool, full: bool, as_json: bool
) -> None:
    """List what has been run, or print one conversation."""
    folders = chosen.folders
    if follow:
        _follow(folders, task_id, trial, full=full, as_json=as_json)
    elif task_id is not None:
        folder = only_folder(folders)
        row = choose_row(folder, task_id, trial)
        value = conversation_dict(folder, row) if as_json else None
        emit(value, as_json=as_json, text=lambda: print_conversation(folder, row, full=full))
    elif len(folders) == 1 and chosen.narrowed:
        rows = folders[0].rows()
        emit(rows, as_json=as_json, text=lambda: print_rows(folders[0], rows))
    else:
        results = [(folder, folder.rows()) for folder in folders]
        values = [_overview_dict(*each) for each in results]
        emit(values, as_json=as_json, text=lambda: print_overview(results) if results else NOTHING_RUN)


def _overview_dict(folder: SettingFolder, rows: Sequence[CommitRow]) -> dict[str, Any]:
    passed, scored = passed_and_scored(rows)
    counts = {"finished": len(rows), "passed": passed, "scored": scored, "imported": _imported_rows(rows)}
    return {"folder": folder.path, "id": folder.id, **counts, "setting": folder.setting}


def _follow(folders: list[SettingFolder], task_id: str | None, trial: int | None, *, full: bool, as_json: bool) -> None:
    running = now_running(folders, task_id=task_id, trial=trial)
    if not running:
        raise ParamsError(
            "No such conversation is running.",
            next_step="`tautools show` lists what is finished; start a run with `tautools run`.",
        )
    folder, which = running[0]
    transcript = Transcript(full=full)
    if not as_json:
        transcript.head(folder, which.task_id, which.trial)
    for message in follow(folder, which):
        emit(message, as_json=as_json, indent=None, text=partial(transcript.message, message))
    if not as_json:
        print_outcome(folder, which.task_id, which.trial)
