"""`tautools show`: what has been run, and one conversation in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tautools.cli.analysis import print_analysis
from tautools.cli.options import json_option, workspace_option
from tautools.cli.output import guard
from tautools.errors import ParamsError, TautoolsError
from tautools.run.failures import analysis_of
from tautools.run.judging import folder_judging_note
from tautools.run.ledger import is_tool_output, read_conversation, read_ledger
from tautools.run.show import align_actions, expected_of, made_calls_of, passed_and_scored
from tautools.run.trajectory import interleaved, made_by_user

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.records import CommitRow, Conversation, ImportedFrom
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
        style = _STYLES.get("user" if made_by_user(message) else role, "")
        who = escape(_who(message, role))
        if text:
            self._console.print(f"[bold {style}]{who:>9}[/]  [{style}]{escape(text)}[/]")
        for call in message.get("tool_calls") or ():
            said = call["function"]
            self._console.print(f"[bold {style}]{who:>9}[/]  → {escape(said['name'])}({escape(said['arguments'])})")


def _who(message: Mapping[str, Any], role: str) -> str:
    if made_by_user(message):
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
        _console().print("It ended without a result and is pending again.")
        return
    _print_result(folder, row, read_conversation(folder.path, row))


def print_overview(found: Sequence[tuple[SettingFolder, Sequence[CommitRow]]]) -> None:
    """Print one line for each setting."""
    taken = [_imported_rows(rows) for _, rows in found]
    heads = ("env", "strategy", "model", "finished", *(["imported"] if any(taken) else []), "passed")
    table = Table(*heads, box=None, pad_edge=False)
    table.add_column("folder", overflow="fold")
    for (folder, rows), imported in zip(found, taken, strict=True):
        passed, scored = passed_and_scored(rows)
        model = folder.setting.agent.model + (" SIMULATED" if folder.setting.simulated else "")
        rate = f"{passed}/{scored}" if scored else "n = 0"
        names = (folder.setting.env, folder.setting.strategy.value, model)
        table.add_row(
            *map(escape, names),
            str(len(rows)),
            *([str(imported)] if any(taken) else []),
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
    if row.imported:
        console.print(escape(_origin(row.imported)))
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
    for pair in align_actions(expected, made_calls_of(conversation, folder.setting)):
        table.add_row(_MARKS[pair.mark], _action(pair.expected), _action(pair.actual))
    console.print(table)


def _print_causes(console: Console, folder: SettingFolder, row: CommitRow, conversation: Conversation) -> None:
    """Print what the score was lost by: from a replay, or as the record has it when the benchmark is not at hand."""
    try:
        print_analysis(analysis_of(folder, row))
    except TautoolsError:
        if missing := conversation.reward_info.get("missing_info"):
            console.print(f"[red]never told to the user:[/] {escape(', '.join(map(str, missing)))}")
        for different in conversation.reward_info.get("different") or ():
            told = different if isinstance(different, str) else _plain(different)
            console.print(f"[red]not as it should be:[/] {escape(_shortened(told))}")


def _print_verdicts(console: Console, folder: SettingFolder, row: CommitRow, conversation: Conversation) -> None:
    """Print what the judge decided, or that nobody was asked."""
    for each in conversation.reward_info.get("nl_assertions") or ():
        style, word = ("green", "met") if each["met"] else ("red", "not met")
        console.print(f"[{style}]{word}:[/] {escape(each['assertion'])} – {escape(each['reason'])}")
    if awaiting_judge := folder_judging_note(folder, [row.task_id]):
        console.print(awaiting_judge)


def _action(did: MadeCall | None) -> str:
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
    imported = _imported_rows(rows)
    return f"{len(rows)} ({imported} imported)" if imported else str(len(rows))


def _imported_rows(rows: Sequence[CommitRow]) -> int:
    return sum(row.imported is not None for row in rows)


def _origin(imported: ImportedFrom) -> str:
    times = "" if imported.timed else "; it does not tell when"
    return (
        f"imported from {imported.file}, row {imported.row} ({imported.format}, sha256 {imported.sha256[:12]}…){times}"
    )


def _took(row: CommitRow) -> str:
    return "not told" if row.duration_s is None else f"{row.duration_s:.1f} s"


def _figure(reward: float | None) -> str:
    return "none" if reward is None else f"{reward:g}"


_SHOW_EPILOG = """\b
Examples:
  tautools show                                        what has been run
  tautools show --env retail --strategy fc --model 4B  every conversation of a setting
  tautools show --env retail --model 4B --task 12      one conversation, expected beside actual actions
  tautools show results/retail/fc/4B --task 12 --trial 3
  tautools show --follow                               watch the one that has run longest
