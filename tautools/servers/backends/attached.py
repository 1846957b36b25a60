"""Servers that somebody else started: known by their address, verified like any other, never ended by us."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.errors import ServerError
from tautools.servers.backends import Backend, name_taken
from tautools.servers.state import Snapshot, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from tautools.records import ServerRecord
    from tautools.servers.backends import Look
    from tautools.servers.placement import LaunchRequest
    from tautools.servers.registry import Registry


class AttachedBackend(Backend):
    """Running servers of which only the address is known."""

    owns = False
    unfit = {  # noqa: RUF012 - the protocol declares it a class variable
        "logs": "its log is where it was started",
        "restart": "it was not started from here",
    }

    def check(self, request: LaunchRequest, registry: Registry) -> NoReturn:
        """Refuse: an attached server is started by somebody else."""
        raise ServerError(
            f"Server {request.name!r} is attached, so it cannot be started from here.",
            next_step=f"Start it where it runs, then `tautools server attach {request.name} URL`.",
        )

    start = check

    def refuse_running(self, record: ServerRecord, registry: Registry) -> None:
        """Raise: whether it runs does not matter, its name is taken until it is detached."""
        raise name_taken(record, "is attached in this workspace", record.base_url, "Forget")

    def poll(self, record: ServerRecord, look: Look) -> Snapshot:
        """Ask the address; nothing else of it can be seen."""
        answer, snapshot = look.ask(record)
        detail = f"Its address does not answer: {answer.detail}"
        return snapshot or Snapshot(State.UNKNOWN, detail, next_step=self.start_again(record))

    def stop(self, record: ServerRecord, registry: Registry, emit: Callable[[str], None], *, term_s: float) -> None:
        """Do nothing: the caller forgets it, and its process goes on."""

    def start_again(self, record: ServerRecord) -> str:
        """Return where it must be started, and how it is forgotten here."""
        return (
            f"Start it again where it was started, at {record.base_url}; `tautools server stop {record.name}` forgets "
            "it here."
        )
