"""`tautools report`, `import` and `export`: results of a workspace and of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.commands import EXIT_UNFINISHED, command, exit_if
from tautools.cli.options import (
    ChosenResults,
    ParamsName,
    dry_run_option,
    results_options,
    run_flags,
    run_options,
    set_option,
    usual_options,
)
from tautools.cli.output import NOTHING_RUN, emit
from tautools.errors import ParamsError

if TYPE_CHECKING:
    from tautools.run.exporters import ExportedFile


@command(
    "tautools report",
    "tautools report --sweep demo",
    "tautools report --sweep sol-gaudi-120 --out ~/reports/friday --json",
    name="report",
)
@click.option("--sweep", type=ParamsName("sweeps"), metavar="NAME",
              help="Sweep file by name or path.  [default: everything under results/]")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder to write into.  [default: reports/<sweep>/<time>/ of the workspace]")  # fmt: skip
@usual_options
def report_command(sweep: str | None, out: Path | None, workspace: Path) -> None:
    """Write the reports on scores and latency: HTML pages, Markdown, JSON and figures.

    Executes the notebooks 30_pass_k and 31_latency on the results of a workspace. No model is asked. Exit status 1 when
    there is nothing to report yet.
    """
    from tautools.report import build_reports, how_to_open

    paths = build_reports(workspace=workspace, sweep=sweep, out=out.expanduser() if out else None)
    emit(paths, text=lambda: f"{paths}\n{how_to_open(paths.front)}")


@command(
    "tautools import results/tool-calling-gpt-4o-0.0_range_0--1_user-gpt-4o-llm_0512093000.json",
    "tautools import old/*.json.gz --env airline --model Qwen/Qwen3-4B --user-model Qwen/Qwen3-32B --dry-run",
    "tautools import ~/tau2-bench/data/simulations/            a folder, with all below it",
    "tautools import logs/2026-03-08T20-20-46_tau2-airline.eval",
    "tautools import run.json --bench tau-bench --path ~/tau-bench --env retail --strategy act --model M \\",
    "    --user-model U --num-trials 5 --comparable            into the setting of `tautools run` with the same flags",
    name="import",
    notes="Exit codes: 0 nothing is pending, 2 bad input and nothing imported, 3 imported and some work still pending.",
)
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER…", type=click.Path(path_type=Path))
@click.option("--comparable", is_flag=True,
              help="They are comparable with conversations run here under the same flags, and join their setting.",
              )  # fmt: skip
@run_options(
    "bench", "source", "path", "python", "env", "strategy", "agent.", "user", "persona", "experts", "num_trials",
    "tasks.split", "tasks.limit",
)  # fmt: skip
@set_option
@dry_run_option
@usual_options
def import_command(
    paths: tuple[Path, ...], overrides: tuple[str, ...], workspace: Path, *, comparable: bool, **options: Any
) -> None:
    """Import results of tau-bench, tau2-bench, inspect's tau2, or num_trials files of tautools.

    Files may be gzipped, joined end to end, cut off, with rows twice. Every row is checked before anything is written.
    Of each task and trial the first finished row is kept; a fault is never scored 0 but stays pending. What the files
    do not say (models, env) comes from flags. Without --comparable the rows form a setting of their own, which
    `tautools run --source imported:…` can complete.
    """
    from tautools.importers import ImportRequest, import_results

    request = ImportRequest(workspace, run_flags(options), overrides, comparable)
    result = import_results([path.expanduser() for path in paths], request, dry_run=options["dry_run"])
    emit(result)
    exit_if(result.pending, EXIT_UNFINISHED)


@command(
    "tautools export                    every setting, each next to its results",
    "tautools export --env airline --model 4B --out airline_4B.json",
    "tautools export results/airline/fc/4B --format tau-bench --num-trials 4",
    name="export",
    notes="Files of --format tau2 are for tau2-bench's own viewer and metrics.",
)
@click.option("--format", "kind", type=click.Choice(["tau2", "tau-bench"]), default="tau2", show_default=True,
              help="tau2: tau2-bench's results; tau-bench: v1's list.")  # fmt: skip
@click.option("--num-trials", type=click.IntRange(1), help="Only trials below this.  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), help="The file.  [default: next to the results]")
@results_options
def export_command(chosen: ChosenResults, kind: str, num_trials: int | None, out: Path | None) -> None:
    """Write finished conversations as tau2-bench or tau-bench would have written them: one file for each setting."""
    from tautools.run.exporters import ExportFormat, export

    if not chosen.folders:
        raise ParamsError(
            NOTHING_RUN, next_step="Run a cell with `tautools run`, or choose another workspace with --workspace."
        )
    if out is not None and len(chosen.folders) > 1:
        raise ParamsError(
            f"{len(chosen.folders)} settings do not fit into one file.",
            evidence="\n".join(str(each.path) for each in chosen.folders),
            next_step="Add --env, --strategy and --model, or leave out --out: each is written next to its results.",
        )
    written = [export(each, ExportFormat(kind), out=out, num_trials=num_trials) for each in chosen.folders]
    emit(written, text=lambda: "\n".join(map(_export_line, written)))


def _export_line(exported: ExportedFile) -> str:
    mark = " [SIMULATED]" if exported.simulated else ""
    failed = f"; {exported.user_errors} ended in a user_error, which tau2-bench's metrics count as 0"
    return f"{exported.path}: {exported.conversations} conversations{mark}{failed if exported.user_errors else ''}"
