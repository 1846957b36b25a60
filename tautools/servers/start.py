"""Start servers: one, replicas of a model, several models on one node, or all in one job of Slurm; start one again.

Nothing waits here unless a start is staggered: the process runs, its record lies under `servers/launches/`, and the
handle says how far it is. Of many, all start or none: what can be checked is checked before the first start, and a
failed start stops the ones before it. A fix is shown before and written into the new record, so that no result is made
by a server that differs from its file unseen.
"""

import copy
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tautools.errors import NotReadyError, ServerError
from tautools.params.models import ServerParams, SiteParams
from tautools.records import ServerRecord
from tautools.servers.backends import backend_for, backend_of, require_fit
from tautools.servers.diagnose import Diagnosis
from tautools.servers.placement import LaunchRequest, plan_launch, plan_one_job
from tautools.servers.registry import Registry, check_name
from tautools.servers.server import Server, open_server
from tautools.servers.state import Snapshot, State, log_lines

_HELD_CARDS = re.compile(r"ERROR: \d+ idle cards are needed on .* submit again with --exclude=(\S+)")
"""What the job itself says before the engine starts; see `accelerators.assignment`."""
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\[\],-]*")
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
    request = LaunchRequest(params, site or SiteParams(name="local"), check_name(name or params.name), force)
    check_launch([request], workspace=workspace)
    return _start([request], Registry(workspace))[0]


def check_launch(requests: Sequence[LaunchRequest], *, workspace: Path) -> float | None:
    """Raise what the launch of these servers would raise, as far as it can be known before; on Slurm as one job.

    No server is started or written down; an environment that is new here is asked which flags its vLLM knows. Returns
    when Slurm expects the job to start [s since the epoch], where it can say.
    """
    registry = Registry(workspace)
    for request in requests:
        _refuse_running(request.name, registry)
    return backend_for(requests[0].site).check(requests, registry)


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
        check_launch([request], workspace=workspace)
    started: list[Server] = []
    try:
        for request, former in zip(requests, [None, *requests], strict=False):
            if former is not None:
                _stagger(started[-1], former.params, request.name, emit)
            started += _start([request], registry)
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
    requests = plan_one_job(servers, workspace=workspace, site=site).require_job()
    check_launch(requests, workspace=workspace)
    return _start(requests, Registry(workspace))


def _start(requests: Sequence[LaunchRequest], registry: Registry) -> list[Server]:
    def start() -> list[ServerRecord]:
        with registry.claim():
            for request in requests:
                if (former := _refuse_running(request.name, registry)) is not None:
                    registry.remove(former)
            return backend_for(requests[0].site).start(requests, registry)

    again = None if len(requests) > 1 or requests[0].params.port is not None else lambda: start()[0]
    return [Server(record, workspace=registry.workspace, start_again=again) for record in start()]


def _refuse_running(name: str, registry: Registry) -> ServerRecord | None:
    """Return the registered server of a name, which has ended; raise when it may still run."""
    if (known := registry.find(name)) is not None:
        backend_of(known).refuse_running(known, registry)
    return known


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


@dataclass(frozen=True, slots=True)
class Restart:
    """What a restart would do."""

    record: ServerRecord
    """Of the former launch, with the params and the site that the new one gets."""
    changes: list[str] = field(default_factory=list)
    """Each as `name: old -> new`; empty when nothing is changed."""
    diagnosis: Diagnosis | None = None
    """Why the former start failed; None when it did not."""


def plan_restart(name: str, *, workspace: Path, fix: bool) -> Restart:
    """Return what would be started, and why; nothing is stopped or started.

    With `fix` what the log asks for is changed. A ServerError is raised when no server of that name is registered, it
    is attached, or a fix is asked for and none is known.
    """
    server = open_server(name, workspace=workspace)
    record = server.record
    require_fit(record, "restart")
    state = server.state().state
    diagnosis = server.cause() if state.failed else None
    if not fix:
        return Restart(record, diagnosis=diagnosis)
    if diagnosis is None:
        raise ServerError(
            f"Server {name!r} has not failed, so there is nothing to fix: it is {state.value}.",
            next_step=f"Look with `tautools server ls`; `tautools server restart {name}` starts it again as it is.",
        )
    spec, changes = apply_fix(record.spec, diagnosis.changes)
    if not changes:
        raise ServerError(
            f"No automatic fix is known for server {name!r}: {diagnosis.cause}",
            evidence=diagnosis.evidence,
            next_step=diagnosis.fix,
        )
    return Restart(record.model_copy(update={"spec": spec}), changes, diagnosis)


def restart(plan: Restart, *, workspace: Path) -> Server:
    """Stop what is left of the former launch, start it as planned, and write down what was changed."""
    former = plan.record
    params = ServerParams.model_validate(former.spec)
    site = SiteParams.model_validate(former.site) if former.site else None
    open_server(former.name, workspace=workspace).stop()
    server = launch(params, workspace=workspace, site=site, name=former.name)
    cause = f" ({plan.diagnosis.cause})" if plan.diagnosis is not None else ""
    changes = [*former.changes, *(change + cause for change in plan.changes)]
    if changes:
        server.record = server.record.model_copy(update={"changes": changes})
        Registry(workspace).add(server.record)
    return server


def apply_fix(spec: Mapping[str, Any], fix: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a copy of the params with new values by dotted name (None removes one), and each change in words."""
    tree, changes = copy.deepcopy(dict(spec)), []
    for name, value in fix.items():
        *parents, last = name.split(".", 2)
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        old = branch.get(last)
        if old == value:
            continue
        if value is None:
            branch.pop(last, None)
        else:
            branch[last] = value
        shown = ["not set" if each is None else json.dumps(each, ensure_ascii=False) for each in (old, value)]
        changes.append(f"{name}: {' -> '.join(shown)}")
    return tree, changes


def held_node(record: ServerRecord) -> str | None:
    """Return the node whose cards were held by others, by the job's log; None when it names none."""
    nodes = [match[1] for line in log_lines(record) if (match := _HELD_CARDS.search(line))]
    return nodes[-1] if nodes and backend_of(record).by_scheduler else None


def exclude_node(plan: Restart, node: str = "") -> Restart:
    """Return the restart of a job with a node left out, together with those that were left out before.

    `node` may be several as Slurm writes them; empty: the one whose cards were held, by the failed job's log. A
    ServerError is raised when the server is no job, or there is no such name of a node.
    """
    record = plan.record
    if not backend_of(record).by_scheduler:
        raise ServerError(
            f"Server {record.name!r} is no job of Slurm, so it has no node to leave out.",
            next_step=f"Start it again with `tautools server restart {record.name}`.",
        )
    node = node or held_node(record) or ""
    if not _NODE_NAME.fullmatch(node):
        raise ServerError(
            f"{node!r} cannot be the name of a node."
            if node
            else f"The log of server {record.name!r} names no node whose cards are held.",
            next_step=f"Name it: `tautools server restart {record.name} --exclude NODE`.",
        )
    old = SiteParams.model_validate(record.site).exclude
    if node in old:
        return plan
    new = [*old, node]
    change = f"site.exclude: {','.join(old) or 'not set'} -> {','.join(new)}"
    without = record.model_copy(update={"site": dict(record.site) | {"exclude": new}})
    return replace(plan, record=without, changes=[*plan.changes, change])
