"""`tautools failures`, `rescore` and `judge`: why conversations got their rewards."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape

from tautools.bench.analysis.failures import ABSENT, ActionStatus, FieldError
from tautools.bench.analysis.rules import ScoringRules
from tautools.cli.commands import EXIT_UNFINISHED, ListOption, VerbCommand
from tautools.cli.options import (
    ChosenResults,
    dry_run_option,
    json_option,
    judge_role,
    results_options,
    run_options,
)
from tautools.cli.output import NOTHING_RUN, emit, pick, plain_table, setting_title
from tautools.run.failures import count_causes, count_fields, count_missed, failures_of, rescore
from tautools.run.judging import folder_judging_note, judge_folder
from tautools.run.ledger import count_awaiting_judge
from tautools.run.show import passed_and_scored

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from tautools.bench.analysis.failures import ActionMatch, FailureAnalysis, FieldDifference
    from tautools.run.failures import FailedConversation, Rescored
    from tautools.run.folder import SettingFolder
    from tautools.run.judging import JudgingResult

_SHORT = 60
"""Characters of a value that are shown."""


def print_failures(folder: SettingFolder, found: Sequence[FailedConversation], *, most: int) -> None:
    """Print the failures of one setting: counted by cause, by action and by field, then one line each."""
    console = Console(highlight=False)
    _, scored = passed_and_scored(folder.rows())
    console.rule(setting_title(folder.setting), align="left")
    console.print(f"{len(found)} of {scored} scored conversations did not pass.")
    if not found:
        return
    _counts(console, ("lost by",), {(name,): n for name, n in count_causes(found).items()}, most)
    _counts(console, ("reference action", "it was"), count_missed(found), most)
    _counts(console, ("field of the database", "it was"), count_fields(found), most)
    words = ("task", "actions not made", "not said")
    table = plain_table(words[0], "trial", "outcome", "lost by", *words[1:], fold=words)
    for each in found:
        row, analysis = each.row, each.analysis
        missed = ", ".join(dict.fromkeys(one.name for one in analysis.missed))
        cells = (row.task_id, str(row.trial), row.outcome.value, ", ".join(each.causes), missed)
        table.add_row(*map(escape, cells), escape(", ".join(analysis.missing_information)))
    console.print(table)


def _counts(console: Console, names: Sequence[str], found: Counter[Any] | dict[Any, int], most: int) -> None:
    if not found:
        return
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    table = plain_table(*names, "conversations", right=["conversations"])
    for key, number in ordered[:most]:
        table.add_row(*map(escape, key), str(number))
    console.print(table)
    if len(ordered) > most:
        console.print(f"[bright_black]and {len(ordered) - most} more; --most {len(ordered)} shows all[/]")
    console.print()


def print_analysis(analysis: FailureAnalysis) -> None:
    """Print why one conversation got its reward; nothing where nothing is wrong."""
    console = Console(highlight=False)
    if analysis.missing_information:
        console.print(f"[red]never said to the user:[/] {escape(', '.join(analysis.missing_information))}")
    for each in analysis.failed_assertions:
        console.print(f"[red]does not hold:[/] {escape(each)}")
    for action in analysis.missing_actions:
        console.print(f"[red]required and not made:[/] {escape(action)}")
    if analysis.fields:
        scored = "[red]the database is not as it should be:[/]"
        console.print(scored if analysis.scores_database else "not as the reference leaves it (not scored as such):")
    for field in analysis.fields:
        console.print(f"  {_field_line(field)}")
    for one in analysis.missed:
        console.print(f"[red]{one.status.value}:[/] {escape(_action_line(one))}")
    for call in analysis.unexpected_writes:
        console.print(f"[red]changed the database, not asked for:[/] {escape(_cut(call, 3 * _SHORT))}")


def _field_line(each: FieldDifference) -> str:
    before, expected, actual = (escape(_value(value)) for value in (each.before, each.expected, each.actual))
    place = escape(f"{each.table}/{each.key} {each.field}".rstrip())
    is_now = f"is {actual}" if each.error is FieldError.NOT_CHANGED else f"is {actual}, was {before}"
    return f"[bold]{place}[/]: {each.error.value}; expected {expected}, {is_now}"


def _action_line(one: ActionMatch) -> str:
    who = "" if one.by == "assistant" else f" (by the {one.by})"
    if one.status is ActionStatus.OTHER_ARGUMENTS:
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


_FAILURES_EPILOG = """\b
Examples:
  tautools failures                                    of every setting in the workspace
  tautools failures --env retail --strategy fc --model 4B
  tautools failures results/retail/fc/4B --json
  tautools show results/retail/fc/4B --task 12         one of them in full
"""


@click.command("failures", cls=VerbCommand, epilog=_FAILURES_EPILOG)
@click.option("--most", type=click.IntRange(1), default=10, show_default=True,
              help="Rows of each count that are shown.")  # fmt: skip
@json_option
@results_options
def failures_command(chosen: ChosenResults, most: int, *, as_json: bool) -> None:
    """Say why conversations failed: fields of the database, reference actions, information that was not said.

    Every failed conversation is done again on the benchmark's own tools and compared with what its task's reference
    does; no model is asked, and the same records give the same answer.
    """
    by_folder = [(folder, list(failures_of(folder))) for folder in chosen.folders]
    if as_json:
        emit([_failures_dict(*each) for each in by_folder], as_json=True)
        return
    for folder, failures in by_folder:
        print_failures(folder, failures, most=most)
    if not by_folder:
        click.echo(NOTHING_RUN)


def _failures_dict(folder: SettingFolder, failures: list[FailedConversation]) -> dict[str, object]:
    setting = folder.setting
    named = {"folder": folder.path, "id": folder.id, "agent_model": setting.agent.model}
    return named | pick(setting, "env strategy simulated") | {"failures": failures}


_RESCORE_EPILOG = """\b
Rules:
  v1       tau-bench: the database, and each required information in one answer; at a limit 0
  v2       tau2-bench: the parts that the task's reward basis names; at a limit 0
  inspect  inspect's tau2: as v2, on the state reached, however it ended
  exact    as v1, but "10" is not said by "100"
