"""`tautools failures`, `rescore` and `judge`: why conversations got their rewards."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import click
from rich.console import Console

from tautools.bench.analysis.replay import ScoringRules
from tautools.cli.commands import EXIT_UNFINISHED, ListOption, command, exit_if
from tautools.cli.options import ChosenResults, dry_run_option, judge_role, results_options, run_options
from tautools.cli.output import NOTHING_RUN, emit, pick, plain_table, setting_title
from tautools.run.folder import SettingFolder
from tautools.run.judging import JudgingResult, folder_judging_note, judge_folder
from tautools.run.ledger import count_awaiting_judge, passed_and_scored
from tautools.run.replays import (
    FailedConversation,
    Rescored,
    count_causes,
    count_fields,
    count_missed,
    failures_of,
    rescore,
)


def _emit_by_setting(found: Sequence[tuple[SettingFolder, list[Any]]], name: str, show: Callable[..., None]) -> None:
    """Print what was found of each setting under its title; in JSON it stands as `name` beside the setting."""

    def text() -> str | None:
        console = Console(highlight=False)
        for folder, rows in found:
            console.rule(setting_title(folder.setting), align="left")
            show(console, folder, rows)
        return None if found else NOTHING_RUN

    values = []
    for folder, rows in found:
        named = {"folder": folder.path, "id": folder.id, "agent_model": folder.setting.agent.model}
        values.append(named | pick(folder.setting, "env strategy simulated") | {name: rows})
    emit(values, text=text)


@command(
    "tautools failures                                    of every setting in the workspace",
    "tautools failures --env retail --strategy fc --model 4B",
    "tautools failures results/retail/fc/4B --json",
    "tautools show results/retail/fc/4B --task 12         one of them in full",
    name="failures",
)
@click.option(
    "--most", type=click.IntRange(1), default=10, show_default=True, help="Rows of each count that are shown."
)
@results_options
def failures_command(chosen: ChosenResults, most: int) -> None:
    """Say why conversations failed: fields of the database, reference actions, information that was not said.

    Every failed conversation is done again on the benchmark's own tools and compared with what its task's reference
    does; no model is asked, and the same records give the same answer.
    """
    found = [(folder, list(failures_of(folder))) for folder in chosen.folders]
    _emit_by_setting(found, "failures", partial(_print_failures, most=most))


def _print_failures(
    console: Console, folder: SettingFolder, failures: Sequence[FailedConversation], *, most: int
) -> None:
    """Print failures counted by cause, by action and by field, then one line each."""
    _, scored = passed_and_scored(folder.rows())
    console.print(f"{len(failures)} of {scored} scored conversations did not pass.")
    if not failures:
        return
    causes = {(cause,): number for cause, number in count_causes(failures).items()}
    _print_counts(console, ("lost by",), causes, most)
    _print_counts(console, ("reference action", "it was"), count_missed(failures), most)
    _print_counts(console, ("field of the database", "it was"), count_fields(failures), most)
    lines = []
    for each in failures:
        missed = dict.fromkeys(one.name for one in each.analysis.missed)
        lists = (each.causes, missed, each.analysis.missing_information)
        lines.append((each.row.task_id, each.row.trial, each.row.outcome.value, *map(", ".join, lists)))
    titles = ("task", "trial", "outcome", "lost by", "actions not made", "not said")
    console.print(plain_table(*titles, rows=lines, fold=("task", "actions not made", "not said")))


def _print_counts(console: Console, titles: Sequence[str], found: Counter[Any] | dict[Any, int], most: int) -> None:
    if not found:
        return
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    rows = ((*key, number) for key, number in ordered[:most])
    console.print(plain_table(*titles, "conversations", rows=rows, right=["conversations"]))
    if len(ordered) > most:
        console.print(f"[bright_black]and {len(ordered) - most} more; --most {len(ordered)} shows all[/]")
    console.print()


_RULES = """Rules:
  v1       tau-bench: the database, and each required information in one answer; at a limit 0
  v2       tau2-bench: the parts that the task's reward basis names; at a limit 0
  inspect  inspect's tau2: as v2, on the state reached, however it ended
  exact    as v1, but "10" is not said by "100"
