"""Servers as processes of this machine, and the addresses by which other nodes reach them."""

import ipaddress
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence

import psutil

from tautools.errors import ParamsError, ServerError
from tautools.files import ensure_folder
from tautools.records import ServerRecord
from tautools.servers.accelerators.assignment import require_cards
from tautools.servers.backends import Backend, Look, check_model, check_options, name_taken, new_record
from tautools.servers.placement import LaunchRequest
from tautools.servers.ports import bracketed, choose_port
from tautools.servers.registry import Registry, processes_of
from tautools.servers.state import Snapshot, ended_state, out_of_sight, process_runs, silent_state
from tautools.servers.vllm.command import server_argv, server_env
from tautools.shell import start_detached, stop_group

_EVERY_ADDRESS = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound to


class LocalBackend(Backend):
    """Processes of this machine. A process on another host is listed, and can only be reached by its address."""

    def check(self, requests: Sequence[LaunchRequest], registry: Registry) -> None:
        """Check port, command, address, model, options and cards of each."""
        for request in requests:
            _check(request, registry)

    def start(self, requests: Sequence[LaunchRequest], registry: Registry) -> list[ServerRecord]:
        """Start the processes on cards and ports that are free now."""
        return [_start(request, registry) for request in requests]

    def refuse_running(self, record: ServerRecord, registry: Registry) -> None:
        """Raise when the process, or a worker it left behind, runs."""
        if not record.on_this_host:
            raise name_taken(record, f"is registered on host {record.host}", "", "There, stop")
        if processes_of(record):
            what = "runs already" if process_runs(record) else "has left workers behind"
            raise name_taken(
                record, f"{what} in this workspace", f"process {record.pid}, {record.base_url}", "Use it, stop"
            )

    def poll(self, record: ServerRecord, look: Look) -> Snapshot:
        """Ask the process first, then the address, then the log."""
        if record.on_this_host and not process_runs(record):
            return ended_state(record, look.registry)
        answer, snapshot = look.ask(record)
        if snapshot is not None:
            return snapshot
        if not record.on_this_host:
            return out_of_sight(record)
        if process_runs(record):
            return silent_state(record, look.registry, answer)
        return ended_state(record, look.registry)  # it ended while it was asked

    def has_ended(self, record: ServerRecord, registry: Registry) -> bool:
        """Return whether the process is gone; a process on another host counts as running."""
        return record.on_this_host and not process_runs(record)

    def stop(self, record: ServerRecord, registry: Registry, emit: Callable[[str], None], *, term_s: float) -> None:
        """End the whole process group, and wait until its cards are free."""
        if not record.on_this_host:
            raise ServerError(
                f"Server {record.name!r} runs on host {record.host}, which this session cannot reach into.",
                next_step=f"Run `tautools server stop {record.name}` there.",
            )
        if record.process is None:
            return
        stop_group(*record.process, term_s=term_s, on_signal=emit)
        if record.spec.get("cards") and not record.simulated:
            from tautools.servers.accelerators.assignment import RELEASE_TIMEOUT_S, wait_released

            longest_s = float(record.spec.get("release_timeout_s", RELEASE_TIMEOUT_S))
            wait_released(record.spec["cards"], timeout_s=longest_s, emit=emit)


def routable_host(bound: str, reach: str | None = None) -> str:
    """Return the host part of the address that others use for a server bound to `bound`.

    Of a server bound to every address that is the address of the interface, in the network or at the address that
    `reach` names (a ParamsError when there is none), and the host name without it.
    """
    if bound not in _EVERY_ADDRESS:
        return bracketed(bound)
    if reach is None:
        return socket.gethostname()
    addresses = node_addresses()
    fitting = addresses.get(reach) or [each for own in addresses.values() for each in own if _in_network(each, reach)]
    if not fitting:
        raise ParamsError(
            f"This node has no interface or address that fits `reach: {reach}` of the site.",
            evidence="; ".join(f"{name}: {', '.join(own)}" for name, own in addresses.items()),
            next_step="Name one of these interfaces, or a network such as 10.0.0.0/8.",
        )
    return bracketed(fitting[0])


