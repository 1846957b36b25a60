"""`tautools show`: what has been run, and one conversation in full."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tautools.bench.analysis.failures import ABSENT, ActionMatch, FailureAnalysis, FieldDifference, FieldError
from tautools.cli.commands import command, wants_json
from tautools.cli.options import ChosenResults, results_options
from tautools.cli.output import NOTHING_RUN, emit, plain_table, setting_title, table_console
from tautools.errors import ParamsError, TautoolsError
from tautools.records import CommitRow, Conversation
from tautools.run.answers import flag_lines, flagged_answers
from tautools.run.folder import SettingFolder, choose_row, only_folder
from tautools.run.judging import folder_judging_note
from tautools.run.ledger import count_user_errors, is_tool_output, passed_and_scored, read_calls, read_ledger
from tautools.run.replays import analysis_of
from tautools.run.trajectory import (
    MadeCall,
    align_actions,
    conversation_dict,
    expected_of,
    interleaved,
    made_by_user,
    made_calls_of,
)
from tautools.run.worker import follow, now_running

_SHORT = 400
"""Characters of a tool's result or a system prompt that are shown unless `--full` is given."""
_LONG = 20_000
"""The same of any other text."""
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Controls of a terminal, and of the direction of writing."""
_SHORT_VALUE = 60
"""Characters of a value in the causes of a failure."""
_SHORT_NAME = 30
"""Characters of a task's id that fit into a heading; telecom has ids of 250."""
_STYLES = {"system": "bright_black", "user": "cyan", "assistant": "green", "tool": "yellow"}
_OF_FINISHED = {"imported": "imported", "user_errors": "user_error"}
_MARKS = {"same": "green", "differs": "red", "missing": "red", "more": "bright_black"}


def show_results(
    folders: Sequence[SettingFolder],
    task_id: str | None = None,
    trial: int | None = None,
    *,
    narrowed: bool,
    full: bool = False,
) -> None:
    """Print the conversation of a task, else those of the only setting, else a line for each setting that fits.

    The only setting is told in a line too, unless the settings were `narrowed` down to it. `trial` is the first
    finished one by default; `full` does not shorten prompts and tool results.
    """
    if task_id is not None:
        folder = only_folder(folders)
        row = choose_row(folder, task_id, trial)
        value = conversation_dict(folder, row) if wants_json() else None
        emit(value, text=lambda: _print_conversation(folder, row, full=full))
    elif len(folders) == 1 and narrowed:
        rows = folders[0].rows()
        emit(rows, text=lambda: _print_rows(folders[0], rows))
    else:
        settings = [
            {"folder": each.path, "id": each.id, **_counts(each.rows()), "setting": each.setting} for each in folders
        ]
        emit(settings, text=lambda: _print_overview(settings) if settings else NOTHING_RUN)


def _counts(rows: Sequence[CommitRow]) -> dict[str, int]:
    passed, scored = passed_and_scored(rows)
    imported = sum(row.imported is not None for row in rows)
    user_errors = count_user_errors(rows)
    return {
        "finished": len(rows), "passed": passed, "scored": scored, "imported": imported, "user_errors": user_errors
    }  # fmt: skip


def _finished(counts: Mapping[str, Any]) -> str:
    parts = [f"{counts[name]} {word}" for name, word in _OF_FINISHED.items() if counts[name]]
    return f"{counts['finished']} ({', '.join(parts)})" if parts else str(counts["finished"])


def _print_overview(settings: Sequence[Mapping[str, Any]]) -> None:
    """Print one line for each setting; where the terminal is too narrow two, which break no folder's name."""
    console = table_console()
    here = Path.cwd()
    lines = []
    for each in settings:
        setting, path = each["setting"], each["folder"]
        model = setting.agent.model + (" SIMULATED" if setting.simulated else "")
        rate = f"{each['passed']}/{each['scored']}" if each["scored"] else "n = 0"
        short = path.relative_to(here) if path.is_relative_to(here) else path
        lines.append((setting.env, setting.strategy.value, model, _finished(each), rate, short))
    table = plain_table("env", "strategy", "model", "finished", "passed", "folder", rows=lines)
    if Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
        console.print(table)
        return
    for env, strategy, model, finished, rate, short in lines:
        console.print(f"{env} {strategy} {model}: {finished} finished, {rate} passed", markup=False)
        console.print(f"  {short}", markup=False, soft_wrap=True)


