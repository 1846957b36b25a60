"""`tautools failures`, `rescore` and `judge`: why conversations got their rewards."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tautools.bench.analysis.failures import ABSENT, ActionStatus, FieldError
from tautools.cli.options import json_option, workspace_option
from tautools.cli.output import EXIT_UNFINISHED, guard
from tautools.errors import ParamsError
from tautools.run.failures import count_causes, count_fields, count_missed
from tautools.run.ledger import rows_of
from tautools.run.show import passed_and_scored

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from tautools.bench.analysis.failures import ActionMatch, FailureAnalysis, FieldDifference
    from tautools.bench.analysis.rules import ScoringRules
    from tautools.params.models import RoleParams
    from tautools.run.failures import FailedConversation, Rescored
    from tautools.run.folder import SettingFolder
    from tautools.run.judging import JudgingResult


_SHORT = 60
"""Characters of a value that are shown."""


def print_failures(folder: SettingFolder, found: Sequence[FailedConversation], *, most: int) -> None:
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
        row, analysis = each.row, each.analysis
        missed = ", ".join(dict.fromkeys(one.name for one in analysis.missed))
        cells = (row.task_id, str(row.trial), row.outcome.value, ", ".join(each.causes), missed)
        table.add_row(*map(escape, cells), escape(", ".join(analysis.missing_information)))
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


def print_analysis(analysis: FailureAnalysis) -> None:
    """Print why one conversation got its reward; nothing where nothing is wrong."""
    console = Console(highlight=False)
    if analysis.missing_information:
        console.print(f"[red]never told to the user:[/] {escape(', '.join(analysis.missing_information))}")
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


@click.command("failures", epilog=_FAILURES_EPILOG)
@click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--env", help="Only this env.")
@click.option("--strategy", help="Only this strategy.")
@click.option("--model", help="Only this agent model: its name, its folder's name or a setting id.")
@click.option(
    "--most", type=click.IntRange(1), default=10, show_default=True, help="Rows of each count that are shown."
)
@workspace_option
@json_option
@guard
def failures_command(folder: Path | None, workspace: Path, most: int, *, as_json: bool, **wanted: str | None) -> None:
    """Say why conversations failed: fields of the database, reference actions, information that was not said.

    Every failed conversation is done again on the benchmark's own tools and compared with what its task's reference
    does; no model is asked, and the same records give the same answer.
    """
    from tautools.run.failures import failures_of
    from tautools.run.show import choose_folders, folder_at

    folders = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    found = [(each, list(failures_of(each))) for each in folders]
    if as_json:
        click.echo(json.dumps([_failures_dict(*each) for each in found], indent=1, ensure_ascii=False))
        return
    if not found:
        click.echo("Nothing has been run here.")
        return

    for each, failures in found:
        print_failures(each, failures, most=most)


def _failures_dict(folder: SettingFolder, failures: list[FailedConversation]) -> dict[str, object]:
    setting = folder.setting
    return {
        "folder": str(folder.path),
        "id": folder.id,
        "env": setting.env,
        "strategy": setting.strategy.value,
        "agent_model": setting.agent.model,
        "simulated": setting.simulated,
        "failures": [each.as_dict() for each in failures],
    }


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


def _rules(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[ScoringRules, ...]:
    from tautools.bench.analysis.rules import ScoringRules

    known = {each.value: each for each in ScoringRules}
    names = [name.strip() for name in value.split(",") if name.strip()]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise click.BadParameter(f"{wrong[0] if wrong else value!r} is none of {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names))


@click.command("rescore", epilog=_RESCORE_EPILOG)
@click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--env", help="Only this env.")
@click.option("--strategy", help="Only this strategy.")
@click.option("--model", help="Only this agent model: its name, its folder's name or a setting id.")
@click.option("--rules", callback=_rules, default="v1,v2,inspect,exact", show_default=True, help="Whose rules.")
@workspace_option
@json_option
@guard
def rescore_command(
    folder: Path | None, workspace: Path, rules: tuple[ScoringRules, ...], *, as_json: bool, **wanted: str | None
) -> None:
    """Score stored conversations under v1's and v2's rules, and name those whose verdict changes.

    Each conversation is done again on the benchmark's own tools; no model is asked and nothing is written.
    """
    from tautools.run.failures import rescore
    from tautools.run.show import choose_folders, folder_at

    folders = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    found = [(each, list(rescore(each, rules))) for each in folders]
    if as_json:
        click.echo(json.dumps([_rescored_dict(*each) for each in found], indent=1))
        return
    if not found:
        click.echo("Nothing has been run here.")
        return
    for each, rows in found:
        _print_rescored(each, rows, rules)


def _rescored_dict(folder: SettingFolder, rows: Sequence[Rescored]) -> dict[str, object]:
    return {
        "folder": str(folder.path),
        "id": folder.id,
        "simulated": folder.setting.simulated,
        "conversations": [each.as_dict() for each in rows],
    }


def _print_rescored(folder: SettingFolder, rows: Sequence[Rescored], rules: Sequence[ScoringRules]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tautools.run.failures import rule_totals

    console = Console(highlight=False)
    setting = folder.setting
    marked = " [bold red]SIMULATED[/]" if setting.simulated else ""
    console.rule(f"{escape(setting.env)} {setting.strategy.value} {escape(setting.agent.model)}{marked}", align="left")
    scored = [each.row.reward for each in rows if each.row.reward is not None]
    passed = sum(reward == 1 for reward in scored)
    table = Table("rules", box=None, pad_edge=False)
    for name in ("passed", "of", "mean", "changed", "with assertions nobody judged"):
        table.add_column(name, justify="right")
    table.add_row("recorded", str(passed), str(len(scored)), _mean(sum(scored), len(scored)), "", "")
    for each in rules:
        sums = rule_totals(rows, each)
        mean = _mean(sums.passed, sums.conversations)
        table.add_row(
            each.value,
            str(sums.passed),
            str(sums.conversations),
            mean,
            str(len(sums.changed)),
            str(sums.awaiting_judge),
        )
    console.print(table)
    for each in rules:
        for one in rule_totals(rows, each).changed:
            verdict = one.verdicts[each]
            before = "none" if one.row.reward is None else f"{one.row.reward:g}"
            why = f", lost by {' and '.join(verdict.lost_by)}" if verdict.lost_by else ""
            where = f"task {escape(one.row.task_id)}, trial {one.row.trial} ({one.row.outcome.value})"
            console.print(f"{each.value}: {where}: {before} -> {verdict.reward:g}{why}")
    moved = [each for each in rows if each.row.reward is not None and _moved(each)]
    if moved:
        console.print(f"[yellow]{len(moved)} replay differently than recorded: is it the benchmark's same version?[/]")


def _moved(each: Rescored) -> bool:
    return each.row.outcome.value in {"passed", "failed"} and each.replayed_reward != each.row.reward


def _mean(total: float, number: int) -> str:
    return f"{total / number:.3f}" if number else "n = 0"


_JUDGE_EPILOG = """\b
Examples:
  tautools judge --env retail --model 4B --judge-server qwen3-32b
  tautools judge results/airline/fc/4B --judge-model M --judge-base-url http://gaudi001:8007/v1 --judge-key-env KEY
