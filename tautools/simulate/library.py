"""The benchmark's tasks: loaded beside the serving, when the first request names one or before, and kept.

Loading takes seconds, most of them for importing the benchmark's package, so it never happens on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.simulate.requests import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import Domain, Task
    from tautools.simulate.requests import TaskField

__all__ = ["USUAL_ENVS", "Library"]

_log = logging.getLogger(__name__)

USUAL_ENVS = (("tau2", "retail", ""), ("tau2", "airline", ""))
"""Bench, env and split (the default one) of what most runs ask for."""


class Library:
    """Finds the task that a request names."""

    def __init__(self) -> None:
        self._loads: dict[tuple[str, str, str], asyncio.Task[Domain]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def find(self, field: TaskField) -> tuple[Domain, Task]:
        """Return the env and the task that `field` names, loading the env once.

        Raises
        ------
        ApiError
            400 when there is no such bench, env, split or task.
        """
        try:
            domain = await self._domain((field.bench, field.env, field.split))
        except TautoolsError as error:
            raise ApiError(400, f"tautools_task: {error.problem}", param="tautools_task") from error
        task = domain.tasks.get(field.task_id)
        if task is None:
            told = f"tautools_task: there is no task {field.task_id!r} in {field.env}."
            raise ApiError(400, told, param="tautools_task")
        return domain, task

    async def warm(self, places: Sequence[tuple[str, str, str]] = USUAL_ENVS) -> None:
        """Load envs before they are asked for; what cannot be loaded is told in the log."""
        for place in places:
            try:
                await self._domain(place)
            except TautoolsError as error:
                _log.warning("%s cannot be loaded: %s", place[1], error)

    async def _domain(self, place: tuple[str, str, str]) -> Domain:
        if place not in self._loads:
            self._loads[place] = asyncio.create_task(self._load(place))
        try:
            # A client that goes away must not break off what others wait for.
            return await asyncio.shield(self._loads[place])
        except TautoolsError:
            self._loads.pop(place, None)
            raise

    async def _load(self, place: tuple[str, str, str]) -> Domain:
        async with self._one_at_a_time:
            return await _load_beside(place)


async def _load_beside(place: tuple[str, str, str]) -> Domain:
    """Load an env in a thread that nobody waits for when the server is told to end."""
    loop = asyncio.get_running_loop()
    loaded: asyncio.Future[Domain] = loop.create_future()

    def settle(domain: Domain | None, error: Exception | None) -> None:
        if loaded.done():
            return
        if domain is not None:
            loaded.set_result(domain)
        elif error is not None:
            loaded.set_exception(error)

    def work() -> None:
        domain, fault = None, None
        try:
            domain = _load(*place)
        except Exception as error:  # noqa: BLE001 - handed over to the coroutine that waits
            fault = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, domain, fault)

    threading.Thread(target=work, name=f"load {place[1]}", daemon=True).start()
    return await loaded


def _load(bench: str, env: str, split: str) -> Domain:
    from tautools.bench import open_source

    return open_source(bench).domain(env, split or None)
