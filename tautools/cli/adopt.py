"""`tautools adopt`: results of other programs become results of this workspace; what they lack becomes owed work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tautools.cli.errors import EXIT_UNFINISHED, guard
from tautools.cli.options import json_option, new_workspace_option, run_flags, run_options, set_option

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools adopt results/tool-calling-gpt-4o-0.0_range_0--1_user-gpt-4o-llm_0512093000.json
  tautools adopt old/*.json.gz --env airline --model Qwen/Qwen3-4B --user-model Qwen/Qwen3-32B --dry-run
  tautools adopt ~/tau2-bench/data/simulations/            a folder, with all below it
  tautools adopt logs/2026-03-08T20-20-46_tau2-airline.eval
  tautools adopt run.json --bench tau-bench --path ~/tau-bench --env retail --strategy act --model M \\
      --user-model U --num-trials 5 --comparable           into the setting of `tautools run` with the same flags
\b
Exit codes: 0 nothing is owed, 2 bad input and nothing adopted, 3 adopted and work is still owed.
"""


@click.command("adopt", epilog=_EPILOG)
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER…", type=click.Path(path_type=Path))
@click.option(
    "--comparable",
    is_flag=True,
    help="They are comparable with conversations held here under the same flags, and enter their setting.",
)
@run_options
@set_option
@click.option("--dry-run", is_flag=True, help="Print what would be adopted; write nothing.")
@new_workspace_option
@json_option
@guard
def command(
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
    first that was finished of each task and trial is kept; faults are never scored 0 but owed. What a file does not
    tell (its models, its env) is told by the flags of `tautools run`. Without --comparable the rows form a setting of
    their own, which `tautools run --source adopted:…` can complete.
    """
    from tautools.adopt import Wish, adopt
    from tautools.adopt.tell import as_json as told_as_json
    from tautools.adopt.tell import in_words

    wish = Wish(workspace, run_flags(options), overrides, comparable)
    adoption = adopt([path.expanduser() for path in paths], wish, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(told_as_json(adoption, dry_run=dry_run), indent=1, ensure_ascii=False))
    else:
        click.echo(in_words(adoption, dry_run=dry_run))
    if adoption.owed:
        raise SystemExit(EXIT_UNFINISHED)