\b
Exit codes: 0 all judged, 2 bad input, 3 verdicts are still pending (run it again).
"""


@click.command("judge", epilog=_JUDGE_EPILOG)
@click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--env", help="Only this env.")
@click.option("--strategy", help="Only this strategy.")
@click.option("--model", help="Only this agent model: its name, its folder's name or a setting id.")
@click.option("--judge-server", help="Server of the judge: a running one of the workspace.")
@click.option("--judge-model", help="Served model name of the judge.")
@click.option("--judge-base-url", help="Address of the judge's server, ending in /v1.")
@click.option("--judge-key-env", help="Environment variable that holds the key of the judge's server.")
@click.option("--concurrency", type=click.IntRange(1), default=8, show_default=True, help="Judged at a time.")
@click.option("--dry-run", is_flag=True, help="Say what would be judged; ask nobody.")
@workspace_option
@json_option
@guard
def judge_command(
    folder: Path | None, workspace: Path, concurrency: int, *, dry_run: bool, as_json: bool, **options: str | None
) -> None:
    """Put what tasks assert in natural language to a judge, for conversations that are finished.

    Results without a judge stay as they are; judged copies of them go to a folder of their own. What was judged is not
    judged again, and no other model is asked.
    """
    from tautools.run.judging import folder_judging_note, judge_folder
    from tautools.run.ledger import count_awaiting_judge
    from tautools.run.show import choose_folders, folder_at

    wanted = {name: options[name] for name in ("env", "strategy", "model")}
    found = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    folders = [each for each in found if each.setting.judge is None or count_awaiting_judge(each.path, each.id)]
    if dry_run:
        told = {str(each.path): folder_judging_note(each) or "nothing to judge" for each in folders}
        click.echo(
            json.dumps(told, indent=1) if as_json else "\n".join(f"{path}: {said}" for path, said in told.items())
        )
        return
    role = _judge_role(options)
    done = [judge_folder(each, role, workspace=workspace, concurrency=concurrency) for each in folders]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) | {"folder": str(each.folder)} for each in done], indent=1))
    else:
        click.echo("\n".join(_judged_line(each) for each in done) or "Nothing is to be judged.")
    if any(each.pending for each in done):
        raise SystemExit(EXIT_UNFINISHED)


def _judge_role(options: dict[str, Any]) -> RoleParams:
    from tautools.params.models import RoleParams

    if not (options["judge_server"] or options["judge_model"]):
        raise ParamsError(
            "No judge was named.",
            next_step="Add --judge-server NAME (`tautools server ls` lists what runs), or --judge-model and "
            "--judge-base-url.",
        )
    names = {"server": "judge_server", "model": "judge_model", "base_url": "judge_base_url"}
    given = {name: options[option] for name, option in (names | {"api_key_env": "judge_key_env"}).items()}
    return RoleParams.model_validate({name: value for name, value in given.items() if value})


def _judged_line(done: JudgingResult) -> str:
    line = f"{done.judged} judged, {done.copied} taken over as they were, {done.already} were there; {done.folder}"
    return f"{line}\n{done.pending} verdicts are pending: {done.cause}" if done.pending else line
