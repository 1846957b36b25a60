"""Which replica answers: a conversation stays where its prefix is cached, a new one goes to the least loaded replica.

A replica that cannot be connected to is marked down, and its conversations move to another one. It is tried again
later, at growing intervals, with the next request. When none is left, the client's `resolve` is asked again.
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
    """The requests in flight at one address, for all roles together."""

    def __init__(self, max_in_flight: int | None) -> None:
        self.in_flight = 0
        self._slots = asyncio.Semaphore(max_in_flight) if max_in_flight else None

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
        self._down_until = 0.0
        self._down_for_s = _DOWN_S

    @property
    def alive(self) -> bool:
        """Whether requests are sent there."""
        return time.monotonic() >= self._down_until

    def mark_down(self) -> None:
        """Send nothing there for a while, longer each time."""
        if self.alive:
            self._down_until = time.monotonic() + self._down_for_s
            self._down_for_s = min(2 * self._down_for_s, _DOWN_AT_MOST_S)

    def mark_up(self) -> None:
        """Send requests there again: the list of endpoints still has it."""
        self._down_until = 0.0

    def reset_backoff(self) -> None:
        """Forget earlier connection failures: it answered."""
        self._down_for_s = _DOWN_S


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
        self._replicas: list[Replica] = []
        self._sticky: dict[str, Replica] = {}
        self._resolving = asyncio.Lock()

    @property
    def has_alive(self) -> bool:
        """Whether there is a replica that is not marked down."""
        return any(replica.alive for replica in self._replicas)

    @contextlib.asynccontextmanager
    async def replica_for(self, conversation: str) -> AsyncIterator[Replica]:
        """Choose a replica for one request and wait for a slot there; it counts as in flight inside the block.

        Raises
        ------
        ModelCallError
            When the role has no endpoint (`UNREACHABLE`).
        """
        while True:
            replica = self._choose(conversation) or await self._resolve_and_choose(conversation)
            async with replica.load.slot():
                if replica.alive:
                    yield replica
                    return

    def _choose(self, conversation: str) -> Replica | None:
        sticky = self._sticky.get(conversation)
        if sticky is not None and sticky.alive and sticky in self._replicas:
            return sticky
        alive = [replica for replica in self._replicas if replica.alive]
        if not alive:
            return None
        replica = min(alive, key=lambda replica: (replica.load.in_flight, replica.conversations))
        if conversation:
            replica.conversations += 1
            self._sticky[conversation] = replica
        return replica

    async def _resolve_and_choose(self, conversation: str) -> Replica:
        async with self._resolving:
            if not self.has_alive:
                self._update(await self._endpoints())
        replica = self._choose(conversation)
        if replica is None:
            raise ModelCallError(
                f"There is no server for the {self._part}.",
                fault=CallFault.UNREACHABLE,
                next_step=NEXT_STEPS[CallFault.UNREACHABLE],
            )
        return replica

    async def _endpoints(self) -> Sequence[Endpoint]:
        try:
            return await asyncio.to_thread(self._resolve, self._part)
        except ModelCallError:
            raise
        except TautoolsError as error:
            raise ModelCallError(
                error.problem, fault=CallFault.UNREACHABLE, evidence=error.evidence, next_step=error.next_step
            ) from error

    def _update(self, endpoints: Sequence[Endpoint]) -> None:
        """Take a new list of endpoints; a replica that is still on it keeps its conversations."""
        known = {replica.endpoint: replica for replica in self._replicas}
        self._replicas = []
        for endpoint in endpoints:
            load = self._loads.setdefault(endpoint.base_url or endpoint.provider, AddressLoad(self._max_in_flight))
            replica = known.get(endpoint) or Replica(endpoint, load)
            replica.mark_up()
            self._replicas.append(replica)
