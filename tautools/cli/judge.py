"""`tautools judge`: natural-language assertions of finished conversations, put to a judge."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import EXIT_UNFINISHED, guard
from tautools.cli.options import json_option, workspace_option
from tautools.errors import ParamsError

if TYPE_CHECKING:
    from tautools.params.models import RoleParams
    from tautools.run.judging import Judged

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools judge --env retail --model 4B --judge-server qwen3-32b
  tautools judge results/airline/fc/4B --judge-model M --judge-base-url http://gaudi001:8007/v1 --judge-key-env KEY
\b
Exit codes: 0 all judged, 2 bad input, 3 verdicts are still owed (run it again).
"""


@click.command("judge", epilog=_EPILOG)
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
def command(
    folder: Path | None, workspace: Path, concurrency: int, *, dry_run: bool, as_json: bool, **options: str | None
) -> None:
    """Put what tasks assert in natural language to a judge, for conversations that are finished.

    Results without a judge stay as they are; judged copies of them go to a folder of their own. What was judged is not
    judged again, and no other model is asked.
    """
    from tautools.run.coverage import folder_judged, waiting_for_judge
    from tautools.run.judging import judge_folder
    from tautools.run.show import choose_folders, folder_at

    wanted = {name: options[name] for name in ("env", "strategy", "model")}
    found = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    folders = [each for each in found if each.setting.judge is None or waiting_for_judge(each.path, each.id)]
    if dry_run:
        told = {str(each.path): folder_judged(each) or "nothing to judge" for each in folders}
        click.echo(
            json.dumps(told, indent=1) if as_json else "\n".join(f"{path}: {said}" for path, said in told.items())
        )
        return
    role = _role(options)
    done = [judge_folder(each, role, workspace=workspace, concurrency=concurrency) for each in folders]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) | {"folder": str(each.folder)} for each in done], indent=1))
    else:
        click.echo("\n".join(_words(each) for each in done) or "Nothing is to be judged.")
    if any(each.owed for each in done):
        raise SystemExit(EXIT_UNFINISHED)


def _role(options: dict[str, Any]) -> RoleParams:
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


def _words(done: Judged) -> str:
    line = f"{done.judged} judged, {done.copied} taken over as they were, {done.already} were there; {done.folder}"
    return f"{line}\n{done.owed} verdicts are owed: {done.cause}" if done.owed else line
