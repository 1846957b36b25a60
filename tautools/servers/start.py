"""Start servers, attach running ones, and start failed ones again with the fix that their log asks for.

Nothing waits here: the process runs, its record lies under `servers/launches/`, and the handle says how far it is. A
fix is shown before and written into the new record, so that no result is made by a server that differs from its file
unseen.
"""

from __future__ import annotations

import copy
import getpass
import json
import os
import secrets
import shutil
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tautools.errors import ParamsError, ServerError, TautoolsError, VerifyError
from tautools.files import ensure_folder, write_atomic
from tautools.params.models import ServerParams, SiteParams
from tautools.records import ServerRecord
from tautools.servers.accelerators.assignment import require_cards
from tautools.servers.addresses import as_base_url, short_name
from tautools.servers.backends.local import routable_host
from tautools.servers.checks.target import ask_models
from tautools.servers.ports import choose_port
from tautools.servers.preflight import check_model, check_options, warn_missing_model
from tautools.servers.registry import Registry, check_name
from tautools.servers.server import Server, open_server
from tautools.servers.state import State, cause_of, server_state
from tautools.servers.vllm.command import ListenAddress, server_argv, server_env
from tautools.shell import group_members, process_alive, start_detached, stop_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tautools.servers.accelerators.probe import Card
    from tautools.servers.addresses import ModelAddresses
    from tautools.servers.diagnose.causes import Diagnosis


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
        Start on cards that are in use; of a job of Slurm it changes nothing, which looks at its own cards.

    Raises
    ------
    ServerError
        When a server of that name still runs, the asked-for port is taken, an asked-for card is in use, or the model
        is nowhere.
    ShellError
        When the command cannot be started.
    ParamsError
        When the name or a flag cannot be used.
    """
    site = site if site is not None else SiteParams(name="local")
    if site.uses_slurm:
        from tautools.servers.backends.slurm import launch_job

        return launch_job(params, workspace=workspace, site=site, name=name)
    check_launch(params, workspace=workspace, site=site, name=name, force=force)
    name, registry = name or params.name, Registry(workspace)
    start = partial(_start_process, params, site, name, registry, force=force)
    return Server(start(), workspace=workspace, start_again=None if params.port is not None else start)


def check_launch(
    params: ServerParams,
    *,
    workspace: Path,
    site: SiteParams | None = None,
    name: str | None = None,
    force: bool = False,
) -> None:
    """Raise what `launch` would raise, as far as it can be known before.

    No server is started or written down; an environment that is new here is asked which flags its vLLM knows.

    Parameters
    ----------
    params, workspace, site, name, force
        As `launch`.

    Raises
    ------
    ServerError, ParamsError
        As `launch`; a command that is not installed is a ServerError here.
    """
    site = site if site is not None else SiteParams(name="local")
    if site.uses_slurm:
        from tautools.servers.backends.slurm import check_job

        check_job(params, workspace=workspace, site=site, name=name)
        warn_missing_model(params, site, Registry(workspace))
        return
    name, registry = check_name(name or params.name), Registry(workspace)
    require_free_name(name, registry)
    port = choose_port(site.host, asked=params.port, avoid=_registered_ports(registry))
    argv = server_argv(params, site, ListenAddress(site.host, port, alias="check"))
    if shutil.which(argv[0]) is None:
        raise ServerError(
            f"`{argv[0]}`, which starts server {name!r}, is not installed in this session.",
            evidence=f"PATH={os.environ.get('PATH', '')}",
            next_step="Give the command of the vLLM environment as `serve_command` in the site or server file: "
            "docs/servers.md has the recipe.",
        )
    routable_host(site.host, site.reach)
    check_model(params, site, registry)
    check_options(params, site, registry)
    require_cards(params, site, registry, force=force)


def require_free_name(name: str, registry: Registry) -> None:
    """Raise when a server of that name may still run.

    Raises
    ------
    ServerError
        With what runs, and what to do.
    """
    known = registry.find(check_name(name))
    if known is None:
        return
    if known.backend == "slurm":
        from tautools.servers.backends.slurm import refuse_live_job

        refuse_live_job(known, registry)
        return
    if known.backend == "attached":
        raise ServerError(
            f"A server named {name!r} is attached in this workspace.",
            evidence=known.base_url,
            next_step=f"Start this one under another name, or forget that one with `tautools server stop {name}`.",
        )
    if not known.on_this_host:
        raise ServerError(
            f"A server named {name!r} is registered on host {known.host}.",
            next_step="Stop it there, or start this one under another name.",
        )
    if known.pid is not None and known.pid_started_at is not None and group_members(known.pid, known.pid_started_at):
        runs = "runs already" if process_alive(known.pid, known.pid_started_at) else "has left workers behind"
        raise ServerError(
            f"A server named {name!r} {runs} in this workspace.",
            evidence=f"process {known.pid}, {known.base_url}",
            next_step=f"Use it, stop it with `tautools server stop {name}`, or start this one under another name.",
        )


def _registered_ports(registry: Registry) -> set[int]:
    """Return the ports of this machine's registered servers, some of which have not bound theirs yet."""
    return {_port_of(record) for record in registry.list() if record.on_this_host}