\b
Examples:
  tautools rescore --env retail --model 4B
  tautools rescore results/airline/fc/4B --rules v1,exact --json
"""


@click.command("rescore", cls=VerbCommand, epilog=_RESCORE_EPILOG)
@click.option("--rules", "names", cls=ListOption, default=("v1,v2,inspect,exact",), show_default=True,
              help="Which rules.")  # fmt: skip
@json_option
@results_options
def rescore_command(chosen: ChosenResults, names: list[str], *, as_json: bool) -> None:
    """Score stored conversations under v1's and v2's rules, and name those whose verdict changes.

    Each conversation is done again on the benchmark's own tools; no model is asked and nothing is written.
    """
    known = {rules.value: rules for rules in ScoringRules}
    wrong = [name for name in names if name not in known]
    if wrong:
        raise click.UsageError(f"--rules: {wrong[0]!r} is none of {', '.join(known)}")
    rules = [known[name] for name in names]
    by_folder = [(folder, list(rescore(folder, rules))) for folder in chosen.folders]
    if as_json:
        emit(
            [
                {"folder": folder.path, "id": folder.id, "simulated": folder.setting.simulated, "conversations": rows}
                for folder, rows in by_folder
            ],
            as_json=True,
        )
        return
    for folder, rows in by_folder:
        _print_rescored(folder, rows, rules)
    if not by_folder:
        click.echo(NOTHING_RUN)


def _print_rescored(folder: SettingFolder, rows: Sequence[Rescored], rules: Sequence[ScoringRules]) -> None:
    console = Console(highlight=False)
    console.rule(setting_title(folder.setting), align="left")
    changed = {each: [row for row in rows if row.changed(each)] for each in rules}
    scored = [row.row.reward for row in rows if row.row.reward is not None]
    passed = sum(reward == 1 for reward in scored)
    figures = ("passed", "of", "mean", "changed", "with assertions nobody judged")
    table = plain_table("rules", *figures, right=figures)
    table.add_row("recorded", str(passed), str(len(scored)), _mean(sum(scored), len(scored)), "", "")
    for each in rules:
        verdicts = [row.verdicts[each] for row in rows]
        passed = sum(verdict.reward == 1 for verdict in verdicts)
        awaiting = sum(verdict.awaiting_judge > 0 for verdict in verdicts)
        numbers = (passed, len(rows), _mean(passed, len(rows)), len(changed[each]), awaiting)
        table.add_row(each.value, *map(str, numbers))
    console.print(table)
    for each, others in changed.items():
        for one in others:
            verdict = one.verdicts[each]
            before = "none" if one.row.reward is None else f"{one.row.reward:g}"
            why = f", lost by {' and '.join(verdict.lost_by)}" if verdict.lost_by else ""
            where = f"task {escape(one.row.task_id)}, trial {one.row.trial} ({one.row.outcome.value})"
            console.print(f"{each.value}: {where}: {before} -> {verdict.reward:g}{why}")
    moved = sum(row.row.outcome.value in {"passed", "failed"} and row.replayed_reward != row.row.reward for row in rows)
    if moved:
        console.print(f"[yellow]{moved} replay differently than recorded: is it the benchmark's same version?[/]")


def _mean(total: float, number: int) -> str:
    return f"{total / number:.3f}" if number else "n = 0"


_JUDGE_EPILOG = """\b
Examples:
  tautools judge --env retail --model 4B --judge-server qwen3-32b
  tautools judge results/airline/fc/4B --judge-model M --judge-base-url http://gaudi001:8007/v1 --judge-key-env KEY
\b
Exit codes: 0 all judged, 2 bad input, 3 verdicts are still pending (run it again).
"""


@click.command("judge", cls=VerbCommand, epilog=_JUDGE_EPILOG)
@run_options("judge.")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Judged at a time.")
@dry_run_option
@json_option
@results_options
def judge_command(chosen: ChosenResults, concurrency: int, *, dry_run: bool, as_json: bool, **options: Any) -> None:
    """Put what tasks assert in natural language to a judge, for conversations that are finished.

    Results without a judge stay as they are; judged copies of them go to a folder of their own. What was judged is not
    judged again, and no other model is asked.
    """
    folders = [
        each for each in chosen.folders if each.setting.judge is None or count_awaiting_judge(each.path, each.id)
    ]
    if dry_run:
        notes = {str(folder.path): folder_judging_note(folder) or "nothing to judge" for folder in folders}
        emit(notes, as_json=as_json, text="\n".join(f"{path}: {note}" for path, note in notes.items()))
        return
    judge = judge_role(options)
    done = [judge_folder(folder, judge, workspace=chosen.workspace, concurrency=concurrency) for folder in folders]
    emit(done, as_json=as_json, text="\n".join(map(_judged_line, done)) or "Nothing is to be judged.")
    if any(each.pending for each in done):
        raise SystemExit(EXIT_UNFINISHED)


def _judged_line(done: JudgingResult) -> str:
    line = f"{done.judged} judged, {done.copied} copied as they were, {done.already} there before; {done.folder}"
    return f"{line}\n{done.pending} verdicts are pending: {done.cause}" if done.pending else line
