"""Start many servers as one: replicas of a model, or several models on one node, in turn where that helps.

All or none: what can be checked is checked before the first start, and a failed start stops the ones before it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tautools.errors import NotReadyError, ParamsError
from tautools.params.models import SiteParams
from tautools.servers.placement import Layout, plan_layout, site_node_state, this_node_state, unknown_node_state
from tautools.servers.preflight import warn_missing_model
from tautools.servers.registry import Registry
from tautools.servers.start import check_launch, launch
from tautools.servers.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tautools.params.models import ServerParams
    from tautools.servers.server import Server
    from tautools.servers.state import Snapshot


_WEIGHTS_LOADED_PERCENT = 50
"""Where a log says that the weights are loaded; see `stages`."""


def apply_layout_options(
    servers: Sequence[ServerParams],
    *,
    replicas: Mapping[str, int] | None = None,
    start_port: int | None = None,
    stagger: float | Literal["loaded"] | None = None,
) -> list[ServerParams]:
    """Return the servers with what was asked for on the command line in place of what their files say.

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
    arranged = []
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
        # Checked as a file would be, so that a port and replicas that do not agree are told.
        arranged.append(_validated(params, update) if update else params)
    return arranged


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
    """
    site = site if site is not None else SiteParams(name="local")
    around = unknown_node_state if site.uses_slurm else this_node_state
    return plan_layout(servers, around(servers, site, workspace, force=force), gpu_ids=gpu_ids)


def plan_one_job(servers: Sequence[ServerParams], *, workspace: Path, site: SiteParams) -> Layout:
    """Plan the servers on one node of a Slurm site, for one job; nothing is started.

    The site's `cards_per_node` says what a node has. The cards are numbered from 0 as if the whole node were the job's;
    on the node the job hands out, in the same order, the ones that it was given.

    Raises
    ------
    ParamsError
        When the site has no Slurm, or cards are chosen by hand.
    """
    if not site.uses_slurm:
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
    around = unknown_node_state(servers, site, workspace, force=False)
    if site.cards_per_node is not None:
        around = site_node_state(servers, site, workspace)
    return plan_layout(servers, around)


def launch_all(
    servers: Sequence[ServerParams],
    *,
    workspace: Path,
    site: SiteParams | None = None,
    gpu_ids: Sequence[int] | None = None,
    force: bool = False,
    tell: Callable[[str], None] | None = None,
) -> list[Server]:
    """Plan the servers with all their replicas, and start them; returns at once unless they are staggered.

    Parameters
    ----------
    servers : sequence of ServerParams
        In the order of their start.
    workspace, site
        As `launch`.
    gpu_ids : sequence of int, optional
        Only these cards are used.
    force : bool
        Use cards that are in use.
    tell : callable, optional
        Told what a staggered start waits for.

    Raises
    ------
    ServerError
        When the layout does not fit the node; nothing is started then.
    NotReadyError
        When a server that the next one waits for failed; those that were started are stopped again.
    """
    layout = plan_launch(servers, workspace=workspace, site=site, gpu_ids=gpu_ids, force=force)
    return launch_layout(layout, workspace=workspace, site=site, force=force, tell=tell)


def launch_one_job(servers: Sequence[ServerParams], *, workspace: Path, site: SiteParams) -> list[Server]:
    """Start the servers with all their replicas in one job of Slurm, on one node; returns at once.

    The job hands its cards out and starts the servers one after the other where they are staggered.

    Parameters
    ----------
    servers : sequence of ServerParams
        In the order of their start.
    workspace, site
        As `launch`; the site's cores and memory count for each server.

    Raises
    ------
    ServerError
        When the layout does not fit a node; nothing is started then.
    ParamsError
        As `plan_one_job`.
    SlurmError
        When Slurm does not take the job; nothing is left behind then.
    """
    from tautools.servers.backends.slurm_shared import launch_shared_job, without_cards

    places = plan_one_job(servers, workspace=workspace, site=site).require().places
    for place in places:
        warn_missing_model(without_cards(place), site, Registry(workspace))
    return launch_shared_job(places, workspace=workspace, site=site)


def launch_layout(
    layout: Layout,
    *,
    workspace: Path,
    site: SiteParams | None = None,
    force: bool = False,
    tell: Callable[[str], None] | None = None,
) -> list[Server]:
    """Start what was planned; see `launch_all`."""
    places = layout.require().places
    for place in places:
        check_launch(place.params, workspace=workspace, site=site, name=place.name, force=force)
    started: list[Server] = []
    try:
        for number, place in enumerate(places):
            if number:
                _stagger(started[-1], places[number - 1].params, place.name, tell or (lambda _text: None))
            started.append(launch(place.params, workspace=workspace, site=site, name=place.name, force=force))
    except BaseException:
        for server in started:
            server.stop()
        raise
    return started


def _validated(params: ServerParams, update: dict[str, object]) -> ServerParams:
    from pydantic import ValidationError

    try:
        return type(params).model_validate(params.model_dump() | update)
    except ValidationError as error:
        raise ParamsError(
            f"Server {params.name!r} cannot be started like that: {error.errors()[0]['msg']}.",
            next_step="Leave out `port` in its file, or give --start-port.",
        ) from error


def _stagger(former: Server, params: ServerParams, following: str, tell: Callable[[str], None]) -> None:
    """Return when the next server may start."""
    if params.stagger is None:
        return
    if params.stagger != "loaded":
        tell(f"{following} starts {params.stagger:g} s after {former.name}")
        _watch_start(former, params, until=time.monotonic() + params.stagger)
        return
    tell(f"{following} starts when {former.name} has loaded")
    _watch_start(former, params, until=None)


def _watch_start(former: Server, params: ServerParams, *, until: float | None) -> None:
    """Look at the former server until it has loaded, or until a moment; a failure is told at once, with its cause."""
    progress, changed_at = ("", 0), time.monotonic()
    while until is None or time.monotonic() < until:
        snapshot = former.state()
        if snapshot.state.final:
            # Says why; and if it only lost its port, starts it again and waits for it.
            former.wait_ready()
            return
        if until is None and _loaded(snapshot):
            return
        now = (snapshot.stage, _log_bytes(former))
        # A queue is no standstill.
        if now != progress or snapshot.state is State.QUEUED:
            progress, changed_at = now, time.monotonic()
        if until is None and time.monotonic() - changed_at > params.startup_timeout_s:
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


def _log_bytes(server: Server) -> int:
    logs = (Path(log) for log in (server.record.log_out, server.record.log_err) if log)
    return sum(path.stat().st_size for path in logs if path.exists())
