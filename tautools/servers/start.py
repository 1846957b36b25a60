"""Start servers: one, replicas of a model, several models on one node, or all in one job of Slurm.

Nothing waits here unless a start is staggered: the process runs, its record lies under `servers/launches/`, and the
handle says how far it is. Of many, all start or none: what can be checked is checked before the first start, and a
failed start stops the ones before it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tautools.errors import NotReadyError
from tautools.params.models import SiteParams
from tautools.servers.backends import backend_for, backend_of
from tautools.servers.placement import LaunchRequest, plan_launch, plan_one_job
from tautools.servers.registry import Registry, check_name
from tautools.servers.server import Server
from tautools.servers.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tautools.params.models import ServerParams
    from tautools.records import ServerRecord
    from tautools.servers.state import Snapshot

_WEIGHTS_LOADED_PERCENT = 50
"""Where a log says that the weights are loaded; see `read_startup_stage`."""


def launch(
    params: ServerParams,
    *,
    workspace: Path,
    site: SiteParams | None = None,
    name: str | None = None,
    force: bool = False,
) -> Server:
    """Start a server and return its handle at once.

    Parameters
    ----------
    params : ServerParams
        What to serve and how.
    workspace : Path
        Where it is registered, and where its logs go: `logs/<name>_<time>-<pid>.out` and `errors/….err`.
    site : SiteParams, optional
        Address to bind to, how vLLM is started, environment; this machine's loopback and `vllm serve` by default.
    name : str, optional
        Name in the registry; the one of `params` by default. Several servers of one file need a name each.
    force : bool
        Start on cards that are in use; a job of Slurm looks at its own cards, whatever is given.

    Raises
    ------
    ServerError
        When a server of that name still runs, the asked-for port is taken, an asked-for card is in use, the command is
        not installed, or the model is nowhere.
    ShellError
        When the command cannot be started.
    SlurmError
        When Slurm does not take the job; nothing is left behind then.
    ParamsError
        When the name or a flag cannot be used.
    """
    request, registry = _request(params, site, name, force=force), Registry(workspace)
    _check(request, registry)
    return _start(request, registry)


def check_launch(
    params: ServerParams,
    *,
    workspace: Path,
    site: SiteParams | None = None,
    name: str | None = None,
    force: bool = False,
) -> float | None:
    """Raise what `launch` would raise, as far as it can be known before; return when Slurm expects the job to start.

    No server is started or written down; an environment that is new here is asked which flags its vLLM knows.
    Parameters and errors are those of `launch`; the answer is in seconds since the epoch, where Slurm can say.
    """
    return _check(_request(params, site, name, force=force), Registry(workspace))


def launch_all(
    servers: Sequence[ServerParams],
    *,
    workspace: Path,
    site: SiteParams | None = None,
    gpu_ids: Sequence[int] | None = None,
    force: bool = False,
    emit: Callable[[str], None] = lambda _text: None,
) -> list[Server]:
    """Plan the servers with all their replicas, and start them; returns at once unless they are staggered.

    Parameters
    ----------
    servers : sequence of ServerParams
        In the order of their start.
    workspace, site
        As of `launch`.
    gpu_ids : sequence of int, optional
        Only these cards are used.
    force : bool
        Use cards that are in use.
    emit : callable, optional
        Called with what a staggered start waits for.

    Raises
    ------
    ServerError
        When the layout does not fit the node; nothing is started then.
    NotReadyError
        When a server that the next one waits for failed; those that were started are stopped again.
    """
    registry = Registry(workspace)
    requests = plan_launch(servers, workspace=workspace, site=site, gpu_ids=gpu_ids, force=force).require()
    for request in requests:
        _check(request, registry)
    started: list[Server] = []
    try:
        for request, former in zip(requests, [None, *requests], strict=False):
            if former is not None:
                _stagger(started[-1], former.params, request.name, emit)
            started.append(_start(request, registry))
    except BaseException:
        for server in started:
            server.stop()
        raise
    return started


def launch_one_job(servers: Sequence[ServerParams], *, workspace: Path, site: SiteParams) -> list[Server]:
    """Start the servers with all their replicas in one job of Slurm, on one node; returns at once.

    The job gives out its cards and starts the servers one after the other where they are staggered.

    Parameters
    ----------
    servers : sequence of ServerParams
        In the order of their start.
    workspace, site
        As of `launch`; the site's cores and memory are for each server.

    Raises
    ------
    ServerError
        When the layout does not fit a node; nothing is started then.
    ParamsError
        When the site has no Slurm, or cards are chosen by hand.
    SlurmError
        When Slurm does not take the job; nothing is left behind then.
    """
    from tautools.servers.backends.slurm import submit

    requests = plan_one_job(servers, workspace=workspace, site=site).require_job()
    check_one_job(requests, workspace=workspace)
    registry = Registry(workspace)
    with registry.claim():
        for request in requests:
            _free_name(request.name, registry)
        records = submit(requests, registry)
    return [Server(record, workspace=workspace) for record in records]


def check_one_job(requests: Sequence[LaunchRequest], *, workspace: Path) -> float | None:
    """Raise what `launch_one_job` would raise; return when Slurm expects the job to start [s since the epoch]."""
    from tautools.servers.backends.slurm import check_job

    registry = Registry(workspace)
    for request in requests:
        _refuse_running(request.name, registry)
    return check_job(requests, registry)


def _request(params: ServerParams, site: SiteParams | None, name: str | None, *, force: bool) -> LaunchRequest:
    return LaunchRequest(params, site or SiteParams(name="local"), check_name(name or params.name), force)


def _check(request: LaunchRequest, registry: Registry) -> float | None:
    _refuse_running(request.name, registry)
    return backend_for(request.site).check(request, registry)


def _start(request: LaunchRequest, registry: Registry) -> Server:
    def start() -> ServerRecord:
        with registry.claim():
            _free_name(request.name, registry)
            return backend_for(request.site).start(request, registry)

    again = None if request.params.port is not None else start
    return Server(start(), workspace=registry.workspace, start_again=again)


def _refuse_running(name: str, registry: Registry) -> ServerRecord | None:
    """Return the registered server of a name, which has ended; raise when it may still run."""
    known = registry.find(name)
    if known is not None:
        backend_of(known).refuse_running(known, registry)
    return known


def _free_name(name: str, registry: Registry) -> None:
    former = _refuse_running(name, registry)
    if former is not None:
        registry.remove(former)


def _stagger(former: Server, params: ServerParams, following: str, emit: Callable[[str], None]) -> None:
    """Return when the next server may start; a failure of the former one is raised at once, with its cause."""
    if params.stagger is None:
        return
    deadline = None if params.stagger == "loaded" else time.monotonic() + params.stagger
    when = f"when {former.name} has loaded" if deadline is None else f"{params.stagger:g} s after {former.name}"
    emit(f"{following} starts {when}")
    for snapshot, still_s in former.looks():
        if snapshot.state.final:
            # Raises why; and if it only lost its port, starts it again and waits for it.
            former.wait_ready()
            return
        if _loaded(snapshot) if deadline is None else time.monotonic() >= deadline:
            return
        if deadline is None and still_s > params.startup_timeout_s:
            raise NotReadyError(
                f"Server {former.name!r} wrote nothing to its log for {params.startup_timeout_s:g} s, so the next was "
                "not started.",
                evidence="\n".join(former.tail(15)),
                next_step="See its log in the folder `logs`; all that were started were stopped again.",
            )


def _loaded(snapshot: Snapshot) -> bool:
    if snapshot.state is State.STARTING:
        return (snapshot.percent or 0) >= _WEIGHTS_LOADED_PERCENT
    return snapshot.state is not State.QUEUED
