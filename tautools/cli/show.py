"""`tautools show`: what has been run, and one conversation in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option
from tautools.errors import ParamsError

if TYPE_CHECKING:
    from tautools.run.folder import SettingFolder

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools show                                        what has been run
  tautools show --env retail --strategy fc --model 4B  every conversation of a setting
  tautools show --env retail --model 4B --task 12      one conversation, expected beside actual actions
  tautools show results/retail/fc/4B --task 12 --trial 3
  tautools show --follow                               watch the one that has run longest
"""


@click.command("show", epilog=_EPILOG)
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
def command(  # noqa: PLR0913 - one argument for each option
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
    from tautools.run.show import choose_folders, folder_at

    folders = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    if follow:
        _follow(folders, task_id, trial, full=full, as_json=as_json)
    elif task_id is not None:
        _one(_the_one(folders), task_id, trial, full=full, as_json=as_json)
    elif len(folders) == 1 and (folder or any(wanted.values())):
        _conversations(folders[0], as_json=as_json)
    else:
        _overview(folders, as_json=as_json)


def _the_one(folders: list[SettingFolder]) -> SettingFolder:
    if len(folders) == 1:
        return folders[0]
    raise ParamsError(
        "Several settings have results; one must be meant." if folders else "Nothing has been run here.",
        evidence="\n".join(str(each.path) for each in folders),
        next_step="Add --env, --strategy and --model, or give the folder."
        if folders
        else "Run a cell with `tautools run`, or choose another workspace with --workspace.",
    )


def _overview(folders: list[SettingFolder], *, as_json: bool) -> None:
    from tautools.run.show import passed_and_scored, rows_of

    found = [(each, rows_of(each)) for each in folders]
    if as_json:
        told: list[dict[str, Any]] = []
        for each, rows in found:
            passed, scored = passed_and_scored(rows)
            adopted = sum(row.adopted is not None for row in rows)
            counts = {"finished": len(rows), "passed": passed, "scored": scored, "adopted": adopted}
            told.append(
                {"folder": str(each.path), "id": each.id, **counts, "setting": each.setting.model_dump(mode="json")}
            )
        click.echo(json.dumps(told, indent=1))
        return
    if not found:
        click.echo("Nothing has been run here.")
        return
    from tautools.cli.transcript import print_overview

    print_overview(found)


def _conversations(folder: SettingFolder, *, as_json: bool) -> None:
    from tautools.run.show import rows_of

    rows = rows_of(folder)
    if as_json:
        click.echo(json.dumps([row.model_dump(mode="json") for row in rows], indent=1))
        return
    from tautools.cli.transcript import print_rows

    print_rows(folder, rows)


def _one(folder: SettingFolder, task_id: str, trial: int | None, *, full: bool, as_json: bool) -> None:
    from tautools.run.show import choose_row, told

    row = choose_row(folder, task_id, trial)
    if as_json:
        click.echo(json.dumps(told(folder, row), indent=1, ensure_ascii=False))
        return
    from tautools.cli.transcript import print_conversation

    print_conversation(folder, row, full=full)


def _follow(folders: list[SettingFolder], task_id: str | None, trial: int | None, *, full: bool, as_json: bool) -> None:
    from tautools.run.follow import follow, now_running

    found = now_running(folders, task_id=task_id, trial=trial)
    if not found:
        raise ParamsError(
            "No such conversation is running.",
            next_step="`tautools show` lists what is finished; start a run with `tautools run`.",
        )
    from tautools.cli.transcript import Transcript, print_outcome

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
