"""Servers that somebody else started: known by their address, verified like any other, never ended by us."""

from __future__ import annotations

import getpass
import time
from typing import TYPE_CHECKING

from tautools.errors import ServerError, VerifyError
from tautools.files import write_atomic
from tautools.records import ServerRecord
from tautools.servers.backends.base import Backend, name_taken
from tautools.servers.checks.target import ask_models
from tautools.servers.registry import check_name
from tautools.servers.state import Snapshot, State

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from tautools.servers.backends.base import LaunchRequest, Look
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


def register(name: str, base_url: str, registry: Registry, *, model: str, key: str, group: str) -> ServerRecord:
    """Write down a running server that is not verified yet; see `attach`."""
    key_file = registry.folder.resolve() / f"{name}.key"
    record = ServerRecord(
        name=name,
        backend="attached",
        engine="attached",
        model=model,
        base_url=base_url,
        key_file=str(key_file) if key else "",
        spec={"name": check_name(group)} if group else {},
        started_at=time.time(),
        owner=getpass.getuser(),
    )
    with registry.claim():
        require_new(name, registry)
        if key:
            write_atomic(key_file, key + "\n", mode=0o600)
        registry.add(record)
    return record


def require_new(name: str, registry: Registry) -> None:
    """Raise a ServerError when a server of that name is registered."""
    known = registry.find(name)
    if known is not None:
        raise name_taken(known, "is registered already", known.base_url, "Forget")


def first_model(base_url: str, key: str) -> str:
    """Return the first model that a server lists; raise a VerifyError when it lists none."""
    answer = ask_models(base_url, key=key)
    if not answer.names:
        refused = answer.status in {401, 403}
        raise VerifyError(
            f"{base_url} does not list its models.",
            evidence=answer.detail or f"/v1/models answers {answer.status}",
            next_step="Name the variable that holds its key with --key-env."
            if refused
            else "Check the address, and that the server runs.",
        )
    return answer.names[0]
