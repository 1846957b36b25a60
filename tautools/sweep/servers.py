"""The servers that cells need: which are there, which must be started, and that what was started is stopped again.

A server starts once, however many cells it serves. One that is ready in the registry is used and left alone at the end;
only what was started here is stopped here, also after an error or an interrupt. If this process is killed, a keeper of
each stops it once nothing has asked it for a while: the next run may still use it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tautools.errors import SweepError, TautoolsError
from tautools.params import list_params, load_server, load_site
from tautools.params.models import SimulateParams
from tautools.server import Registry, Server, State, launch_all, server_state
from tautools.server.keeping import Terms, keep
from tautools.shell import this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tautools.params.models import RoleParams, ServerParams, SiteParams
    from tautools.records import ServerRecord
    from tautools.sweep.cells import SweepCell

__all__ = ["ServerNeed", "server_needs", "serving"]

QUIET_S = 120.0
"""So long without a request, a server of a sweep that was killed is stopped; a run that is begun anew keeps it [s]."""

_ON_ITS_WAY = {State.QUEUED, State.STARTING, State.VERIFYING}


@dataclass(frozen=True, slots=True)
class ServerNeed:
    """One server that some cells need."""

    name: str
    model: str
    engine: str
    roles: tuple[str, ...]
    """Which roles it plays."""
    cells: tuple[int, ...]
    """Indices of the cells it serves."""
    state: State | None
    """What the registry's server of that name is doing; None when there is none, or none that could come back."""
    params: ServerParams | None = field(default=None, repr=False)
    """How to start it; None for a model that only a running server can give."""
    simulate: SimulateParams | None = field(default=None, repr=False)
    """How fast it answers, when its model is a simulated one."""

    @property
    def running(self) -> bool:
        """Whether it works already."""
        return _works(self.state)


def _works(state: State | None) -> bool:
    return state is State.READY


def server_needs(cells: Sequence[SweepCell], *, workspace: Path) -> list[ServerNeed]:
    """Return the servers that cells need, each once, in the order they are first needed.

    Roles with an address of their own or with a hosted provider need no server of ours.

    Raises
    ------
    ParamsError
        When a role names a server file that does not exist.
    """
    wanted: dict[str, tuple[RoleParams, dict[str, None], list[int]]] = {}
    for cell in cells:
        for role_name, role in cell.run.roles.items():
            if role.base_url is not None or role.provider != "openai":
                continue
            _, roles, indices = wanted.setdefault(role.server or str(role.model), (role, {}, []))
            roles[role_name] = None
            if cell.index not in indices:
                indices.append(cell.index)
    registered = Registry(workspace).list()
    return [
        _need(role, tuple(roles), tuple(indices), registered, workspace) for role, roles, indices in wanted.values()
    ]


def _need(
    role: RoleParams,
    roles: tuple[str, ...],
    cells: tuple[int, ...],
    registered: Sequence[ServerRecord],
    workspace: Path,
) -> ServerNeed:
    named = [r for r in registered if role.server and role.server in {r.name, r.spec.get("name")}]
    known = named or [r for r in registered if r.model == (role.model or role.server)]
    states = {record.name: server_state(record, workspace=workspace).state for record in known}
    alive = min((r for r in known if not states[r.name].final), key=lambda r: not _works(states[r.name]), default=None)
    if alive is not None:
        told = alive.spec.get("simulate") if alive.engine == "simulate" else None
        speed = SimulateParams.model_validate(told) if told is not None else None
        return ServerNeed(alive.name, alive.model, alive.engine, roles, cells, states[alive.name], None, speed)
    params = _server_file(role, workspace)
    if params is None:
        return ServerNeed(str(role.model), str(role.model), "", roles, cells, None)
    speed = params.simulate if params.engine == "simulate" else None
    return ServerNeed(params.name, params.serves, params.engine, roles, cells, None, params, speed)


def _server_file(role: RoleParams, workspace: Path) -> ServerParams | None:
    """Return the server file that a role names, or the first that serves its model."""
    if role.server is not None:
        return load_server(role.server, workspace=workspace)
    files = (load_server(name, workspace=workspace) for name in list_params("servers", workspace))
    return next((params for params in files if params.serves == role.model), None)


