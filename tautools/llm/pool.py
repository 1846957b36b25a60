"""Which replica answers: a conversation stays where its prefix is cached, a new one goes where least is to do.

A replica to which no connection comes about is left, and its conversations move on. It is tried again after a while, at
growing intervals, with whatever comes by then. When none is left, the door's `resolve` is asked again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from tautools.errors import CallFault, ModelCallError, TautoolsError
from tautools.llm.faults import NEXT_STEPS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tautools.llm.types import Endpoint, Resolve


_DOWN_S = 30.0
_DOWN_AT_MOST_S = 600.0


class AddressLoad:
    """What one address has to do, for all roles together."""

    def __init__(self, most: int | None) -> None:
        self.in_flight = 0
        self._slots = asyncio.Semaphore(most) if most else None

    @contextlib.asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait until one more request may be sent there."""
        self.in_flight += 1
        try:
            async with self._slots or contextlib.nullcontext():
                yield
        finally:
            self.in_flight -= 1


class Replica:
    """One endpoint of a role."""

    def __init__(self, endpoint: Endpoint, load: AddressLoad) -> None:
        self.endpoint = endpoint
        self.load = load
        self.conversations = 0
        self._left_until = 0.0
        self._left_for_s = _DOWN_S

    @property
    def alive(self) -> bool:
        """Whether requests are sent there."""
        return time.monotonic() >= self._left_until

    def leave(self) -> None:
        """Send nothing there for a while, longer each time."""
        if self.alive:
            self._left_until = time.monotonic() + self._left_for_s
            self._left_for_s = min(2 * self._left_for_s, _DOWN_AT_MOST_S)

    def trust(self) -> None:
        """Take it as alive: it answered, or whoever keeps the list says so."""
        self._left_until = 0.0

    def answered(self) -> None:
        """Forget that it was ever dead."""
        self._left_for_s = _DOWN_S


class ReplicaPool:
    """The endpoints of one role.

    Parameters
    ----------
    part : str
        Whose models they are, as `CallTag.part` names it.
    resolve : Resolve
        Gives the role's endpoints; called in a thread, since it may ask the network.
    loads : dict
        Address to its load; shared by the pools of all roles.
    max_in_flight : int, optional
        Requests at a time for one address.
    """

    def __init__(self, part: str, resolve: Resolve, loads: dict[str, AddressLoad], max_in_flight: int | None) -> None:
        self._part = part
        self._resolve = resolve
        self._loads = loads
        self._max_in_flight = max_in_flight
        self._places: list[Replica] = []
        self._homes: dict[str, Replica] = {}
        self._asking = asyncio.Lock()

    @property
    def has_living(self) -> bool:
        """Whether there is a place that is not known to be dead."""
        return any(place.alive for place in self._places)

    @contextlib.asynccontextmanager
    async def seat(self, conversation: str) -> AsyncIterator[Replica]:
        """Choose a place for one request and wait for a slot there; it counts as in flight inside the block.

        Raises
        ------
        ModelCallError
            When the role has no endpoint (`UNREACHABLE`).
        """
        while True:
            place = self._choose(conversation) or await self._choose_anew(conversation)
            async with place.load.slot():
                if place.alive:
                    yield place
                    return

    def _choose(self, conversation: str) -> Replica | None:
        home = self._homes.get(conversation)
        if home is not None and home.alive and home in self._places:
            return home
        living = [place for place in self._places if place.alive]
        if not living:
            return None
        place = min(living, key=lambda place: (place.load.in_flight, place.conversations))
        if conversation:
            place.conversations += 1
            self._homes[conversation] = place
        return place

    async def _choose_anew(self, conversation: str) -> Replica:
        async with self._asking:
            if not self.has_living:
                self._take(await self._ask())
        place = self._choose(conversation)
        if place is None:
            raise ModelCallError(
                f"There is no server for the {self._part}.",
                fault=CallFault.UNREACHABLE,
                next_step=NEXT_STEPS[CallFault.UNREACHABLE],
            )
        return place

    async def _ask(self) -> Sequence[Endpoint]:
        try:
            return await asyncio.to_thread(self._resolve, self._part)
        except ModelCallError:
            raise
        except TautoolsError as error:
            raise ModelCallError(
                error.problem, fault=CallFault.UNREACHABLE, evidence=error.evidence, next_step=error.next_step
            ) from error

    def _take(self, endpoints: Sequence[Endpoint]) -> None:
        """Take a new list of endpoints; a place that is still on it keeps its conversations."""
        known = {place.endpoint: place for place in self._places}
        self._places = [known.get(endpoint) or self._place(endpoint) for endpoint in endpoints]
        for place in self._places:
            place.trust()

    def _place(self, endpoint: Endpoint) -> Replica:
        address = endpoint.base_url or endpoint.provider
        load = self._loads.get(address) or self._loads.setdefault(address, AddressLoad(self._max_in_flight))
        return Replica(endpoint, load)
