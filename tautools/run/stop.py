"""How a run is asked to stop: once for a graceful end, twice for an end at once.

A run works in a thread with an event loop of its own, so it can be stopped alike from a terminal, from a notebook's
kernel (whose own event loop may be running) and from a thread that no signal reaches.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Stop", "catching_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """A request to stop, made from any thread or signal handler and awaited in the run's event loop."""

    def __init__(self) -> None:
        self.requests = 0
        """0: go on; 1: start nothing new, let what runs finish within the grace; 2 and more: end at once."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: asyncio.Event | None = None

    @property
    def asked(self) -> bool:
        """Whether anybody asked."""
        return self.requests > 0

    def request(self) -> None:
        """Ask to stop; asking again ends at once."""
        self.requests += 1
        if self._loop is not None and self._changed is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nothing left to stop
                self._loop.call_soon_threadsafe(self._changed.set)

    def attach(self) -> None:
        """Bind to the running event loop."""
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self.asked:
            self._changed.set()

    async def wait(self) -> None:
        """Return at the next request that was not awaited yet."""
        if self._changed is None:
            raise RuntimeError("attach() comes before wait()")
        await self._changed.wait()
        self._changed.clear()


@contextlib.contextmanager
def catching_signals(stop: Stop) -> Iterator[None]:
    """Turn SIGINT and SIGTERM into requests while the block runs; no signal reaches any thread but the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(_number: int, _frame: Any) -> None:
        stop.request()

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that was not set from Python and cannot be put back from here.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
