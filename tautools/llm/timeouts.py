"""How long an answer may take, and the watch over one that is arriving."""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tautools.errors import CallFault, ModelCallError


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
