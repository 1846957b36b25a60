"""What was adopted, and why the rest was not, in words and for programs."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from tautools.adopt.rows import Fate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.adopt.plan import Adoption, Group
    from tautools.adopt.rows import SourceFile
    from tautools.params.models import RunParams

__all__ = ["as_json", "in_words"]

_REASONS = 4
"""The most frequent reasons of a file that are told."""


def in_words(adoption: Adoption, *, dry_run: bool) -> str:
    """Return what becomes of each file's rows, then what each setting has and owes, with the command that goes on."""
    lines = [line for file in adoption.fates for line in _file_lines(adoption, file)]
    lines += [f"{path.name}: refused. {error.evidence.splitlines()[0]}" for path, error in adoption.refused.items()]
    for group in adoption.groups:
        lines += ["", *_group_lines(group, dry_run=dry_run)]
    return "\n".join(lines)


def _file_lines(adoption: Adoption, file: SourceFile) -> Iterator[str]:
    fates = adoption.fates[file]
    rows = ", ".join(f"{fates[fate]} {fate.value}" for fate in Fate if fates[fate])
    unit = "simulations" if file.format == "tau2-bench" else "rows"
    told = f": {rows}" if rows else ", nothing to adopt"
    yield f"{file.path.name} ({file.format}): {len(file.rows)} {unit}{told}"
    yield from (f"  {note}" for note in file.notes)
    yield from (f"  {count} x {why}" for why, count in adoption.reasons[file].most_common(_REASONS))


def _group_lines(group: Group, *, dry_run: bool) -> Iterator[str]:
    setting = group.setting
    marked = " [SIMULATED]" if setting.simulated else ""
    verb = "would be adopted" if dry_run else "adopted"
    yield (
        f"{setting.env} {setting.strategy.value} {setting.agent.model}{marked}, user {setting.user.model}: "
        f"{len(group.kept)} {verb}, {len(group.known)} there before, {group.owed} owed of {group.planned}"
    )
    if group.changed_tasks:
        yield f"  {group.changed_tasks} of tasks whose reference is another one in the benchmark at hand"
    if group.settled.why_unchecked:
        yield f"  Task ids were not checked, owed counts the tasks seen: {group.settled.why_unchecked}"
    yield f"  results in {group.folder} (setting {setting.id}, source {setting.source})"
    if group.owed and group.settled.run is not None:
        yield f"  Hold the rest: {_run_line(group, group.settled.run)}"


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


def as_json(adoption: Adoption, *, dry_run: bool) -> dict[str, Any]:
    """Return the same as JSON can hold it."""
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
