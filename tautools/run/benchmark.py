"""The benchmark that stored results were made with, opened again."""

from __future__ import annotations

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
    setting = folder.setting
    return open_source(setting.bench, setting.source).domain(setting.env, setting.split)


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
