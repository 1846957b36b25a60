"""`tautools adopt`: results of other programs become results of this workspace; what they lack becomes owed work."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import EXIT_UNFINISHED, guard
from tautools.cli.options import json_option, new_workspace_option, run_flags, run_options, set_option

if TYPE_CHECKING:
    from tautools.adopt import Adoption
    from tautools.adopt.plan import Group
    from tautools.params.models import RunParams

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
    from tautools.adopt import carry_out, plan_adoption, read_files
    from tautools.adopt.settle import Wish

    files, refused = read_files([path.expanduser() for path in paths])
    adoption = plan_adoption(files, Wish(workspace, run_flags(options), overrides, comparable), refused)
    if not dry_run:
        carry_out(adoption, workspace)
    if as_json:
        click.echo(json.dumps(_as_json(adoption, dry_run=dry_run), indent=1, ensure_ascii=False))
    else:
        _print(adoption, dry_run=dry_run)
    if adoption.owed:
        raise SystemExit(EXIT_UNFINISHED)


def _print(adoption: Adoption, *, dry_run: bool) -> None:
    from tautools.adopt import Fate

    for file, fates in adoption.fates.items():
        rows = ", ".join(f"{fates[fate]} {fate.value}" for fate in Fate if fates[fate])
        unit = "simulations" if file.format == "tau2-bench" else "rows"
        click.echo(
            f"{file.path.name} ({file.format}): {len(file.rows)} {unit}{f': {rows}' if rows else ', nothing to adopt'}"
        )
        for note in file.notes:
            click.echo(f"  {note}")
        for why, count in adoption.reasons[file].most_common(4):
            click.echo(f"  {count} x {why}")
    for path, error in adoption.refused.items():
        click.echo(f"{path.name}: refused. {error.evidence.splitlines()[0]}")
    for group in adoption.groups:
        click.echo("")
        _print_group(group, dry_run=dry_run)


def _print_group(group: Group, *, dry_run: bool) -> None:
    setting = group.setting
    marked = " [SIMULATED]" if setting.simulated else ""
    verb = "would be adopted" if dry_run else "adopted"
    click.echo(
        f"{setting.env} {setting.strategy.value} {setting.agent.model}{marked}, user {setting.user.model}: "
        f"{len(group.kept)} {verb}, {len(group.known)} there before, {group.owed} owed of {group.planned}"
    )
    if group.changed_tasks:
        click.echo(f"  {group.changed_tasks} of tasks whose reference is another one in the benchmark at hand")
    if group.settled.why_unchecked:
        click.echo(f"  Task ids were not checked, owed counts the tasks seen: {group.settled.why_unchecked}")
    click.echo(f"  results in {group.folder} (setting {setting.id}, source {setting.source})")
    if group.owed and group.settled.run is not None:
        click.echo(f"  Hold the rest: {_run_line(group, group.settled.run)}")


def _run_line(group: Group, run: RunParams) -> str:
    """Return the command that goes on with a setting."""
    setting = group.setting
    source = setting.source if setting.source.startswith("adopted:") else run.source
    words = {
        "--bench": run.bench if run.bench != "tau2" else None,
        "--source": source,
        "--path": run.path,
        "--env": setting.env,
        "--split": run.tasks.split,
        "--strategy": setting.strategy.value,
        "--user-strategy": None if setting.user_strategy.value == "llm" else setting.user_strategy.value,
        "--model": run.agent.model,
        "--server": run.agent.server,
        "--temperature": run.agent.temperature,
        "--user-model": run.user.model,
        "--user-server": run.user.server,
        "--user-temperature": run.user.temperature,
        "--num-trials": group.num_trials,
    }
    given = [word for name, value in words.items() if value is not None for word in (name, f"{value}")]
    for part, role in (("agent", run.agent), ("user", run.user)):
        rest = role.sampling.model_dump(exclude_defaults=True, exclude={"temperature"})
        given += [word for name, value in rest.items() for word in ("--set", f"{part}.{name}={json.dumps(value)}")]
    return shlex.join(["tautools", "run", *given])


def _as_json(adoption: Adoption, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "adopted": adoption.kept,
        "owed": adoption.owed,
        "files": [
            {
                "file": str(file.path),
                "sha256": file.sha256,
                "format": file.format,
                "rows": len(file.rows),
                "fates": {fate.value: count for fate, count in fates.items()},
                "reasons": dict(adoption.reasons[file]),
                "notes": list(file.notes),
            }
            for file, fates in adoption.fates.items()
        ],
        "refused": [{"file": str(path), "why": error.evidence} for path, error in adoption.refused.items()],
        "settings": [_group_json(group) for group in adoption.groups],
    }


def _group_json(group: Group) -> dict[str, Any]:
    return {
        "setting_id": group.setting.id,
        "setting": group.setting.model_dump(mode="json"),
        "folder": str(group.folder),
        "adopted": len(group.kept),
        "there_before": len(group.known),
        "planned": group.planned,
        "owed": group.owed,
        "tasks_unchecked": group.settled.why_unchecked,
        "run": _run_line(group, group.settled.run) if group.settled.run is not None else None,
    }
