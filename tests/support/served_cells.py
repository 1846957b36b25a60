"""Cells against real servers in a thread: a simulated one that counts what it is asked, and one that is scripted."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from scripted_server import Request, Say, ScriptedServer, serve_in_thread

from tautools.params.models import RunParams, SimulateParams
from tautools.simulate import SimulatedServer

__all__ = ["cell_at", "requests_of", "scripted_cell", "simulated_model"]

STOP = "###STOP###"


@contextlib.contextmanager
def simulated_model(*, model: str = "sim-4B", **behaviour: Any) -> Iterator[SimulatedServer]:
    """Run a simulated server that answers at once, in a thread with a loop of its own."""
    server = SimulatedServer(SimulateParams(**({"speed": 0, "skill": 0.5} | behaviour)), model=model)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def requests_of(server: SimulatedServer) -> int:
    """Return how many chat requests the simulated server has taken in."""
    return server.metrics.finished.total() + server.metrics.running


def cell_at(base_url: str, model: str = "sim-4B", **fields: Any) -> RunParams:
    """Return a small cell of retail whose roles are played by the model at one address."""
    role = {"model": model, "base_url": base_url}
    if fields.get("strategy") == "experts":
        fields.setdefault("experts", {"quick": role, "strong": role})
    tasks = {"limit": fields.pop("limit", 2)} | fields.pop("tasks", {})
    return RunParams.model_validate({"env": "retail", "agent": role, "user": role, "tasks": tasks} | fields)


@contextlib.contextmanager
def scripted_cell(
    user: Callable[[Request], Say | str] | Say | str = f"Bye. {STOP}", **fields: Any
) -> Iterator[tuple[ScriptedServer, RunParams]]:
    """Serve a customer that says what a test tells it to, at once `STOP` by itself, and an agent that says Hello.

    Requests of the agent are known by their tools.
    """

    def answer(request: Request) -> Say | str:
        if request.body.get("tools"):
            return "Hello."
        return user(request) if callable(user) else user

    with serve_in_thread(answer, model="scripted-4B") as server:
        yield server, cell_at(server.base_url, "scripted-4B", **fields)
