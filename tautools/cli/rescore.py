"""`tautools rescore`: stored conversations under other benchmarks' rules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.rules import Rules
    from tautools.run.folder import SettingFolder
    from tautools.run.rescore import Rescored

__all__ = ["command"]

_EPILOG = """\b
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


def _rules(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[Rules, ...]:
    from tautools.bench.rules import Rules

    known = {each.value: each for each in Rules}
    names = [name.strip() for name in value.split(",") if name.strip()]
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        raise click.BadParameter(f"{wrong[0] if wrong else value!r} is none of {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names))


@click.command("rescore", epilog=_EPILOG)
@click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--env", help="Only this env.")
@click.option("--strategy", help="Only this strategy.")
@click.option("--model", help="Only this agent model: its name, its folder's name or a setting id.")
@click.option("--rules", callback=_rules, default="v1,v2,inspect,exact", show_default=True, help="Whose rules.")
@workspace_option
@json_option
@guard
def command(
    folder: Path | None, workspace: Path, rules: tuple[Rules, ...], *, as_json: bool, **wanted: str | None
) -> None:
    """Score stored conversations under v1's and v2's rules, and name those whose verdict changes.

    Each conversation is done again on the benchmark's own tools; no model is asked and nothing is written.
    """
    from tautools.run.rescore import rescore
    from tautools.run.show import choose_folders, folder_at

    folders = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    found = [(each, list(rescore(each, rules))) for each in folders]
    if as_json:
        click.echo(json.dumps([_told(*each) for each in found], indent=1))
        return
    if not found:
        click.echo("Nothing has been run here.")
        return
    for each, rows in found:
        _print(each, rows, rules)


def _told(folder: SettingFolder, rows: Sequence[Rescored]) -> dict[str, object]:
    return {
        "folder": str(folder.path),
        "id": folder.id,
        "simulated": folder.setting.simulated,
        "conversations": [each.as_dict() for each in rows],
    }


def _print(folder: SettingFolder, rows: Sequence[Rescored], rules: Sequence[Rules]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from tautools.run.rescore import tally

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
        sums = tally(rows, each)
        mean = _mean(sums.passed, sums.conversations)
        table.add_row(
            each.value, str(sums.passed), str(sums.conversations), mean, str(len(sums.changed)), str(sums.unjudged)
        )
    console.print(table)
    for each in rules:
        for one in tally(rows, each).changed:
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