def node_addresses() -> dict[str, list[str]]:
    """Return this node's addresses by interface, those of IPv4 first; link-local ones are left out."""
    addresses: dict[str, list[str]] = {}
    for name, entries in psutil.net_if_addrs().items():
        for family in (socket.AF_INET, socket.AF_INET6):
            own = [entry.address.partition("%")[0] for entry in entries if entry.family == family]
            addresses.setdefault(name, []).extend(each for each in own if not ipaddress.ip_address(each).is_link_local)
    return {name: own for name, own in addresses.items() if own}


def _in_network(address: str, reach: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(reach, strict=False)
    except ValueError:
        return False


def _check(request: LaunchRequest, registry: Registry) -> None:
    params, site = request.params, request.site
    port = choose_port(site.host, asked=params.port, avoid=registry.ports())
    argv = server_argv(params, site, port=port, alias="check")
    if shutil.which(argv[0]) is None:
        raise ServerError(
            f"`{argv[0]}`, which starts server {request.name!r}, is not installed in this session.",
            evidence=f"PATH={os.environ.get('PATH', '')}",
            next_step="Give the command of the vLLM environment as `serve_command` in the site or server file: "
            "docs/servers.md has the recipe.",
        )
    routable_host(site.host, site.reach)
    check_model(params, site, registry)
    check_options(params, site, registry)
    if params.cards:
        require_cards(params, site, registry, force=request.force)


def _start(request: LaunchRequest, registry: Registry) -> ServerRecord:
    params, site, name = request.params, request.site, request.name
    # Another launch may have taken them.
    cards = require_cards(params, site, registry, force=request.force) if params.cards else []
    port = choose_port(site.host, asked=params.port, avoid=registry.ports())
    key, key_file = registry.new_key(name)
    record = new_record(
        request,
        port=port,
        base_url=f"http://{routable_host(site.host, site.reach)}:{port}/v1",
        key_file=str(key_file.resolve()),
        host=socket.gethostname(),
        cards={
            str(card.index): str(card.module) if card.device == "gaudi" else card.uuid or str(card.module)
            for card in cards
        },
    )
    if cards:  # as the device's own variable names them: by module on Gaudi
        params = params.model_copy(update={"cards": [card.module for card in cards]})
        site = site.model_copy(update={"device": cards[0].device})
    cache = (registry.folder / "cache" / name).resolve()
    env = server_env(params, site, key=key, cache=cache, inherited=os.environ)
    return _run_process(record, env, registry)


def _run_process(record: ServerRecord, env: Mapping[str, str], registry: Registry) -> ServerRecord:
    """Start the process with its logs, and register it; a process that cannot be registered is ended again."""
    workspace = registry.workspace.resolve()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(record.started_at))
    out = ensure_folder(workspace / "logs") / f".{record.name}-{record.alias}.out"
    err = ensure_folder(workspace / "errors") / f".{record.name}-{record.alias}.err"
    rule = "=" * 36
    out.write_text(
        f"{rule}\nStarting {record.engine} server {record.name} on node: {record.host}\n"
        f"Model: {record.model}\nServer base: {record.base_url}\n{rule}\n"
    )
    registered = threading.Event()

    def on_exit(code: int) -> None:
        registered.wait()
        registry.write_exit(record, code)

    process = start_detached(record.argv, env=env, cwd=workspace, stdout=out, stderr=err, on_exit=on_exit)
    try:
        # The pid is known only now; the open files keep their new names.
        final = f"{record.name}_{stamp}-{process.pid}"
        fields = {
            "pid": process.pid,
            "pid_started_at": process.started_at,
            "log_out": str(out.rename(out.with_name(f"{final}.out"))),
            "log_err": str(err.rename(err.with_name(f"{final}.err"))),
        }
        started = record.model_copy(update=fields)
        registry.add(started)
    except BaseException:
        stop_group(process.pid, process.started_at, term_s=0.0)
        raise
    finally:
        registered.set()
    return started
