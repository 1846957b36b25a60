"""Waiting for a token's time, unless the server ends first."""

from __future__ import annotations

import asyncio

__all__ = ["ServerEndingError", "Waiting"]


class ServerEndingError(Exception):
    """The server was told to end while an answer was on its way."""


class Waiting:
    """All waits of a server, so that they can be broken off together."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Future[None]] = set()
        self._ending = False

    def end(self) -> None:
        """Break off all waits, and those still to come."""
        self._ending = True
        for wait in self._waits:
            if not wait.done():
                wait.set_exception(ServerEndingError())

    async def until(self, moment: float) -> None:
        """Wait until the event loop's clock shows `moment` [s].

        Raises
        ------
        ServerEndingError
            When the server is ending.
        """
        if self._ending:
            raise ServerEndingError
        loop = asyncio.get_running_loop()
        if moment <= loop.time():
            return
        wait = loop.create_future()
        timer = loop.call_at(moment, _ring, wait)
        self._waits.add(wait)
        try:
            await wait
        finally:
            timer.cancel()
            self._waits.discard(wait)


def _ring(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)
