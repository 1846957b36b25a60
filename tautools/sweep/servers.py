"""The servers that cells need: find them, start what is missing, and stop again what was started.

A server starts once, however many cells it serves. One that is ready in the registry is used and left alone at the end;
only what was started here is stopped here, also after an error or an interrupt. If this process is killed, a watchdog
of each server stops it once nothing has asked it for a while, so that the next run may still use it.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tautools.errors import SweepError, TautoolsError
from tautools.params import load_all, load_server, load_site
from tautools.params.models import ServerParams, SimulateParams
from tautools.servers import Registry, Server, State, endpoints, launch_all, server_state
from tautools.servers.lease import LeaseTerms, start_watchdog
from tautools.shell import Process, process_alive, this_process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tautools.params.models import RoleParams, SiteParams
    from tautools.records import ServerRecord
    from tautools.servers import Snapshot
    from tautools.sweep.cells import SweepCell


IDLE_S = 120.0
"""So long without a request, a server of a sweep that was killed is stopped; a run that is begun anew keeps it [s]."""

WATCHDOG_ENDS_S = 10.0
"""So long the keeper of a stopped server is waited for; it goes on by itself then [s]."""

QUEUE_REPORT_S = 600.0
"""How often it is told that a server still waits in the queue [s]."""

_COMING_UP = {State.QUEUED, State.STARTING, State.VERIFYING}


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
        return _is_ready(self.state)


def _is_ready(state: State | None) -> bool:
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
        _server_need(role, tuple(roles), tuple(indices), registered, workspace)
        for role, roles, indices in wanted.values()
    ]


def _server_need(
    role: RoleParams,
    roles: tuple[str, ...],
    cells: tuple[int, ...],
    registered: Sequence[ServerRecord],
    workspace: Path,
) -> ServerNeed:
    named = [r for r in registered if role.server and role.server in {r.name, r.spec.get("name")}]
    known = named or [r for r in registered if r.model == (role.model or role.server)]
    states = {record.name: server_state(record, workspace=workspace).state for record in known}
    alive = min(
        (r for r in known if not states[r.name].final), key=lambda r: not _is_ready(states[r.name]), default=None
    )
    if alive is not None:
        told = alive.spec.get("simulate") if alive.simulated else None
        speed = SimulateParams.model_validate(told) if told is not None else None
        return ServerNeed(alive.name, alive.model, alive.engine, roles, cells, states[alive.name], None, speed)
    params = _server_file(role, workspace)
    if params is None:
        return ServerNeed(str(role.model), str(role.model), "", roles, cells, None)
    speed = params.simulate if params.simulated else None
    return ServerNeed(params.name, params.serves, params.engine, roles, cells, None, params, speed)


def _server_file(role: RoleParams, workspace: Path) -> ServerParams | None:
    """Return the server file that a role names, or the first that serves its model."""
    if role.server is not None:
        return load_server(role.server, workspace=workspace)
    files, _ = load_all(ServerParams, workspace)
    return next((params for params in files.values() if params.serves == role.model), None)


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
        Where servers start: on this machine, or as jobs of Slurm.
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
    _check_startable(missing)
    started: list[_StartedServer] = []
    try:
        waiting: list[_StartedServer] = []
        for need in missing:
            with shield():
                begun = _start(need, workspace, where, started)
            tell(f"server {need.name}: starting {need.model}" if need.params else f"server {need.name}: waiting for it")
            waiting += begun
        for held in waiting:
            _wait_verified(held, tell)
        yield needs
    finally:
        with shield():
            _stop_all(started, tell)


def _check_startable(missing: Sequence[ServerNeed]) -> None:
    nameless = [need for need in missing if need.params is None and need.state not in _COMING_UP]
    if nameless:
        need = nameless[0]
        said = f"It is {need.state.value}." if need.state else "No running server of this workspace serves it."
        raise SweepError(
            f"The server {need.name!r}, needed by {len(need.cells)} cells, is not ready.",
            evidence=said,
            next_step="Start it with `tautools server up NAME`, or name a server file in the sweep's role.",
        )


@dataclass(slots=True)
class _StartedServer:
    """A server and, when it was started here, the process that ends it should this one be killed."""

    server: Server
    keeper: Process | None = None

    def lease(self) -> None:
        """Tie the server's life to this process."""
        self.keeper = start_watchdog(self.server, LeaseTerms(owner=this_process(), quiet_s=IDLE_S))

    def end(self) -> None:
        """Stop the server, and wait for its keeper, which ends within a second of it and takes its note away."""
        self.server.stop()
        until = time.monotonic() + WATCHDOG_ENDS_S
        while self.keeper is not None and time.monotonic() < until:
            if not process_alive(self.keeper.pid, self.keeper.started_at):
                return
            time.sleep(0.05)


