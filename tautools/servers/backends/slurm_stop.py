"""End a server that is a job of Slurm, or one of several servers in a job."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tautools.errors import ServerError
from tautools.files import write_atomic
from tautools.slurm import Slurm

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.records import ServerRecord
    from tautools.servers.registry import Registry


_STOP_TIMEOUT_S = 120.0
"""The job looks once a second and sends SIGKILL after 20 looks; a shared disk may show the note late."""

_ASK_EVERY_S = 2.0


def stop_job(record: ServerRecord, registry: Registry, tell: Callable[[str], None]) -> None:
    """Cancel the server's job and return when nothing of it runs; errors as of `Slurm.cancel`."""
    del registry
    tell(f"scancel {record.job_id}")
    Slurm().cancel(record.job_id)


def stop_one_of(record: ServerRecord, registry: Registry, tell: Callable[[str], None]) -> None:
    """Ask the server's job to end this one, and return when nothing of it runs; the others go on.

    Raises
    ------
    ServerError
        When the job does not do so in time.
    """
    note = registry.stop_note(record.name)
    tell(f"asking job {record.job_id} to end it; the job goes on with its other servers")
    write_atomic(note, record.alias, mode=0o600)
    began = asked_at = time.monotonic()
    while note.exists():
        now = time.monotonic()
        if now - asked_at > _ASK_EVERY_S:
            asked_at = now
            job = Slurm().jobs([record.job_id]).get(record.job_id)
            if job is None or job.state.ended:
                return
            if now - began > _STOP_TIMEOUT_S:
                note.unlink(missing_ok=True)
                raise ServerError(
                    f"Job {record.job_id} did not end its server {record.name!r} within {_STOP_TIMEOUT_S:g} s.",
                    next_step=f"`scancel {record.job_id}` ends it with all servers of the job.",
                )
        time.sleep(0.1)
