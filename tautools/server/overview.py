"""All servers of a workspace at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from tautools.server.handle import Server
from tautools.server.on_slurm.state import ask_jobs
from tautools.server.registry import Registry
from tautools.server.state import server_state

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.records import ServerRecord
    from tautools.server.states import Snapshot

__all__ = ["open_server", "server_states"]


def open_server(name: str, *, workspace: Path) -> Server:
    """Return the handle of a registered server.

    Raises
    ------
    ServerError
        When no server of that name is known.
    """
    return Server(Registry(workspace).get(name), workspace=workspace)


def server_states(workspace: Path) -> list[tuple[ServerRecord, Snapshot]]:
    """Return every registered server with its state now; they are asked side by side, so one that hangs delays none."""
    from tautools.http import Http

    records = Registry(workspace).list()
    if not records:
        return []
    ask = partial(server_state, workspace=workspace, http=Http(), jobs=ask_jobs(records))
    with ThreadPoolExecutor(max_workers=min(32, len(records))) as pool:
        return list(zip(records, pool.map(ask, records), strict=True))
