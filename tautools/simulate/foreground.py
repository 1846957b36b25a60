"""Run a simulated server until it is told to end."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.simulate.server import SimulatedServer

__all__ = ["run_until_told"]

_SWITCH_S = 0.0005
"""How long a thread may keep the interpreter while tasks are loaded [s]; with Python's own 5 ms, probes crawl."""


def run_until_told(server: SimulatedServer, on_start: Callable[[SimulatedServer], None]) -> None:
    """Serve until SIGTERM or SIGINT, then end cleanly.

    Parameters
    ----------
    server : SimulatedServer
        Not started yet.
    on_start : callable
        Called once it answers, with its port known.

    Raises
    ------
    ServerError
        When the address cannot be bound.
    """
    asyncio.run(_serve(server, on_start))


async def _serve(server: SimulatedServer, on_start: Callable[[SimulatedServer], None]) -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with server:
        on_start(server)
        warming = asyncio.create_task(_warm(server))
        await told.wait()
        warming.cancel()


async def _warm(server: SimulatedServer) -> None:
    """Load the tasks while serving; the thread that loads must not keep requests waiting for the interpreter."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_S)
    try:
        await server.chat.brain.library.warm()
    finally:
        sys.setswitchinterval(usual)
