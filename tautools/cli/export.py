"""`tautools export`: what is finished, in another tool's format."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option
from tautools.errors import ParamsError

if TYPE_CHECKING:
    from tautools.run.export import Exported
    from tautools.run.folder import SettingFolder

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools export                    every setting, each beside its results
  tautools export --env airline --model 4B --out airline_4B.json
  tautools export results/airline/fc/4B --format tau-bench --num-trials 4
\b
Files of --format tau2 are for tau2-bench's own viewer and metrics.
"""


@click.command("export", epilog=_EPILOG)
@click.argument("folder", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--env", help="Only this env.")
@click.option("--strategy", help="Only this strategy.")
@click.option("--model", help="Only this agent model: its name, its folder's name or a setting id.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["tau2", "tau-bench"]),
    default="tau2",
    show_default=True,
    help="tau2: tau2-bench's results; tau-bench: v1's list.",
)
@click.option("--num-trials", type=click.IntRange(1), help="Only trials below this.  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), help="The file.  [default: beside the results]")
@workspace_option
@json_option
@guard
def command(
    folder: Path | None,
    workspace: Path,
    kind: str,
    num_trials: int | None,
    out: Path | None,
    *,
    as_json: bool,
    **wanted: str | None,
) -> None:
    """Write finished conversations as tau2-bench or tau-bench would have written them: one file for each setting."""
    from tautools.run.export import Format, export
    from tautools.run.show import choose_folders, folder_at

    folders = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    _check(folders, out)
    written = [export(each, Format(kind), out=out, num_trials=num_trials) for each in folders]
    if as_json:
        click.echo(json.dumps([asdict(each) | {"path": str(each.path)} for each in written], indent=1))
        return
    for each in written:
        click.echo(_told(each))


def _check(folders: list[SettingFolder], out: Path | None) -> None:
    if not folders:
        raise ParamsError(
            "Nothing has been run here.",
            next_step="Run a cell with `tautools run`, or choose another workspace with --workspace.",
        )
    if out is not None and len(folders) > 1:
        raise ParamsError(
            f"{len(folders)} settings do not fit into one file.",
            evidence="\n".join(str(each.path) for each in folders),
            next_step="Add --env, --strategy and --model, or leave --out away: each is written beside its results.",
        )


def _told(each: Exported) -> str:
    marked = " [SIMULATED]" if each.simulated else ""
    failed = f"; {each.user_errors} ended in a user_error, which tau2-bench's metrics count as 0" * bool(
        each.user_errors
    )
    return f"{each.path}: {each.conversations} conversations{marked}{failed}"
