"""Start servers, attach running ones, and start failed ones again with the fix that their log asks for.

Nothing waits here: the process runs, its record lies under `servers/launches/`, and the handle says how far it is. A
fix is shown before and written into the new record, so that no result is made by a server that differs from its file
unseen.
"""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tautools.errors import ParamsError, ServerError, TautoolsError, VerifyError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers.addresses import as_base_url, short_name
from tautools.servers.backends import backend_for, backend_of, require_fit
from tautools.servers.backends.base import LaunchRequest
from tautools.servers.registry import Registry, check_name
from tautools.servers.server import Server, cause_of, open_server, server_state
from tautools.servers.state import log_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tautools.records import ServerRecord
    from tautools.servers.addresses import ModelAddresses
    from tautools.servers.diagnose.causes import Diagnosis
    from tautools.servers.placement import PlannedServer

_ATTACHED_AT_ONCE = 8
_HELD_CARDS = re.compile(r"ERROR: \d+ idle cards are needed on .* submit again with --exclude=(\S+)")
"""What the job itself says before the engine starts; see `accelerators.assignment`."""
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\[\],-]*")


def launch(
    params: ServerParams,
    *,
    workspace: Path,
    site: SiteParams | None = None,
    name: str | None = None,
    force: bool = False,
    checked: bool = False,
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
    checked : bool
        Whether `check_launch` was called just now.

    Raises
    ------
    ServerError
        When a server of that name still runs, the asked-for port is taken, an asked-for card is in use, or the model
        is nowhere.
    ShellError
        When the command cannot be started.
    SlurmError
        When Slurm does not take the job; nothing is left behind then.
    ParamsError
        When the name or a flag cannot be used.
    """
    if not checked:
        check_launch(params, workspace=workspace, site=site, name=name, force=force)
    request, registry = _request(params, site, name, force=force), Registry(workspace)

    def start() -> ServerRecord:
        with registry.claim():
            _free_name(request.name, registry)
            return backend_for(request.site).start(request, registry)

    return Server(start(), workspace=workspace, start_again=None if params.port is not None else start)


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

    Parameters
    ----------
    params, workspace, site, name, force
        As `launch`.

    Returns
    -------
    float or None
        In seconds since the epoch, where Slurm can say.

    Raises
    ------
    ServerError, ParamsError, SlurmError
        As `launch`; a command that is not installed is a ServerError here.
    """
    request, registry = _request(params, site, name, force=force), Registry(workspace)
    _refuse_running(request.name, registry)
    return backend_for(request.site).check(request, registry)


def launch_shared_job(places: Sequence[PlannedServer], *, workspace: Path, site: SiteParams) -> list[Server]:
    """Submit one job that starts the planned servers on one node; see `launch_one_job`."""
    from tautools.servers.backends.slurm_shared import submit_shared_job

    check_shared_job(places, workspace=workspace, site=site)
    registry = Registry(workspace)
    with registry.claim():
        for place in places:
            _free_name(place.name, registry)
        records = submit_shared_job(places, site, registry)
    return [Server(record, workspace=workspace) for record in records]


def check_shared_job(places: Sequence[PlannedServer], *, workspace: Path, site: SiteParams) -> float | None:
    """Raise what `launch_shared_job` would raise; return when Slurm expects the job to start [s since the epoch]."""
    from tautools.servers.backends.slurm_shared import shared_job_script
    from tautools.slurm.client import Slurm

    for place in places:
        _refuse_running(place.name, Registry(workspace))
    return Slurm().test_only(shared_job_script(places, workspace=workspace, site=site))


def _request(params: ServerParams, site: SiteParams | None, name: str | None, *, force: bool) -> LaunchRequest:
    return LaunchRequest(params, site or SiteParams(name="local"), check_name(name or params.name), force)


def _refuse_running(name: str, registry: Registry) -> ServerRecord | None:
    """Return the registered server of a name, which has ended; raise when it may still run."""
    known = registry.find(check_name(name))
    if known is not None:
        backend_of(known).refuse_running(known, registry)
    return known


def _free_name(name: str, registry: Registry) -> None:
    former = _refuse_running(name, registry)
    if former is not None:
        registry.remove(former)


def attach(
    name: str,
    url: str,
    *,
    workspace: Path,
    model: str = "",
    key: str = "",
    group: str = "",
) -> Server:
    """Verify a running server and register it; `stop` forgets it again without touching its process.

    Parameters
    ----------
    name : str
        Its name here.
    url : str
        Its address, such as `http://gaudi001:8007/v1`.
    workspace : Path
        Where it is registered.
    model : str
        The name that requests carry; the first that the server lists by default.
    key : str
        Its key, if it has one; kept in `servers/<name>.key`, mode 0600, until it is detached.
    group : str
        A name shared by replicas: a role that asks for it gets all of them.

    Raises
    ------
    ParamsError
        When the name or the address cannot be used.
    ServerError
        When a server of that name is registered already.
    VerifyError
        When a check fails; nothing is registered then.
    """
    from tautools.servers.backends.attached import first_model, register, require_new

    registry, base_url = Registry(workspace), as_base_url(url)
    if "@" in urlsplit(base_url).netloc:
        raise ParamsError(
            "The address of a server must not contain a user or a password.",
            next_step="Put the key in an environment variable and name it with --key-env.",
        )
    require_new(check_name(name), registry)
    model = model or first_model(base_url, key)
    record = register(name, base_url, registry, model=model, key=key, group=group)
    server = Server(record, workspace=workspace)
    try:
        failed = server.verify().failed
        if failed is not None:
            raise VerifyError(
                f"{base_url} is not attached: it fails check {failed.number}, {failed.name}.",
                evidence=failed.detail,
                next_step=f"Fix it, then see with `tautools server test {base_url}`.",
            )
    except BaseException:
        registry.remove(record)
        raise
    return server


def attach_all(
    models: Iterable[ModelAddresses], *, workspace: Path, key: str = ""
) -> tuple[list[Server], dict[str, TautoolsError]]:
    """Attach every address of every model, side by side.

    Parameters
    ----------
    models : iterable of ModelAddresses
        Models with their addresses, as `read_model_config` gives them.
    workspace : Path
        Where they are registered: under the last part of the model's name, numbered from 1 when it has replicas.
    key : str
        The key of all of them, if they have one.

    Returns
    -------
    list of Server, dict of str to TautoolsError
        Those that were attached, and by name what is wrong with the others.
    """
    done: list[Server] = []
    problems: dict[str, TautoolsError] = {}

    def one(job: tuple[str, str, str, str]) -> Server | TautoolsError:
        name, group, model, url = job
        try:
            return attach(name, url, workspace=workspace, model=model, key=key, group=group)
        except TautoolsError as error:
            return error

    jobs = _named_addresses(models)
    with ThreadPoolExecutor(max_workers=_ATTACHED_AT_ONCE) as pool:
        for (name, *_), result in zip(jobs, pool.map(one, jobs), strict=True):
            if isinstance(result, Server):
                done.append(result)
            else:
                problems[name] = result
    return done, problems


def _named_addresses(models: Iterable[ModelAddresses]) -> list[tuple[str, str, str, str]]:
    """Return name, group, model and address of each server; models of one short name get groups of their own."""
    jobs: list[tuple[str, str, str, str]] = []
    groups: Counter[str] = Counter()
    for entry in models:
        short = short_name(entry.model)
        groups[short] += 1
        group = short if groups[short] == 1 else f"{short}_{groups[short]}"
        many = len(entry.base_urls) > 1
        jobs += [
            (f"{group}-{number}" if many else group, group, entry.model, url)
            for number, url in enumerate(entry.base_urls, start=1)
        ]
    return jobs


@dataclass(frozen=True, slots=True)
class Restart:
    """What a restart would do."""

    record: ServerRecord
    params: ServerParams
    changes: list[str]
    """Each as `name: old -> new`; empty when nothing is changed."""
    diagnosis: Diagnosis | None
    """Why the former start failed; None when it did not."""


def plan_restart(name: str, *, workspace: Path, fix: bool) -> Restart:
    """Return what would be started, and why; nothing is stopped or started.

    Parameters
    ----------
    name : str
        A registered server.
    workspace : Path
        Where it is registered.
    fix : bool
        Whether to change what its log asks for.

    Raises
    ------
    ServerError
        When no server of that name is registered, it is attached, or a fix is asked for and none is known.
    """
    registry = Registry(workspace)
    record = registry.get(name)
    require_fit(record, "restart")
    state = server_state(record, workspace=workspace).state
    diagnosis = cause_of(record, registry) if state.failed else None
    spec, changes = dict(record.spec), list[str]()
    if fix:
        if diagnosis is None:
            raise ServerError(
                f"Server {name!r} has not failed, so there is nothing to fix: it is {state.value}.",
                next_step=f"Look with `tautools server ls`; `tautools server restart {name}` starts it again as it is.",
            )
        spec, changes = apply_fix(spec, diagnosis.changes)
        if not changes:
            raise ServerError(
                f"No automatic fix is known for server {name!r}: {diagnosis.cause}",
                evidence=diagnosis.evidence,
                next_step=diagnosis.fix,
            )
    return Restart(record, ServerParams.model_validate(spec), changes, diagnosis)


def restart(plan: Restart, *, workspace: Path) -> Server:
    """Stop what is left of the former launch, start it as planned, and write down what was changed."""
    open_server(plan.record.name, workspace=workspace).stop()
    site = SiteParams.model_validate(plan.record.site) if plan.record.site else None
    server = launch(plan.params, workspace=workspace, site=site, name=plan.record.name)
    cause = f" ({plan.diagnosis.cause})" if plan.diagnosis is not None else ""
    changes = [*plan.record.changes, *(change + cause for change in plan.changes)]
    if changes:
        server.record = server.record.model_copy(update={"changes": changes})
        Registry(workspace).add(server.record)
    return server


def apply_fix(spec: Mapping[str, Any], fix: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a copy of the params with the fix applied, and each change in words.

    Parameters
    ----------
    spec : mapping
        Params of a server as a tree.
    fix : mapping
        New values by dotted name; None removes one.
    """
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
    """Return the restart with a node left out, together with those that were left out before.

    Parameters
    ----------
    plan : Restart
        Of a server that is a job of Slurm.
    node : str
        A node, or several as Slurm writes them; empty: the one whose cards were held, by the failed job's log.

    Raises
    ------
    ServerError
        When the server is no job, or its log names no node and none is given, or it cannot be a node's name.
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


def resubmit(record: ServerRecord, node: str, *, workspace: Path) -> Server:
    """Submit a server again whose job ended on a node with held cards, with that node left out."""
    plan = Restart(record, ServerParams.model_validate(record.spec), [], None)
    return restart(exclude_node(plan, node), workspace=workspace)