def _start(need: ServerNeed, workspace: Path, site: SiteParams, started: list[_StartedServer]) -> list[_StartedServer]:
    if need.params is None:
        return [_StartedServer(Server(Registry(workspace).get(need.name), workspace=workspace))]
    # Replicas start side by side: a staggered start would hold back an interrupt for as long as it takes.
    at_once = need.params.model_copy(update={"stagger": None})
    begun = [_StartedServer(server) for server in launch_all([at_once], workspace=workspace, site=site)]
    started += begun
    for held in begun:
        held.lease()
    return begun


def _wait_verified(held: _StartedServer, tell: Callable[[str], None]) -> None:
    server = held.server
    alias = server.record.alias
    server.wait_ready(on_progress=QueueProgress(server.name, tell))
    if server.record.alias != alias:  # it lost its port and was started again: another launch, which has no keeper yet
        held.lease()
    tell(f"server {server.name}: ready and verified at {server.record.base_url}")


class QueueProgress:
    """Tells why a server's job waits in Slurm's queue: at once, then every `QUEUE_REPORT_S`, as the estimate moves."""

    def __init__(self, name: str, tell: Callable[[str], None]) -> None:
        self._name, self._tell, self._next = name, tell, 0.0

    def __call__(self, snapshot: Snapshot) -> None:
        """Take one look at the server."""
        if snapshot.state is State.QUEUED and time.monotonic() >= self._next:
            self._next = time.monotonic() + QUEUE_REPORT_S
            self._tell(f"server {self._name}: in the queue; {snapshot.detail}")


def _stop_all(started: Sequence[_StartedServer], tell: Callable[[str], None]) -> None:
    """Stop every one, whatever happens to the others; the first error is raised when all were tried.

    One that failed has no process any more; it stays registered, so that its log can be read by name.
    """
    errors: list[TautoolsError] = []
    for held in started:
        try:
            if held.server.state().state is not State.FAILED:
                held.end()
                tell(f"server {held.server.name}: stopped")
        except TautoolsError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def check_endpoints(cells: Sequence[SweepCell], *, workspace: Path) -> None:
    """Try each address and hosted provider that cells name, once; servers of ours are proven when they are started.

    Raises
    ------
    TautoolsError
        The first cell's error, when every cell has a role that cannot work now.
    """
    tried: dict[str, TautoolsError | None] = {}
    errors = [_cell_error(cell, workspace, tried) for cell in cells]
    first = next((error for error in errors if error is not None), None)
    if first is not None and None not in errors:
        raise first


def _cell_error(cell: SweepCell, workspace: Path, tried: dict[str, TautoolsError | None]) -> TautoolsError | None:
    for name, role in cell.run.roles.items():
        if role.base_url is None and role.provider == "openai":
            continue
        key = f"{name} {role.model_dump_json()}"
        if key not in tried:
            tried[key] = _endpoint_error(role, name, workspace)
        if tried[key] is not None:
            return tried[key]
    return None


def _endpoint_error(role: RoleParams, name: str, workspace: Path) -> TautoolsError | None:
    try:
        endpoints(role, workspace=workspace, role_name=name)
    except TautoolsError as error:
        return error
    return None
