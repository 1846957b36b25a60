"""A server that outlives its job: a successor starts before the time limit and takes over the name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.errors import ServerError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers.backends.slurm import launch_job
from tautools.servers.registry import Registry
from tautools.servers.server import Server, open_server
from tautools.servers.state import Snapshot, State
from tautools.slurm import Slurm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tautools.records import ServerRecord


def hand_over(
    name: str,
    *,
    workspace: Path,
    lead_s: float = 1800.0,
    on_progress: Callable[[Snapshot], None] | None = None,
) -> Server:
    """Start a server's successor in time, wait until it is proven, give it the name, and end the old job.

    Parameters
    ----------
    name : str
        A ready server on Slurm. Its successor is `<name>.next` until it takes over.
    workspace : Path
        Where it is registered.
    lead_s : float
        How long before the old job's time limit the successor may begin [s]; queue and model must fit into it.
    on_progress : callable, optional
        Told each new state of the successor.

    Returns
    -------
    Server
        The successor, under the logical name.

    Raises
    ------
    ServerError
        When the server is not a ready job with a time limit.
    NotReadyError, VerifyError
        When the successor does not come up; the old server is as it was.
    """
    registry = Registry(workspace)
    old = registry.get(name)
    left_s = _left(old, open_server(name, workspace=workspace).state())
    heir = registry.find(f"{name}.next")
    if heir is not None and not Server(heir, workspace=workspace).state().state.final:
        successor = Server(heir, workspace=workspace)  # of a hand-over that was interrupted
    else:
        params, site = ServerParams.model_validate(old.spec), SiteParams.model_validate(old.site)
        begin_in_s = max(0, round(left_s - lead_s))
        successor = launch_job(params, workspace=workspace, site=site, name=f"{name}.next", begin_in_s=begin_in_s)
    successor.wait_ready(on_progress=on_progress)
    with registry.claim():
        if not registry.is_current(old):
            raise ServerError(
                f"Server {name!r} was stopped or replaced while its successor started.",
                next_step=f"Use the successor {name}.next, or stop it with `tautools server stop {name}.next`.",
            )
        registry.take_over(old, successor.record)
    Slurm().cancel(old.job_id)
    return open_server(name, workspace=workspace)


def _left(record: ServerRecord, seen: Snapshot) -> float:
    """Return the seconds until the job's time limit."""
    if record.backend != "slurm" or seen.state is not State.READY:
        raise ServerError(
            f"Server {record.name!r} cannot be handed over: it is {seen.state.value} and "
            f"{'a job of Slurm' if record.backend == 'slurm' else 'no job of Slurm'}.",
            next_step=f"Start it with `tautools server up {record.spec.get('name', record.name)} --site SITE`.",
        )
    if record.shares_job:
        raise ServerError(
            f"Server {record.name!r} shares job {record.job_id} with others, which a successor could not end alone.",
            next_step="Start servers that shall be handed over without --one-job.",
        )
    left_s = Slurm().time_left(record.job_id)
    if left_s is None:
        raise ServerError(
            f"Job {record.job_id} of server {record.name!r} has no time limit, so it needs no successor.",
            next_step=f"Look at it with `scontrol show job {record.job_id}`.",
        )
    return left_s
