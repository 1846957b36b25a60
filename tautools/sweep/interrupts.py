"""Signals during a sweep: an interrupt wherever waiting is long, none where something would be left half started.

Between the start of a process and the line that remembers it an interrupt would leave an orphan, so such places are
shielded: the signal is kept and acts when the shield ends.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Interrupts"]


class Interrupts:
    """Turns SIGINT, SIGTERM, SIGHUP and a stop event into KeyboardInterrupt, at places that can bear it.

    Parameters
    ----------
    stop : threading.Event, optional
        Set by another thread that wants the work to end; looked at by `asked`.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._shields = 0
        self._kept = False

    @property
    def asked(self) -> bool:
        """Whether somebody wants the work to end."""
        return self._kept or self._stop.is_set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Take over the signals while the block runs; outside the main thread, where none arrive, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: a handler that was not set from Python and cannot be put back from here.
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Keep signals back while the block runs; one that came acts at its end, unless an error ends it."""
        self._shields += 1
        try:
            yield
        except BaseException:
            self._kept = False
            raise
        finally:
            self._shields -= 1
        if self._kept and not self._shields:
            self._kept = False
            raise KeyboardInterrupt

    def _on_signal(self, _number: int, _frame: Any) -> None:
        if self._shields:
            self._kept = True
            return
        raise KeyboardInterrupt
