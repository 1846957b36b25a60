"""The benchmark's tasks: loaded beside the serving, when the first request names one or before, and kept.

Loading takes seconds, most of them for importing the benchmark's package, so it never happens on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

from tautools.errors import TautoolsError
from tautools.simulate.requests import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import Domain, Task
    from tautools.simulate.requests import TaskField

__all__ = ["USUAL_ENVS", "Library", "Place"]

_log = logging.getLogger(__name__)


class Place(NamedTuple):
    """One env and the place that it is loaded from; what is empty is as usual."""

    bench: str
    env: str
    split: str = ""
    source: str = ""
    path: str = ""
    python: str = ""


USUAL_ENVS = (Place("tau2", "retail"), Place("tau2", "airline"), Place("tau2", "telecom"))
"""What most runs ask for."""


class Library:
    """Finds the task that a request names."""

    def __init__(self) -> None:
        self._loads: dict[Place, asyncio.Task[Domain]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def find(self, field: TaskField) -> tuple[Domain, Task]:
        """Return the env and the task that `field` names, loading the env once.

        Raises
        ------
        ApiError
            400 when there is no such bench, env, split or task.
        """
        try:
            domain = await self._domain(
                Place(field.bench, field.env, field.split, field.source, field.path, field.python)
            )
        except TautoolsError as error:
            raise ApiError(400, f"tautools_task: {error.problem}", param="tautools_task") from error
        task = domain.tasks.get(field.task_id)
        if task is None:
            told = f"tautools_task: there is no task {field.task_id!r} in {field.env}."
            raise ApiError(400, told, param="tautools_task")
        return domain, task

    async def warm(self, places: Sequence[Place] = USUAL_ENVS) -> None:
        """Load envs before they are asked for; what cannot be loaded is told in the log."""
        for place in places:
            try:
                await self._domain(place)
            except TautoolsError as error:
                _log.warning("%s cannot be loaded: %s", place.env, error)

    async def _domain(self, place: Place) -> Domain:
        if place not in self._loads:
            self._loads[place] = asyncio.create_task(self._load(place))
        try:
            # A client that goes away must not break off what others wait for.
            return await asyncio.shield(self._loads[place])
        except TautoolsError:
            self._loads.pop(place, None)
            raise

    async def _load(self, place: Place) -> Domain:
        async with self._one_at_a_time:
            return await _load_beside(place)


async def _load_beside(place: Place) -> Domain:
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
            domain = _load(place)
        except Exception as error:  # noqa: BLE001 - handed over to the coroutine that waits
            fault = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, domain, fault)

    threading.Thread(target=work, name=f"load {place.env}", daemon=True).start()
    return await loaded


def _load(place: Place) -> Domain:
    from tautools.bench import open_source

    source = open_source(place.bench, place.source or None, place.path or None, place.python or None)
    return source.domain(place.env, place.split or None)