def _start_process(
    params: ServerParams, site: SiteParams, name: str, registry: Registry, *, force: bool
) -> ServerRecord:
    with registry.claim():
        require_free_name(name, registry)
        # Asked again: another launch may have taken them since.
        cards = require_cards(params, site, registry, force=force)
        old = registry.find(name)
        if old is not None:
            registry.remove(old)
        port = choose_port(site.host, asked=params.port, avoid=_registered_ports(registry))
        place = ListenAddress(site.host, port, alias=f"launch-{secrets.token_hex(8)}")
        key, key_file = registry.new_key(name)
        cache = (registry.folder / "cache" / name).resolve()
        env = server_env(*_by_module(cards, params, site), key=key, cache=cache, inherited=os.environ)
        record = _new_record(params, site, name, place, key_file)
        return _run_process(record.model_copy(update={"cards": _card_map(cards)}), env, registry)


def _by_module(cards: list[Card], params: ServerParams, site: SiteParams) -> tuple[ServerParams, SiteParams]:
    """Return the params with the cards as the device's own variable names them: by module on Gaudi."""
    if not cards:
        return params, site
    modules = [card.module for card in cards]
    return params.model_copy(update={"cards": modules}), site.model_copy(update={"device": cards[0].device})


def _card_map(cards: list[Card]) -> dict[str, str]:
    """Return what a certificate tells of the cards: which of the node's, and by which name of the device's own."""
    return {
        str(card.index): str(card.module) if card.device == "gaudi" else card.uuid or str(card.module) for card in cards
    }


def _new_record(
    params: ServerParams, site: SiteParams, name: str, place: ListenAddress, key_file: Path
) -> ServerRecord:
    return ServerRecord(
        name=name,
        engine=params.engine,
        model=params.serves,
        alias=place.alias,
        base_url=f"http://{routable_host(site.host, site.reach)}:{place.port}/v1",
        key_file=str(key_file.resolve()),
        host=socket.gethostname(),
        argv=server_argv(params, site, place),
        spec=params.model_dump(mode="json"),
        site=site.model_dump(mode="json"),
        started_at=time.time(),
        simulated=params.simulated,
        owner=getpass.getuser(),
    )


