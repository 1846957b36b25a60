"""Start a server as a process of this machine, and write down at once what was started.

Nothing waits here: the process runs, its record lies under `servers/launches/`, and the handle says how far it is.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tautools.errors import ServerError
from tautools.files import ensure_folder
from tautools.params.models import SiteParams
from tautools.records import ServerRecord
from tautools.server.cards.guard import require_cards
from tautools.server.handle import Server
from tautools.server.layout.ports import choose_port
from tautools.server.preflight import check_model, check_options, look_for_model
from tautools.server.reach import reachable_host
from tautools.server.registry import Registry, check_name
from tautools.server.vllm.command import Place, server_argv, server_env
from tautools.shell import group_members, process_alive, start_detached, stop_group

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.params.models import ServerParams
    from tautools.server.cards.node import Card

__all__ = ["check_launch", "launch", "require_free_name"]


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
    if site.scheduler == "slurm":
        from tautools.server.on_slurm.launch import launch_job

        return launch_job(params, workspace=workspace, site=site, name=name)
    check_launch(params, workspace=workspace, site=site, name=name, force=force)
    name, registry = name or params.name, Registry(workspace)
    start = partial(_start, params, site, name, registry, force=force)
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
    if site.scheduler == "slurm":
        from tautools.server.on_slurm.launch import check_job

        check_job(params, workspace=workspace, site=site, name=name)
        look_for_model(params, site, Registry(workspace))
        return
    name, registry = check_name(name or params.name), Registry(workspace)
    require_free_name(name, registry)
    port = choose_port(site.host, asked=params.port, avoid=_promised(registry))
    argv = server_argv(params, site, Place(site.host, port, alias="check"))
    if shutil.which(argv[0]) is None:
        raise ServerError(
            f"`{argv[0]}`, which starts server {name!r}, is not installed in this session.",
            evidence=f"PATH={os.environ.get('PATH', '')}",
            next_step="Give the command of the vLLM environment as `serve_command` in the site or server file: "
            "docs/servers.md has the recipe.",
        )
    reachable_host(site.host, site.reach)
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
    if known.how == "slurm":
        from tautools.server.on_slurm.launch import refuse_live_job

        refuse_live_job(known, registry)
        return
    if known.how == "attach":
        raise ServerError(
            f"A server named {name!r} is attached in this workspace.",
            evidence=known.base_url,
            next_step=f"Start this one under another name, or forget that one with `tautools server stop {name}`.",
        )
    if known.host not in {"", socket.gethostname()}:
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


def _promised(registry: Registry) -> set[int]:
    """Return the ports of this machine's registered servers, some of which have not bound theirs yet."""
    return {_port_of(record) for record in registry.list() if record.host in {"", socket.gethostname()}}


def _start(params: ServerParams, site: SiteParams, name: str, registry: Registry, *, force: bool) -> ServerRecord:
    with registry.claim():
        require_free_name(name, registry)
        # Asked again: another launch may have taken them since.
        cards = require_cards(params, site, registry, force=force)
        old = registry.find(name)
        if old is not None:
            registry.remove(old)
        port = choose_port(site.host, asked=params.port, avoid=_promised(registry))
        place = Place(site.host, port, alias=f"launch-{secrets.token_hex(8)}")
        key, key_file = registry.new_key(name)
        cache = (registry.folder / "cache" / name).resolve()
        env = server_env(*_shown(cards, params, site), key=key, cache=cache, inherited=os.environ)
        record = _record(params, site, name, place, key_file)
        return _run(record.model_copy(update={"cards": _card_map(cards)}), env, registry)


def _shown(cards: list[Card], params: ServerParams, site: SiteParams) -> tuple[ServerParams, SiteParams]:
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


def _record(params: ServerParams, site: SiteParams, name: str, place: Place, key_file: Path) -> ServerRecord:
    return ServerRecord(
        name=name,
        engine=params.engine,
        model=params.serves,
        alias=place.alias,
        base_url=f"http://{reachable_host(site.host, site.reach)}:{place.port}/v1",
        key_file=str(key_file.resolve()),
        host=socket.gethostname(),
        argv=server_argv(params, site, place),
        spec=params.model_dump(mode="json"),
        site=site.model_dump(mode="json"),
        started_at=time.time(),
        simulated=params.engine == "simulate",
        owner=getpass.getuser(),
    )


def _run(record: ServerRecord, env: dict[str, str], registry: Registry) -> ServerRecord:
    """Start the process with its logs, and register it; a process that cannot be registered is ended again."""
    workspace = registry.workspace.resolve()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(record.started_at))
    out = ensure_folder(workspace / "logs") / f".{record.name}-{record.alias}.out"
    err = ensure_folder(workspace / "errors") / f".{record.name}-{record.alias}.err"
    out.write_text(_header(record))
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


def _header(record: ServerRecord) -> str:
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