def _print_rows(folder: SettingFolder, rows: Sequence[CommitRow]) -> None:
    """Print one line for each finished conversation of a setting."""
    lines = []
    for row in rows:
        tokens = "–" if row.imported and not row.output_tokens else row.output_tokens
        figures = (_figure(row.reward), row.model_calls, row.tool_calls, tokens, _took(row))
        lines.append((row.task_id, row.trial, row.outcome.value, *figures))
    titles = ("task", "trial", "outcome", "reward", "calls", "tools", "output tokens", "took")
    console = Console(highlight=False)
    console.print(plain_table(*titles, rows=lines, fold=["task"]))
    counts = _counts(rows)
    marked = "; SIMULATED" if folder.setting.simulated else ""
    console.print(f"{_finished(counts)} finished, {counts['passed']} of {counts['scored']} passed{marked}")
    if awaiting_judge := folder_judging_note(folder, {row.task_id for row in rows}):
        console.print(awaiting_judge)
    for line in flag_lines(flagged_answers(read_calls(folder.path))):
        console.print(line, markup=False)


def _print_conversation(folder: SettingFolder, row: CommitRow, *, full: bool = False) -> None:
    """Print a finished conversation, then what it came to."""
    _print_head(folder, row.task_id, row.trial)
    conversation = folder.conversation(row)
    for message in interleaved(conversation):
        _print_message(message, full=full)
    _print_result(folder, row, conversation)


def _print_head(folder: SettingFolder, task_id: str, trial: int) -> None:
    """Print what conversation this is; a long id stands below the heading, where nothing cuts it."""
    console = Console(highlight=False)
    task, title = f"task {escape(task_id)}, trial {trial}", setting_title(folder.setting)
    short = len(task_id) <= _SHORT_NAME
    console.rule(f"{title}  {task}" if short else title)
    if not short:
        console.print(task, soft_wrap=True)


def _print_message(message: Mapping[str, Any], *, full: bool) -> None:
    """Print one message, an expert's under its name; tool results and the system prompt are shortened.

    What a customer with tools calls stands as `user` with an arrow, what came back as `user tool`.
    """
    by_user = made_by_user(message)
    role = "tool" if is_tool_output(message) else str(message["role"])
    text = str(message.get("content") or "")
    if role in {"tool", "system"} and not full and len(text) > _SHORT:
        text = f"{text[:_SHORT]} … ({len(text)} characters)"
    style = _STYLES.get("user" if by_user else role, "")
    who = str(message.get("expert") or role)
    if by_user:
        who = "user tool" if role == "tool" else "user"
    calls = (call["function"] for call in message.get("tool_calls") or ())
    lines = [(text, style)] if text else []
    lines += [(f"→ {call['name']}({call['arguments']})", "") for call in calls]
    for line, line_style in lines:
        shown = (visible(line if full else _cut(line, _LONG)), line_style)
        Console(highlight=False).print(Text.assemble((f"{who:>9}", f"bold {style}"), "  ", shown))


def _print_result(folder: SettingFolder, row: CommitRow, conversation: Conversation) -> None:
    console = Console(highlight=False)
    console.rule()
    for line in _result_lines(folder, row, conversation):
        console.print(line)
    expected = expected_of(folder, row.task_id)
    if expected is None:
        console.print("The benchmark is not installed here; expected actions are not shown.")
        return
    table = Table("", title="expected and actual actions", title_justify="left")
    for name in ("expected action", "actual action"):
        table.add_column(name, overflow="fold")
    for pair in align_actions(expected, made_calls_of(conversation, folder.setting)):
        table.add_row(Text(pair.mark, _MARKS[pair.mark]), _action(pair.expected), _action(pair.actual))
    console.print(table)


def _result_lines(folder: SettingFolder, row: CommitRow, conversation: Conversation) -> Iterator[str]:
    """Yield what a conversation came to, and why, in rich's markup."""
    style = "green" if row.reward else "red"
    yield f"[bold {style}]{row.outcome.value}[/], reward {_figure(row.reward)}, {_took(row)}"
    if (origin := row.imported) is not None:
        source = f"imported from {origin.file}, row {origin.row} ({origin.format}, sha256 {origin.sha256[:12]}…)"
        yield escape(source if origin.timed else f"{source}; it does not say when")
    if conversation.error:
        yield escape(conversation.error)
    try:
        yield from _analysis_lines(analysis_of(folder, row))
    except TautoolsError:  # the benchmark is not here; the record has the rough of it
        if missing := conversation.reward_info.get("missing_info"):
            yield _labelled("never said to the user", ", ".join(map(str, missing)))
        for different in conversation.reward_info.get("different") or ():
            text = different if isinstance(different, str) else _json(different)
            yield _labelled("not as it should be", _cut(text, _SHORT))
    for verdict in conversation.reward_info.get("nl_assertions") or ():
        word, style = ("met", "green") if verdict["met"] else ("not met", "red")
        yield _labelled(word, f"{verdict['assertion']} – {verdict['reason']}", style)
    if awaiting_judge := folder_judging_note(folder, [row.task_id]):
        yield awaiting_judge


