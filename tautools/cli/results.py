"""`tautools report`, `import` and `export`: results of a workspace and of other programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.options import (
    ParamsName,
    json_option,
    new_workspace_option,
    run_flags,
    run_options,
    set_option,
    workspace_option,
)
from tautools.cli.output import EXIT_UNFINISHED, guard
from tautools.errors import ParamsError

if TYPE_CHECKING:
    from tautools.report import ReportPaths
    from tautools.run.exporters import ExportedFile
    from tautools.run.folder import SettingFolder


_REPORT_EPILOG = """\b
Examples:
  tautools report
  tautools report --sweep demo
  tautools report --sweep sol-gaudi-120 --out ~/reports/friday --json
"""


@click.command("report", epilog=_REPORT_EPILOG)
@click.option(
    "--sweep",
    type=ParamsName("sweeps"),
    metavar="NAME",
    help="Sweep file by name or path; everything under results/ when not given.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder to write into; reports/<sweep>/<time>/ of the workspace when not given.")  # fmt: skip
@workspace_option
@json_option
@guard
def report_command(sweep: str | None, out: Path | None, workspace: Path, as_json: bool) -> None:
    """Write the reports on scores and latency: HTML pages, Markdown, JSON and figures.

    Executes the notebooks 30_pass_k and 31_latency on the results of a workspace. No model is asked. Exit status 1 when
    there is nothing to report yet.
    """
    from tautools.report import build_reports, how_to_open

    paths = build_reports(workspace=workspace, sweep=sweep, out=out.expanduser() if out else None)
    if as_json:
        click.echo(json.dumps(_report_dict(paths)))
        return
    click.echo(str(paths))
    click.echo(how_to_open(paths.front))


def _report_dict(paths: ReportPaths) -> dict[str, object]:
    return {
        "folder": str(paths.folder),
        "front": str(paths.front),
        "pages": [str(path) for path in paths.pages],
        "notebooks": [str(path) for path in paths.notebooks],
        "markdown": str(paths.markdown),
        "data": [str(path) for path in paths.data],
        "figures": [str(path) for path in paths.figures],
        "simulated": paths.simulated,
    }


_IMPORT_EPILOG = """\b
Examples:
  tautools adopt results/tool-calling-gpt-4o-0.0_range_0--1_user-gpt-4o-llm_0512093000.json
  tautools adopt old/*.json.gz --env airline --model Qwen/Qwen3-4B --user-model Qwen/Qwen3-32B --dry-run
  tautools adopt ~/tau2-bench/data/simulations/            a folder, with all below it
  tautools adopt logs/2026-03-08T20-20-46_tau2-airline.eval
  tautools adopt run.json --bench tau-bench --path ~/tau-bench --env retail --strategy act --model M \\
      --user-model U --num-trials 5 --comparable           into the setting of `tautools run` with the same flags
\b
Exit codes: 0 nothing is pending, 2 bad input and nothing imported, 3 imported and work is still pending.
"""


@click.command("adopt", epilog=_IMPORT_EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER…", type=click.Path(path_type=Path))
@click.option(
    "--comparable",
    is_flag=True,
    help="They are comparable with conversations held here under the same flags, and enter their setting.",
)
@run_options
@set_option
@click.option("--dry-run", is_flag=True, help="Print what would be imported; write nothing.")
@new_workspace_option
@json_option
@guard
def import_command(
    paths: tuple[Path, ...],
    overrides: tuple[str, ...],
    workspace: Path,
    *,
    comparable: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Adopt results of tau-bench, tau2-bench, inspect's tau2, or num_trials files of tautools.

    Files may be gzipped, joined end to end, torn, with rows twice. Every row is judged before anything is written: the
    first that was finished of each task and trial is kept; faults are never scored 0 but pending. What a file does not
    tell (its models, its env) is told by the flags of `tautools run`. Without --comparable the rows form a setting of
    their own, which `tautools run --source imported:…` can complete.
    """
    from tautools.importers import ImportRequest, import_results

    request = ImportRequest(workspace, run_flags(options), overrides, comparable)
    result = import_results([path.expanduser() for path in paths], request, dry_run=dry_run)
    click.echo(json.dumps(result.as_dict(), indent=1, ensure_ascii=False) if as_json else str(result))
    if result.pending:
        raise SystemExit(EXIT_UNFINISHED)


_EXPORT_EPILOG = """\b
Examples:
  tautools export                    every setting, each beside its results
  tautools export --env airline --model 4B --out airline_4B.json
  tautools export results/airline/fc/4B --format tau-bench --num-trials 4
\b
Files of --format tau2 are for tau2-bench's own viewer and metrics.
"""


@click.command("export", epilog=_EXPORT_EPILOG)
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
def export_command(
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
    from tautools.run.exporters import ExportFormat, export
    from tautools.run.show import choose_folders, folder_at

    folders = [folder_at(folder)] if folder else choose_folders(workspace, **wanted)
    _check_exportable(folders, out)
    written = [export(each, ExportFormat(kind), out=out, num_trials=num_trials) for each in folders]
    if as_json:
        click.echo(json.dumps([asdict(each) | {"path": str(each.path)} for each in written], indent=1))
        return
    for each in written:
        click.echo(_export_line(each))


def _check_exportable(folders: list[SettingFolder], out: Path | None) -> None:
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


def _export_line(each: ExportedFile) -> str:
    marked = " [SIMULATED]" if each.simulated else ""
    failed = f"; {each.user_errors} ended in a user_error, which tau2-bench's metrics count as 0" * bool(
        each.user_errors
    )
    return f"{each.path}: {each.conversations} conversations{marked}{failed}"
