"""The benchmark's tasks, loaded when the first request names one and kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tautools.errors import BenchError
from tautools.simulate.requests import ApiError

if TYPE_CHECKING:
    from tautools.bench.types import Domain, Task
    from tautools.simulate.requests import TaskField

__all__ = ["Library"]


class Library:
    """Finds the task that a request names."""

    def __init__(self) -> None:
        self._domains: dict[tuple[str, str, str], Domain] = {}
        self._loading = asyncio.Lock()

    async def find(self, field: TaskField) -> tuple[Domain, Task]:
        """Return the env and the task that `field` names, loading the env once, off the event loop.

        Raises
        ------
        ApiError
            400 when there is no such bench, env, split or task.
        """
        place = (field.bench, field.env, field.split)
        if place not in self._domains:
            async with self._loading:
                if place not in self._domains:
                    self._domains[place] = await asyncio.to_thread(_load, *place)
        domain = self._domains[place]
        task = domain.tasks.get(field.task_id)
        if task is None:
            raise ApiError(400, f"tautools_task: there is no task {field.task_id!r} in {field.env}.",
                           param="tautools_task")  # fmt: skip
        return domain, task


def _load(bench: str, env: str, split: str) -> Domain:
    from tautools.bench import open_source

    try:
        return open_source(bench).domain(env, split or None)
    except BenchError as error:
        raise ApiError(400, f"tautools_task: {error.problem}", param="tautools_task") from error
