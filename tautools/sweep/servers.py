"""The servers that cells need: find them, start what is missing, and stop again what was started.

A server starts once, however many cells it serves. One that is ready in the registry is used and left alone at the end;
only what was started here is stopped here, also after an error or an interrupt. If this process is killed, a watchdog
of each server stops it once nothing has asked it for a while, so that the next run may still use it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tautools.errors import SweepError, TautoolsError
from tautools.params import load_all, load_server, load_site
from tautools.params.models import RoleParams, ServerParams, SimulateParams, SiteParams
from tautools.records import ServerRecord
from tautools.servers import Registry, Server, Snapshot, State, endpoints, launch_all
from tautools.servers.addresses import servers_for_role
from tautools.servers.demands import WaitSpeaker
from tautools.servers.lease import LeaseTerms, start_watchdog
from tautools.shell import Process, process_alive, this_process
from tautools.sweep.cells import SweepCell

IDLE_S = 120.0
"""A server whose sweep was killed is stopped after this long without a request [s]; a new run in time keeps it."""

WATCHDOG_ENDS_S = 10.0
"""Longest wait for the watchdog of a stopped server; it goes on to end by itself [s]."""

QUEUE_REPORT_S = 600.0
"""How often a server's wait in the queue is reported [s]."""

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
    """State of the registry's server of that name; None when there is none, or none that could come back."""
    params: ServerParams | None = field(default=None, repr=False)
    """How to start it; None for a model that only a running server can give."""
    simulate: SimulateParams | None = field(default=None, repr=False)
    """How fast it answers, when its model is simulated."""

    @property
    def running(self) -> bool:
        """Whether it is ready already."""
        return self.state is State.READY

    def __str__(self) -> str:
        doing = self.state.value if self.state else "to start" if self.params else "missing"
        return f"{self.name} ({'/'.join(self.roles)}, {doing})"


def servers_text(needs: Sequence[ServerNeed]) -> str:
    """Return the servers that are needed, with their roles and states, in one line."""
    if not needs:
        return "none of ours; the roles name addresses or hosted models"
    return f"{len(needs)}: {', '.join(map(str, needs))}"


def server_needs(cells: Sequence[SweepCell], *, workspace: Path) -> list[ServerNeed]:
    """Return the servers that cells need, each once, in the order in which they are first needed.

    Roles with an address of their own or with a hosted provider need no server of ours.
    """
    wanted: dict[str, tuple[RoleParams, dict[str, None], dict[int, None]]] = {}
    for cell in cells:
        for role_name, role in cell.run.roles.items():
            if _needs_server(role):
                _, roles, indices = wanted.setdefault(role.server or str(role.model), (role, {}, {}))
                roles[role_name] = indices[cell.index] = None
    registered = Registry(workspace).list()
    return [
        _server_need(role, tuple(roles), tuple(indices), registered, workspace)
        for role, roles, indices in wanted.values()
    ]


def _needs_server(role: RoleParams) -> bool:
    return role.base_url is None and role.provider == "openai"


def _server_need(
    role: RoleParams,
    roles: tuple[str, ...],
    cells: tuple[int, ...],
    registered: Sequence[ServerRecord],
    workspace: Path,
) -> ServerNeed:
    known = servers_for_role(role, registered)
    states = {record.name: Server(record, workspace=workspace).state().state for record in known}
    alive = [each for each in known if not states[each.name].final]
    if alive:
        record = min(alive, key=lambda each: states[each.name] is not State.READY)
        given = record.spec.get("simulate") if record.simulated else None
        speed = None if given is None else SimulateParams.model_validate(given)
        return ServerNeed(record.name, record.model, record.engine, roles, cells, states[record.name], None, speed)
    if role.server is not None:
        files = {role.server: load_server(role.server, workspace=workspace)}
    else:
        files = {name: each for name, each in load_all(ServerParams, workspace)[0].items() if each.serves == role.model}
    params = next(iter(files.values()), None)
    if params is None:
        return ServerNeed(str(role.model), str(role.model), "", roles, cells, None)
    speed = params.simulate if params.simulated else None
    return ServerNeed(params.name, params.serves, params.engine, roles, cells, None, params, speed)