"""


@command(
    "tautools rescore --env retail --model 4B",
    "tautools rescore results/airline/fc/4B --rules v1,exact --json",
    name="rescore",
    notes=_RULES,
)
@click.option(
    "--rules", "names", cls=ListOption, default=("v1,v2,inspect,exact",), show_default=True, help="Which rules."
)
@results_options
def rescore_command(chosen: ChosenResults, names: list[str]) -> None:
    """Score stored conversations under v1's and v2's rules, and name those whose verdict changes.

    Each conversation is done again on the benchmark's own tools; no model is asked and nothing is written.
    """
    known = {rules.value: rules for rules in ScoringRules}
    if wrong := [name for name in names if name not in known]:
        raise click.UsageError(f"--rules: {wrong[0]!r} is none of {', '.join(known)}")
    rules = [known[name] for name in names]
    found = [(folder, list(rescore(folder, rules))) for folder in chosen.folders]
    _emit_by_setting(found, "conversations", partial(_print_rescored, rules=rules))


def _print_rescored(
    console: Console, _folder: SettingFolder, rows: Sequence[Rescored], *, rules: Sequence[ScoringRules]
) -> None:
    """Print what each of the rules comes to beside what was recorded, then every verdict that changes."""
    rewards = [row.row.reward for row in rows if row.row.reward is not None]
    passed = sum(reward == 1 for reward in rewards)
    lines = [("recorded", passed, len(rewards), _mean(sum(rewards), len(rewards)), "", "")]
    changed = {each: [row for row in rows if row.changed(each)] for each in rules}
    for each in rules:
        verdicts = [row.verdicts[each] for row in rows]
        passed = sum(verdict.reward == 1 for verdict in verdicts)
        awaiting = sum(verdict.awaiting_judge > 0 for verdict in verdicts)
        numbers = (passed, len(rows), _mean(passed, len(rows)))
        lines.append((each.value, *numbers, str(len(changed[each])), str(awaiting)))
    figures = ("passed", "of", "mean", "changed", "with assertions nobody judged")
    console.print(plain_table("rules", *figures, rows=lines, right=figures))
    for each, others in changed.items():
        for one in others:
            verdict, row = one.verdicts[each], one.row
            before = "none" if row.reward is None else f"{row.reward:g}"
            why = f", lost by {' and '.join(verdict.lost_by)}" if verdict.lost_by else ""
            where = f"{each.value}: task {row.task_id}, trial {row.trial} ({row.outcome.value})"
            console.print(f"{where}: {before} -> {verdict.reward:g}{why}", markup=False)
    moved = sum(row.row.outcome.value in {"passed", "failed"} and row.replayed_reward != row.row.reward for row in rows)
    if moved:
        console.print(f"[yellow]{moved} replay differently than recorded: is it the benchmark's same version?[/]")


def _mean(total: float, number: int) -> str:
    return f"{total / number:.3f}" if number else "n = 0"


@command(
    "tautools judge --env retail --model 4B --judge-server qwen3-32b",
    "tautools judge results/airline/fc/4B --judge-model M --judge-base-url http://gaudi001:8007/v1 --judge-key-env KEY",
    name="judge",
    notes="Exit codes: 0 all judged, 2 bad input, 3 verdicts are still pending (run it again).",
)
@run_options("judge.")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Judged at a time.")
@dry_run_option
@results_options
def judge_command(chosen: ChosenResults, concurrency: int, *, dry_run: bool, **options: Any) -> None:
    """Put what tasks assert in natural language to a judge, for conversations that are finished.

    Results without a judge stay as they are; judged copies of them go to a folder of their own. What was judged is not
    judged again, and no other model is asked.
    """
    folders = [
        each for each in chosen.folders if each.setting.judge is None or count_awaiting_judge(each.path, each.id)
    ]
    if dry_run:
        notes = {str(folder.path): folder_judging_note(folder) or "nothing to judge" for folder in folders}
        emit(notes, text="\n".join(f"{path}: {note}" for path, note in notes.items()))
        return
    judge = judge_role(options)
    done = [judge_folder(folder, judge, workspace=chosen.workspace, concurrency=concurrency) for folder in folders]
    emit(done, text="\n".join(map(_judged_line, done)) or "Nothing is to be judged.")
    exit_if(any(each.pending for each in done), EXIT_UNFINISHED)


def _judged_line(done: JudgingResult) -> str:
    line = f"{done.judged} judged, {done.copied} copied as they were, {done.already} there before; {done.folder}"
    return f"{line}\n{done.pending} verdicts are pending: {done.cause}" if done.pending else line