def _run_process(record: ServerRecord, env: dict[str, str], registry: Registry) -> ServerRecord:
    """Start the process with its logs, and register it; a process that cannot be registered is ended again."""
    workspace = registry.workspace.resolve()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(record.started_at))
    out = ensure_folder(workspace / "logs") / f".{record.name}-{record.alias}.out"
    err = ensure_folder(workspace / "errors") / f".{record.name}-{record.alias}.err"
    out.write_text(_log_header(record))
    registered = threading.Event()

    def on_exit(code: int) -> None:
        registered.wait()
        registry.write_exit(record.name, record.alias, code)

    process = start_detached(record.argv, env=env, cwd=workspace, stdout=out, stderr=err, on_exit=on_exit)
    try:
        # The pid is known only now; the open files keep their new names.
        final = f"{record.name}_{stamp}-{process.pid}"
        found = {
            "pid": process.pid,
            "pid_started_at": process.started_at,
            "log_out": str(out.rename(out.with_name(f"{final}.out"))),
            "log_err": str(err.rename(err.with_name(f"{final}.err"))),
        }
        started = record.model_copy(update=found)
        registry.add(started)
    except BaseException:
        stop_group(process.pid, process.started_at, term_s=0.0)
        raise
    finally:
        registered.set()
    return started


def _log_header(record: ServerRecord) -> str:
    rule = "=" * 36
    return (
        f"{rule}\n"
        f"Starting {record.engine} server {record.name} on node: {record.host}\n"
        f"Model: {record.model}\n"
        f"Server base: {record.base_url}\n"
        f"{rule}\n"
    )


def _port_of(record: ServerRecord) -> int:
    return urlsplit(record.base_url).port or 0


_AT_ONCE = 8


def attach(
    name: str,
    url: str,
    *,
    workspace: Path,
    model: str = "",
    key: str = "",
    group: str = "",
) -> Server:
    """Prove a running server and register it; `stop` forgets it again without touching its process.

    Parameters
    ----------
    name : str
        What it shall be called here.
    url : str
        Its address, such as `http://gaudi001:8007/v1`.
    workspace : Path
        Where it is registered.
    model : str
        The name that requests carry; the first that the server tells by default.
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
        When a check of the ladder fails; nothing is registered then.
    """
    registry, base_url = Registry(workspace), _url_without_user(url)
    _require_new(check_name(name), registry)
    record = ServerRecord(
        name=name,
        backend="attached",
        engine="attached",
        model=model or _first_model(base_url, key),
        base_url=base_url,
        key_file=str((registry.folder / f"{name}.key").resolve()) if key else "",
        spec={"name": check_name(group)} if group else {},
        started_at=time.time(),
        owner=getpass.getuser(),
    )
    with registry.claim():
        _require_new(name, registry)
        if key:
            write_atomic(registry.folder / f"{name}.key", key + "\n", mode=0o600)
        registry.add(record)
    server = Server(record, workspace=workspace)
    try:
        _verify_or_raise(server)
    except BaseException:
        registry.remove(record)
        raise
    return server


