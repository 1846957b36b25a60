"""Where a server runs: as a process of this machine, as a job of Slurm, or somewhere else, attached by its address.

Each backend is a class with the methods of `base.Backend`; it is imported when it is first used.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, cast

from tautools.errors import ServerError

if TYPE_CHECKING:
    from tautools.params.models import SiteParams
    from tautools.records import ServerRecord
    from tautools.servers.backends.base import Backend

_BACKENDS = {"local": "LocalBackend", "slurm": "SlurmBackend", "attached": "AttachedBackend"}


@cache
def backend_named(name: str) -> Backend:
    """Return the backend of a name, as a server's record has it."""
    return cast("Backend", getattr(import_module(f"{__name__}.{name}"), _BACKENDS[name])())


def backend_of(record: ServerRecord) -> Backend:
    """Return the backend that a registered server runs on."""
    return backend_named(record.backend)


def backend_for(site: SiteParams) -> Backend:
    """Return the backend that starts the servers of a site."""
    return backend_named("slurm" if site.uses_slurm else "local")


def require_fit(record: ServerRecord, verb: str) -> None:
    """Raise when a verb makes no sense for a server, such as the log of an attached one.

    Raises
    ------
    ServerError
        With the reason, and how a person gets what was wanted.
    """
    backend = backend_of(record)
    if verb in backend.unfit:
        raise ServerError(
            f"`tautools server {verb}` does not fit server {record.name!r}: it is {record.backend}, "
            f"and {backend.unfit[verb]}.",
            evidence=record.base_url,
            next_step=backend.start_again(record) if verb == "restart" else "Read it on the machine that runs it.",
        )
