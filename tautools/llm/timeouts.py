"""Time limits for an answer, and the retry policy."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from tautools.errors import CallFault, ModelCallError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait [s]; the defaults allow for a queue of long prompts on a busy server."""

    connect_s: float = 10.0
    first_token_s: float = 600.0
    """From sending the request to the first token."""
    idle_s: float = 120.0
    """Between two chunks."""
    total_s: float = 1800.0
    """From sending the request to the end of the answer."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a request is made, and the waits between: doubling, with jitter, never shorter than the server asks."""

    attempts: int = 5
    """Requests in all, the first one included."""
    first_wait_s: float = 1.0
    most_wait_s: float = 30.0
    """Longest wait of our own back-off."""
    most_asked_wait_s: float = 120.0
    """Longest wait that a server's `Retry-After` may ask for."""
    jitter: float = 0.25
    """A wait is longer by up to this share of itself, drawn at random."""

    def wait_s(self, attempt: int, error: ModelCallError, draw: Callable[[], float] = random.random) -> float:
        """Return the seconds to wait after attempt number `attempt` (from 0) ended with `error`."""
        own = min(self.most_wait_s, self.first_wait_s * 2.0**attempt) * (1 + self.jitter * draw())
        return max(own, min(error.retry_after_s or 0.0, self.most_asked_wait_s))


class StreamTimeouts:
    """Enforces `Timeouts` on one answer, as an async context manager around it.

    Every chunk only notes when it came (`touch`); one timer of the event loop checks now and then, so that a chunk
    costs next to nothing.

    Raises
    ------
    ModelCallError
        `TIME_OUT`, naming which of the limits was passed.
    """

    def __init__(self, timeouts: Timeouts, what: str) -> None:
        self._timeouts = timeouts
        self._what = what
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._started = self._loop.time()
        self._last: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._problem = ""

    def touch(self) -> None:
        """Note that data came after the first token."""
        first = self._last is None
        self._last = self._loop.time()
        if first:  # from here on another limit counts, which may end sooner than the one the timer waits for
            self._check_limits()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._check_limits()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            next_step = "See whether the server is overloaded or stuck; the limits are in tautools.llm.Timeouts."
            raise ModelCallError(self._problem, fault=CallFault.TIME_OUT, next_step=next_step) from None

    def _check_limits(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due, self._problem = self._due()
        if due <= self._loop.time():
            self._scope.reschedule(due)
        else:
            self._timer = self._loop.call_at(due, self._check_limits)

    def _due(self) -> tuple[float, str]:
        limits = self._timeouts
        total = self._started + limits.total_s, f"{self._what} did not finish within {limits.total_s:g} s."
        if self._last is None:
            first = self._started + limits.first_token_s
            return min(total, (first, f"{self._what} gave no first token within {limits.first_token_s:g} s."))
        idle = self._last + limits.idle_s
        return min(total, (idle, f"{self._what} fell silent in mid-answer for {limits.idle_s:g} s."))
