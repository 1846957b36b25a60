"""`tautools failures`: why conversations did not pass, one by one and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option

if TYPE_CHECKING:
    from tautools.run.failures import Failure
    from tautools.run.folder import SettingFolder

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools failures                                    of every setting in the workspace
  tautools failures --env retail --strategy fc --model 4B
  tautools failures results/retail/fc/4B --json
  tautools show results/retail/fc/4B --task 12         one of them in full
"""


@click.command("failures", epilog=_EPILOG)
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
def command(folder: Path | None, workspace: Path, most: int, *, as_json: bool, **wanted: str | None) -> None:
    """Say why conversations failed: fields of the database, reference actions, information that was not said.

    Every failed conversation is done again on the benchmark's own tools and compared with what its task's reference
    does; no model is asked, and the same records give the same answer.
    """
    from tautools.run.failures import failures_of
    from tautools.run.show import choose_folders, folder_at

    folders = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    found = [(each, list(failures_of(each))) for each in folders]
    if as_json:
        click.echo(json.dumps([_told(*each) for each in found], indent=1, ensure_ascii=False))
        return
    if not found:
        click.echo("Nothing has been run here.")
        return
    from tautools.cli.anatomy import print_failures

    for each, failures in found:
        print_failures(each, failures, most=most)


def _told(folder: SettingFolder, failures: list[Failure]) -> dict[str, object]:
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