def _analysis_lines(analysis: FailureAnalysis) -> Iterator[str]:
    """Yield why a conversation got its reward; nothing where nothing is wrong."""
    if analysis.missing_information:
        yield _labelled("never said to the user", ", ".join(analysis.missing_information))
    for each in analysis.failed_assertions:
        yield _labelled("does not hold", each)
    for action in analysis.missing_actions:
        yield _labelled("required and not made", action)
    if analysis.fields and analysis.scores_database:
        yield "[red]the database is not as it should be:[/]"
    elif analysis.fields:
        yield "not as the reference leaves it (not scored as such):"
    yield from map(_field_line, analysis.fields)
    for one in analysis.missed:
        yield _labelled(one.status.value, _missed_text(one))
    for call in analysis.unexpected_writes:
        yield _labelled("changed the database, not asked for", _cut(call, 3 * _SHORT_VALUE))


def _labelled(label: str, text: str, style: str = "red") -> str:
    return f"[{style}]{label}:[/] {escape(text)}"


def _field_line(each: FieldDifference) -> str:
    before, expected, actual = (_value(value) for value in (each.before, each.expected, each.actual))
    place = f"{each.table}/{each.key} {each.field}".rstrip()
    was = "" if each.error is FieldError.NOT_CHANGED else f", was {before}"
    return f"  [bold]{escape(place)}[/]: " + escape(f"{each.error.value}; expected {expected}, is {actual}{was}")


def _missed_text(one: ActionMatch) -> str:
    who = "" if one.by == "assistant" else f" (by the {one.by})"
    answer = f"; the tool said: {_cut(one.answer, _SHORT_VALUE)}" if one.answer else ""
    pairs = [f"{name}={_value(got)} in place of {_value(wanted)}" for name, (wanted, got) in one.differs.items()]
    made = f"{one.name}{who} {', '.join(pairs)}" if pairs else f"{_call_text(one.name, one.expected, _value)}{who}"
    return made + answer


def _action(call: MadeCall | None) -> Text:
    if call is None:
        return Text()
    who = "" if call.by == "assistant" else f"{call.by}: "
    return Text(visible(_cut(who + _call_text(call.name, call.arguments, _json), _LONG)))


def _call_text(name: str, given: Any, text_of: Callable[[Any], str]) -> str:
    pairs = (f"{key}={text_of(value)}" for key, value in given.items()) if isinstance(given, Mapping) else [str(given)]
    return f"{name}({', '.join(pairs)})"


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return ABSENT if value == ABSENT else _cut(_json(value), _SHORT_VALUE)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def visible(text: str) -> str:
    """Return what a model wrote without what would steer a terminal: such characters stand as escapes."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _took(row: CommitRow) -> str:
    return "not recorded" if row.duration_s is None else f"{row.duration_s:.1f} s"


def _figure(reward: float | None) -> str:
    return "none" if reward is None else f"{reward:g}"


@command(
    "tautools show                                        what has been run",
    "tautools show --env retail --strategy fc --model 4B  every conversation of a setting",
    "tautools show --env retail --model 4B --task 12      one conversation, expected and actual actions",
    "tautools show results/retail/fc/4B --task 12 --trial 3",
    "tautools show --follow                               watch the one that has run longest",
    name="show",
)
@click.option("--task", "task_id", help="The conversation of this task.")
@click.option("--trial", type=click.IntRange(0), help="Its trial, from 0.  [default: the first that is finished]")
@click.option("--follow", is_flag=True, help="Watch a conversation that is running, until it ends.")
@click.option("--full", is_flag=True, help="Do not shorten prompts and tool results.")
@results_options
def show_command(chosen: ChosenResults, task_id: str | None, trial: int | None, *, follow: bool, full: bool) -> None:
    """List what has been run, or print one conversation."""
    if follow:
        _follow(chosen.folders, task_id, trial, full=full)
    else:
        show_results(chosen.folders, task_id, trial, narrowed=chosen.narrowed, full=full)


def _follow(folders: list[SettingFolder], task_id: str | None, trial: int | None, *, full: bool) -> None:
    running = now_running(folders, task_id=task_id, trial=trial)
    if not running:
        raise ParamsError(
            "No such conversation is running.",
            next_step="`tautools show` lists what is finished; start a run with `tautools run`.",
        )
    folder, which = running[0]
    if not wants_json():
        _print_head(folder, which.task_id, which.trial)
    for message in follow(folder, which):
        emit(message, indent=None, text=partial(_print_message, message, full=full))
    if wants_json():
        return
    row = read_ledger(folder.path).get((folder.id, which.task_id, which.trial))
    if row is None:
        click.echo("It ended without a result and is pending again.")
    else:
        _print_result(folder, row, folder.conversation(row))
