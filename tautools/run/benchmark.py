"""The benchmark that stored results were made with, opened again.

A checkout is looked for where it was then; when it is gone from there, where one is named or installed now.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tautools.bench import open_source
from tautools.errors import BenchError, NotHereError
from tautools.run.folder import results_of

if TYPE_CHECKING:
    from tautools.bench.types import Domain, Source, Task
    from tautools.params.models import RunParams
    from tautools.run.folder import SettingFolder

__all__ = ["domain_of", "open_as_run", "task_of"]


def open_as_run(run: RunParams, workspace: Path) -> Source:
    """Return the benchmark of a run whose results are only looked at: where it says, else where any of them were made.

    Raises
    ------
    BenchError
        When it is in neither place.
    """
    try:
        return open_source(run.bench, run.source, run.path, run.python)
    except NotHereError:
        for folder in results_of(workspace):
            place = _place_of(folder)
            if folder.setting.bench == run.bench and "path" in place:
                return open_source(run.bench, run.source, **place)
        raise


def domain_of(folder: SettingFolder) -> Domain:
    """Return the env of a folder of results, from where it was loaded then.

    Raises
    ------
    BenchError
        When it is not there any more.
    """
    setting = folder.setting
    return open_source(setting.bench, setting.source, **_place_of(folder)).domain(setting.env, setting.split)


def _place_of(folder: SettingFolder) -> dict[str, str]:
    """Return what is recorded of the place: `path` and `python`, when that path is still there."""
    then = folder.provenance.get("benchmark") or {}
    place = {name: str(then[name]) for name in ("path", "python") if name in then}
    return place if Path(place.get("path", "/")).is_dir() else {}


def task_of(domain: Domain, task_id: str) -> Task:
    """Return a task by its id.

    Raises
    ------
    BenchError
        When the benchmark has no such task any more.
    """
    if task_id not in domain.tasks:
        raise BenchError(
            f"{domain.env} has no task {task_id!r}.",
            evidence=f"Its split {domain.split!r} has {len(domain.tasks)} tasks.",
            next_step="Use the version of the benchmark that the results were made with.",
        )
    return domain.tasks[task_id]
