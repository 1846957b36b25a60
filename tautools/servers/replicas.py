"""Start many servers as one: replicas of a model, or several models on one node, in turn where that helps.

All or none: what can be checked is checked before the first start, and a failed start stops the ones before it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from tautools.errors import NotReadyError, ParamsError
from tautools.params.models import SiteParams
from tautools.servers.backends import backend_for
from tautools.servers.backends.base import warn_missing_model
from tautools.servers.placement import Layout, plan_layout, site_node_state, this_node_state, unknown_node_state
from tautools.servers.registry import Registry
from tautools.servers.start import check_launch, launch, launch_shared_job
from tautools.servers.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tautools.params.models import ServerParams
    from tautools.servers.server import Server
    from tautools.servers.state import Snapshot


_WEIGHTS_LOADED_PERCENT = 50
"""Where a log says that the weights are loaded; see `read_startup_stage`."""


def apply_layout_options(
    servers: Sequence[ServerParams],
    *,
    replicas: Mapping[str, int] | None = None,
    start_port: int | None = None,
    stagger: float | Literal["loaded"] | None = None,
) -> list[ServerParams]:
    """Return the servers with the options of the command line in place of what their files say.

    Parameters
    ----------
    servers : sequence of ServerParams
        As their files say.
    replicas : mapping, optional
        Name to number of replicas.
    start_port : int, optional
        Port of the first replica of the first server; all others follow without a gap.
    stagger : float or "loaded", optional
        When each next one is started.

    Raises
    ------
    ParamsError
        When a name in `replicas` is none of theirs.
    """
    unknown = sorted((replicas or {}).keys() - {params.name for params in servers})
    if unknown:
        raise ParamsError(
            f"Replicas are asked for {unknown[0]!r}, which is not among the servers.",
            evidence=f"The servers: {', '.join(params.name for params in servers)}.",
            next_step="Write `--replicas NAME=N` with one of these names, or a bare number for all.",
        )
    changed = []
    for params in servers:
        update: dict[str, object] = {}
        count = (replicas or {}).get(params.name, params.replicas)
        if count != params.replicas:
            update["replicas"] = count
        if stagger is not None:
            update["stagger"] = stagger
        if start_port is not None:
            update |= {"port": None, "start_port": start_port, "end_port": None}
            start_port += count
        changed.append(_validated(params, update) if update else params)
    return changed


def plan_launch(
    servers: Sequence[ServerParams],
    *,
    workspace: Path,
    site: SiteParams | None = None,
    gpu_ids: Sequence[int] | None = None,
    force: bool = False,
) -> Layout:
    """Plan the servers on this machine as it is now; nothing is started, and what is wrong is in the layout.

    For a Slurm site each replica is a job of its own, which gets its cards on the node.

    Parameters
    ----------
    servers, workspace, site, gpu_ids, force
        As of `launch_all`.
    """
    site = site if site is not None else SiteParams(name="local")
    node_state = unknown_node_state if backend_for(site).by_scheduler else this_node_state
    return plan_layout(servers, node_state(servers, site, workspace, force=force), gpu_ids=gpu_ids)


def plan_one_job(servers: Sequence[ServerParams], *, workspace: Path, site: SiteParams) -> Layout:
    """Plan the servers on one node of a Slurm site, for one job; nothing is started.

    The site's `cards_per_node` says what a node has. The cards are numbered from 0 as if the whole node were the job's;
    on the node the job gives out, in the same order, the ones that it was given.

    Parameters
    ----------
    servers, workspace, site
        As of `launch_one_job`.

    Raises
    ------
    ParamsError
        When the site has no Slurm, or cards are chosen by hand.
    """
    if not backend_for(site).by_scheduler:
        raise ParamsError(
            f"Servers of site {site.name!r} start as processes of this machine, so there is no job for them to share.",
            next_step="Leave --one-job out, or name a site with Slurm.",
        )
    by_hand = [params.name for params in servers if params.cards]
    if by_hand:
        raise ParamsError(
            f"Server {by_hand[0]!r} names its cards, and Slurm chooses those of a job.",
            next_step="Leave `cards` out of its file.",
        )
    if site.cards_per_node is None:
        return plan_layout(servers, unknown_node_state(servers, site, workspace, force=False))
    return plan_layout(servers, site_node_state(servers, site, workspace))


def launch_all(
    servers: Sequence[ServerParams],
    *,
    workspace: Path,
    site: SiteParams | None = None,
    gpu_ids: Sequence[int] | None = None,
    force: bool = False,
    emit: Callable[[str], None] | None = None,
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
    layout = plan_launch(servers, workspace=workspace, site=site, gpu_ids=gpu_ids, force=force)
    places = layout.require().places
    for place in places:
        check_launch(place.params, workspace=workspace, site=site, name=place.name, force=force)
    started: list[Server] = []
    try:
        for number, place in enumerate(places):
            if number:
                _stagger(started[-1], places[number - 1].params, place.name, emit or (lambda _text: None))
            started.append(
                launch(place.params, workspace=workspace, site=site, name=place.name, force=force, checked=True)
            )
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
        As of `plan_one_job`.
    SlurmError
        When Slurm does not take the job; nothing is left behind then.
    """
    from tautools.servers.backends.slurm_shared import without_cards

    places = plan_one_job(servers, workspace=workspace, site=site).require().places
    for place in places:
        warn_missing_model(without_cards(place), site, Registry(workspace))
    return launch_shared_job(places, workspace=workspace, site=site)


def _validated(params: ServerParams, update: dict[str, object]) -> ServerParams:
    """Return the changed params, checked as a file would be: a port and replicas may not agree."""
    from pydantic import ValidationError

    try:
        return type(params).model_validate(params.model_dump() | update)
    except ValidationError as error:
        raise ParamsError(
            f"Server {params.name!r} cannot be started like that: {error.errors()[0]['msg']}.",
            next_step="Leave out `port` in its file, or give --start-port.",
        ) from error


def _stagger(former: Server, params: ServerParams, following: str, emit: Callable[[str], None]) -> None:
    """Return when the next server may start; a failure of the former one is raised at once, with its cause."""
    if params.stagger is None:
        return
    deadline = None if params.stagger == "loaded" else time.monotonic() + params.stagger
    when = f"when {former.name} has loaded" if deadline is None else f"{params.stagger:g} s after {former.name}"
    emit(f"{following} starts {when}")
    progress, changed_at = ("", 0), time.monotonic()
    while deadline is None or time.monotonic() < deadline:
        snapshot = former.state()
        if snapshot.state.final:
            # Raises why; and if it only lost its port, starts it again and waits for it.
            former.wait_ready()
            return
        if deadline is None and _loaded(snapshot):
            return
        now = (snapshot.stage, former.log_size())
        # A queue is not a standstill.
        if now != progress or snapshot.state is State.QUEUED:
            progress, changed_at = now, time.monotonic()
        if deadline is None and time.monotonic() - changed_at > params.startup_timeout_s:
            raise NotReadyError(
                f"Server {former.name!r} wrote nothing to its log for {params.startup_timeout_s:g} s, so the next was "
                "not started.",
                evidence="\n".join(former.tail(15)),
                next_step="See its log in the folder `logs`; all that were started were stopped again.",
            )
        time.sleep(0.1)


def _loaded(snapshot: Snapshot) -> bool:
    if snapshot.state is State.STARTING:
        return (snapshot.percent or 0) >= _WEIGHTS_LOADED_PERCENT
    return snapshot.state is not State.QUEUED
