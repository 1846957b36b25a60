"""The benchmark that stored results were made with, opened again.

A checkout is looked for where it was then; when it is gone from there, where one is named or installed now.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tautools.bench import open_source
from tautools.errors import BenchError

if TYPE_CHECKING:
    from tautools.bench.types import Domain, Task
    from tautools.run.folder import SettingFolder

__all__ = ["domain_of", "task_of"]


def domain_of(folder: SettingFolder) -> Domain:
    """Return the env of a folder of results, from where it was loaded then.

    Raises
    ------
    BenchError
        When it is not there any more.
    """
    setting, then = folder.setting, folder.provenance.get("benchmark") or {}
    path, python = (str(then[name]) if name in then else None for name in ("path", "python"))
    if path is not None and not Path(path).is_dir():
        path = python = None
    return open_source(setting.bench, setting.source, path, python).domain(setting.env, setting.split)


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