def attach_all(
    found: Iterable[ModelAddresses], *, workspace: Path, key: str = ""
) -> tuple[list[Server], dict[str, TautoolsError]]:
    """Attach every address of every model, side by side.

    Parameters
    ----------
    found : iterable of Served
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

    def one(job: tuple[str, str, str, str]) -> Server | TautoolsError:
        name, group, model, url = job
        try:
            return attach(name, url, workspace=workspace, model=model, key=key, group=group)
        except TautoolsError as error:
            return error

    jobs = _named_addresses(found)
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        came = dict(zip((job[0] for job in jobs), pool.map(one, jobs), strict=True))
    done = [server for server in came.values() if isinstance(server, Server)]
    return done, {name: error for name, error in came.items() if isinstance(error, TautoolsError)}


def _named_addresses(found: Iterable[ModelAddresses]) -> list[tuple[str, str, str, str]]:
    """Return name, group, model and address of each server; models of one short name get groups of their own."""
    jobs: list[tuple[str, str, str, str]] = []
    groups: Counter[str] = Counter()
    for served in found:
        plain = short_name(served.model)
        groups[plain] += 1
        group = plain if groups[plain] == 1 else f"{plain}_{groups[plain]}"
        many = len(served.base_urls) > 1
        jobs += [
            (f"{group}-{number}" if many else group, group, served.model, url)
            for number, url in enumerate(served.base_urls, start=1)
        ]
    return jobs


def _first_model(base_url: str, key: str) -> str:
    from tautools.http import Http

    answer = ask_models(base_url, key=key, http=Http())
    if not answer.names:
        refused = answer.status in {401, 403}
        raise VerifyError(
            f"{base_url} does not tell which models it serves.",
            evidence=answer.detail or f"/v1/models answers {answer.status}",
            next_step="Name the variable that holds its key with --key-env."
            if refused
            else "Check the address, and that the server runs.",
        )
    return answer.names[0]


def _url_without_user(url: str) -> str:
    base_url = as_base_url(url)
    if "@" in urlsplit(base_url).netloc:
        raise ParamsError(
            "The address of a server must not hold a user or a password.",
            next_step="Put the key in an environment variable and name it with --key-env.",
        )
    return base_url


def _require_new(name: str, registry: Registry) -> None:
    known = registry.find(name)
    if known is not None:
        raise ServerError(
            f"A server named {name!r} is registered already.",
            evidence=known.base_url,
            next_step=f"Attach this one under another name, or `tautools server stop {name}` first.",
        )


def _verify_or_raise(server: Server) -> None:
    certificate = server.verify()
    failed = next((check for check in certificate.checks if check.passed is False), None)
    if failed is not None:
        raise VerifyError(
            f"{server.record.base_url} is not attached: it fails check {failed.number} of the ladder, {failed.name}.",
            evidence=failed.detail,
            next_step=f"Mend it, then see with `tautools server verify {server.record.base_url}`.",
        )


_FAILED_STATES = {State.FAILED, State.OUT_OF_MEMORY, State.TIMEOUT, State.PREEMPTED, State.NODE_FAIL}
"""States with a cause: the server did not end because it was asked to."""


@dataclass(frozen=True, slots=True)
class Restart:
    """What a relaunch would do."""

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
        When no server of that name is registered, or a fix is asked for and none is known.
    """
    registry = Registry(workspace)
    record = registry.get(name)
    state = server_state(record, workspace=workspace).state
    diagnosis = cause_of(record, registry) if state in _FAILED_STATES else None
    spec, changes = dict(record.spec), list[str]()
    if fix:
        if diagnosis is None:
            raise ServerError(
                f"Server {name!r} has not failed, so there is nothing to fix: it is {state.value}.",
                next_step=f"See how it is with `tautools server ls`; `tautools server relaunch {name}` starts it anew.",
            )
        spec, changes = apply_fix(spec, diagnosis.changes)
        if not changes:
            raise ServerError(
                f"No change is known that would mend server {name!r} by itself: {diagnosis.cause}",
                evidence=diagnosis.evidence,
                next_step=diagnosis.fix,
            )
    return Restart(record, ServerParams.model_validate(spec), changes, diagnosis)


def restart(plan: Restart, *, workspace: Path) -> Server:
    """Stop what is left of the former launch, start it as planned, and write down what was changed."""
    open_server(plan.record.name, workspace=workspace).stop()
    site = SiteParams.model_validate(plan.record.site) if plan.record.site else None
    server = launch(plan.params, workspace=workspace, site=site, name=plan.record.name)
    why = f" ({plan.diagnosis.cause})" if plan.diagnosis is not None else ""
    told = [*plan.record.changes, *(change + why for change in plan.changes)]
    if told:
        server.record = server.record.model_copy(update={"changes": told})
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
    tree, told = copy.deepcopy(dict(spec)), []
    for name, value in fix.items():
        *parents, last = name.split(".", 2)
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        old = place.get(last)
        if old == value:
            continue
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
        told.append(f"{name}: {_as_json(old)} -> {_as_json(value)}")
    return tree, told


def _as_json(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