@contextlib.contextmanager
def serving(
    cells: Sequence[SweepCell],
    *,
    workspace: Path,
    site: str | SiteParams = "local",
    start: bool = True,
    tell: Callable[[str], None] = lambda _line: None,
    shield: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Iterator[list[ServerNeed]]:
    """Hold the servers that cells need up for as long as the block runs.

    Parameters
    ----------
    cells : sequence of SweepCell
        What shall be served.
    workspace : Path
        Whose registry and server files are used.
    site : str or SiteParams
        Where servers start.
    start : bool
        Whether missing servers are started; without it the block runs with what there is.
    tell : callable, optional
        Told one line at a time what happens.
    shield : callable, optional
        Gives the context in which processes are started and stopped: no interrupt may come between a process and the
        line that remembers it.

    Raises
    ------
    SweepError
        When a server is missing that cannot be started here.
    ServerError
        When one does not become ready or does not pass the ladder.
    """
    needs = server_needs(cells, workspace=workspace) if start else []
    missing = [need for need in needs if not need.running]
    where = load_site(site, workspace=workspace) if isinstance(site, str) else site
    _check_startable(missing, where)
    started: list[Server] = []
    try:
        waiting: list[Server] = []
        for need in missing:
            with shield():
                begun = _begin(need, workspace, where, started)
            tell(f"server {need.name}: starting {need.model}" if need.params else f"server {need.name}: waiting for it")
            waiting += begun
        for server in waiting:
            _prove(server, tell)
        yield needs
    finally:
        with shield():
            _stop_all(started, tell)


def _check_startable(missing: Sequence[ServerNeed], site: SiteParams) -> None:
    nameless = [need for need in missing if need.params is None and need.state not in _ON_ITS_WAY]
    if nameless:
        need = nameless[0]
        said = f"It is {need.state.value}." if need.state else "No running server of this workspace serves it."
        raise SweepError(
            f"The server {need.name!r}, needed by {len(need.cells)} cells, is not ready.",
            evidence=said,
            next_step="Start it with `tautools server up NAME`, or name a server file in the sweep's role.",
        )
    to_start = [need.name for need in missing if need.params is not None]
    if to_start and site.scheduler != "none":
        raise SweepError(
            f"Site {site.name!r} schedules with {site.scheduler}, and servers start on this machine only.",
            evidence=f"To start: {', '.join(to_start)}.",
            next_step="Inside an allocation add `--set site=local`; or start the servers yourself and run again.",
        )


def _begin(need: ServerNeed, workspace: Path, site: SiteParams, started: list[Server]) -> list[Server]:
    if need.params is None:
        return [Server(Registry(workspace).get(need.name), workspace=workspace)]
    # Replicas start side by side: a staggered start would hold back an interrupt for as long as it takes.
    at_once = need.params.model_copy(update={"stagger": None})
    servers = launch_all([at_once], workspace=workspace, site=site)
    started += servers
    for server in servers:
        _lease(server)
    return servers


def _lease(server: Server) -> None:
    keep(server, Terms(owner=this_process(), quiet_s=QUIET_S))


def _prove(server: Server, tell: Callable[[str], None]) -> None:
    alias = server.record.alias
    server.wait_ready()
    if server.record.alias != alias:  # it lost its port and was started again: another launch, which has no keeper yet
        _lease(server)
    tell(f"server {server.name}: ready and verified at {server.record.base_url}")


def _stop_all(started: Sequence[Server], tell: Callable[[str], None]) -> None:
    """Stop every one, whatever happens to the others; the first error is raised when all were tried.

    One that failed has no process any more; it stays registered, so that its log can be read by name.
    """
    errors: list[TautoolsError] = []
    for server in started:
        try:
            if server.state().state is not State.FAILED:
                server.stop()
                tell(f"server {server.name}: stopped")
        except TautoolsError as error:
            errors.append(error)
    if errors:
        raise errors[0]