@contextlib.contextmanager
def serving(
    cells: Sequence[SweepCell],
    *,
    workspace: Path,
    site: str | SiteParams = "local",
    start: bool = True,
    report: Callable[[str], None] = lambda _line: None,
    shield: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> Iterator[list[ServerNeed]]:
    """Keep the servers that cells need running for as long as the block runs.

    Parameters
    ----------
    cells : sequence of SweepCell
        What is to be served.
    workspace : Path
        Whose registry and server files are used.
    site : str or SiteParams
        Where servers start: on this machine, or as jobs of Slurm.
    start : bool
        Whether missing servers are started; without it the block runs with what there is.
    report : callable, optional
        Receives what happens, one line at a time.
    shield : callable, optional
        Gives the context in which processes are started and stopped: no interrupt may come between the start of a
        process and the line that remembers it.

    Raises
    ------
    SweepError
        When a server is missing that cannot be started here.
    ServerError
        When one does not become ready or does not pass its checks.
    """
    needs = server_needs(cells, workspace=workspace) if start else []
    missing = [need for need in needs if not need.running]
    where = load_site(site, workspace=workspace) if isinstance(site, str) else site
    for need in missing:
        if need.params is None and need.state not in _COMING_UP:
            state = f"It is {need.state.value}." if need.state else "No running server of this workspace serves it."
            raise SweepError(
                f"The server {need.name!r}, needed by {len(need.cells)} cells, is not ready.",
                evidence=state,
                next_step="Start it with `tautools server up NAME`, or name a server file in the sweep's role.",
            )
    used: list[_UsedServer] = []
    try:
        for need in missing:
            with shield():
                _start(need, workspace, where, used)
            report(f"server {need.name}: {f'starting {need.model}' if need.params else 'waiting for it'}")
        for each in used:
            each.wait_verified(report)
        yield needs
    finally:
        with shield():
            _stop_all([each for each in used if each.started_here], report)


@dataclass(slots=True)
class _UsedServer:
    """A server and, when it was started here, the watchdog that stops it should this process be killed."""

    server: Server
    started_here: bool
    watchdog: Process | None = None

    def lease(self) -> None:
        """Tie the server's life to this process."""
        self.watchdog = start_watchdog(self.server, LeaseTerms(owner=this_process(), quiet_s=IDLE_S))

    def wait_verified(self, report: Callable[[str], None]) -> None:
        """Wait until it is ready and has passed its checks."""
        server, alias = self.server, self.server.record.alias
        server.wait_ready(on_progress=QueueProgress(server.name, report), on_wait=WaitSpeaker(server.name, report))
        if server.record.alias != alias:  # it lost its port and was started again: that launch has no watchdog yet
            self.lease()
        report(f"server {server.name}: ready and verified at {server.record.base_url}")

    def stop(self) -> bool:
        """Stop the server and wait for its watchdog, which ends within a second of it and removes its lease.

        One that failed is left registered, so that its log can be read; returns whether it was stopped.
        """
        if self.server.state().state is State.FAILED:
            return False
        self.server.stop()
        until = time.monotonic() + WATCHDOG_ENDS_S
        while self.watchdog is not None and time.monotonic() < until:
            if not process_alive(self.watchdog.pid, self.watchdog.started_at):
                break
            time.sleep(0.05)
        return True


def _start(need: ServerNeed, workspace: Path, site: SiteParams, used: list[_UsedServer]) -> None:
    """Add a server to those that are used, or the replicas that are started for it."""
    if need.params is None:
        used.append(_UsedServer(Server(Registry(workspace).get(need.name), workspace=workspace), started_here=False))
        return
    # Replicas start side by side: a staggered start would hold back an interrupt for as long as it takes.
    at_once = need.params.model_copy(update={"stagger": None})
    replicas = [_UsedServer(each, started_here=True) for each in launch_all([at_once], workspace=workspace, site=site)]
    used += replicas
    for replica in replicas:
        replica.lease()


class QueueProgress:
    """Reports why a server's job waits in Slurm's queue: at once, then every `QUEUE_REPORT_S`."""

    def __init__(self, name: str, report: Callable[[str], None]) -> None:
        self._name, self._report, self._next = name, report, 0.0

    def __call__(self, snapshot: Snapshot) -> None:
        """Take one look at the server."""
        if snapshot.state is State.QUEUED and time.monotonic() >= self._next:
            self._next = time.monotonic() + QUEUE_REPORT_S
            self._report(f"server {self._name}: in the queue; {snapshot.detail}")


def _stop_all(started: Sequence[_UsedServer], report: Callable[[str], None]) -> None:
    """Stop every server, side by side, then raise the first error."""
    errors: list[TautoolsError] = []
    with ThreadPoolExecutor(max_workers=max(1, len(started))) as pool:
        for each, stopped in [(each, pool.submit(each.stop)) for each in started]:
            try:
                if stopped.result():
                    report(f"server {each.server.name}: stopped")
            except TautoolsError as error:
                errors.append(error)
    if errors:
        raise errors[0]


def check_endpoints(cells: Sequence[SweepCell], *, workspace: Path) -> None:
    """Try the addresses and hosted providers that cells name, each once; servers of ours are verified when they start.

    One bad address does not stop the cells of the others: the first cell's error is raised when no cell can work.
    """
    tried: dict[str, TautoolsError | None] = {}

    def try_role(name: str, role: RoleParams) -> TautoolsError | None:
        key = f"{name} {role.model_dump_json()}"
        if not _needs_server(role) and key not in tried:
            tried[key] = None
            try:
                endpoints(role, workspace=workspace, role_name=name)
            except TautoolsError as error:
                tried[key] = error
        return tried.get(key)

    errors: list[TautoolsError] = []
    for cell in cells:
        found = [error for name, role in cell.run.roles.items() if (error := try_role(name, role))]
        if not found:
            return
        errors += found
    if errors:
        raise errors[0]