"""


@click.command("show", epilog=_SHOW_EPILOG)
@click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--env", help="Only this env.")
@click.option("--strategy", help="Only this strategy.")
@click.option("--model", help="Only this agent model: its name, its folder's name or a setting id.")
@click.option("--task", "task_id", help="The conversation of this task.")
@click.option("--trial", type=click.IntRange(0), help="Its trial, from 0.  [default: the first that is finished]")
@click.option("--follow", is_flag=True, help="Watch a conversation that is running, until it ends.")
@click.option("--full", is_flag=True, help="Do not shorten prompts and tool results.")
@workspace_option
@json_option
@guard
def show_command(  # noqa: PLR0913 - one argument for each option
    folder: Path | None,
    workspace: Path,
    task_id: str | None,
    trial: int | None,
    *,
    follow: bool,
    full: bool,
    as_json: bool,
    **wanted: str | None,
) -> None:
    """List what has been run, or print one conversation."""
    from tautools.run.show import choose_folders, folder_at, only_folder

    folders = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    if follow:
        _follow(folders, task_id, trial, full=full, as_json=as_json)
    elif task_id is not None:
        _show_conversation(only_folder(folders), task_id, trial, full=full, as_json=as_json)
    elif len(folders) == 1 and (folder or any(wanted.values())):
        _show_conversations(folders[0], as_json=as_json)
    else:
        _show_overview(folders, as_json=as_json)


def _show_overview(folders: list[SettingFolder], *, as_json: bool) -> None:
    from tautools.run.ledger import rows_of
    from tautools.run.show import passed_and_scored

    found = [(each, rows_of(each)) for each in folders]
    if as_json:
        told: list[dict[str, Any]] = []
        for each, rows in found:
            passed, scored = passed_and_scored(rows)
            imported = sum(row.imported is not None for row in rows)
            counts = {"finished": len(rows), "passed": passed, "scored": scored, "imported": imported}
            told.append(
                {"folder": str(each.path), "id": each.id, **counts, "setting": each.setting.model_dump(mode="json")}
            )
        click.echo(json.dumps(told, indent=1))
        return
    if not found:
        click.echo("Nothing has been run here.")
        return

    print_overview(found)


def _show_conversations(folder: SettingFolder, *, as_json: bool) -> None:
    from tautools.run.ledger import rows_of

    rows = rows_of(folder)
    if as_json:
        click.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=1))
        return

    print_rows(folder, rows)


def _show_conversation(folder: SettingFolder, task_id: str, trial: int | None, *, full: bool, as_json: bool) -> None:
    from tautools.run.show import choose_row, conversation_dict

    row = choose_row(folder, task_id, trial)
    if as_json:
        click.echo(json.dumps(conversation_dict(folder, row), indent=1, ensure_ascii=False))
        return

    print_conversation(folder, row, full=full)


def _follow(folders: list[SettingFolder], task_id: str | None, trial: int | None, *, full: bool, as_json: bool) -> None:
    from tautools.run.show import follow, now_running

    found = now_running(folders, task_id=task_id, trial=trial)
    if not found:
        raise ParamsError(
            "No such conversation is running.",
            next_step="`tautools show` lists what is finished; start a run with `tautools run`.",
        )

    folder, which = found[0]
    transcript = Transcript(full=full)
    if not as_json:
        transcript.head(folder, which.task_id, which.trial)
    for message in follow(folder, which):
        if as_json:
            click.echo(json.dumps(message, ensure_ascii=False))
        else:
            transcript.message(message)
    if not as_json:
        print_outcome(folder, which.task_id, which.trial)
