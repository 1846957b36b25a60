"""Ports: find a free one with a plain bind, and say who holds one that is taken.

The bind is plain on purpose: with `SO_REUSEPORT`, as vLLM itself binds, two servers of one user both start on one port
and share its requests silently.
"""

import errno
import os
import socket
from collections.abc import Callable, Collection
from pathlib import Path

import psutil

from tautools.errors import ServerError


def bracketed(address: str) -> str:
    """Return an address as the host part of a URL: one of IPv6 stands in brackets."""
    return f"[{address}]" if ":" in address else address


def choose_port(host: str, *, asked: int | None = None, avoid: Collection[int] = ()) -> int:
    """Return a port on `host` on which nothing listens: the asked-for one, or any.

    `avoid` are ports promised to servers that are starting and have not bound theirs yet. A ServerError is raised when
    the asked-for port is taken; it names the port's owner as far as this user may know it.
    """
    if asked is None:
        while (port := _bind(host, 0)) in avoid:
            pass
        return port
    if asked in avoid:
        raise ServerError(
            f"Port {asked} is promised to another server of this workspace.",
            next_step="See `tautools server ls`; stop that server, or leave out --port to get a free one.",
        )
    try:
        _bind(host, asked)
    except OSError as error:
        # Connections of a server that has just stopped keep the port for a minute; a new server can still use it.
        if error.errno == errno.EADDRINUSE and not listeners(asked) and not _accepts_connection(host, asked):
            return asked
        raise ServerError(
            f"Port {asked} on {host} cannot be used: it belongs to {_owner_of(asked)}.",
            evidence=str(error),
            next_step="Leave out --port to get a free one, or stop what listens there if it is yours.",
        ) from error
    return asked


def is_free(host: str, port: int, *, avoid: Collection[int] = ()) -> bool:
    """Return whether `choose_port` would take the port, and this user may use it."""
    try:
        choose_port(host, asked=port, avoid=avoid)
    except ServerError:
        return False
    return port >= 1024 or os.getuid() == 0


def listeners(port: int) -> list[int | None]:
    """Return the pid of every socket that listens on `port`; None for another user's. Empty when none can be seen."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.Error:
        return []
    return [c.pid for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port]


def other_listeners(port: int, members: Callable[[], Collection[int]]) -> list[int | None]:
    """Return who else listens on a server's port, whose own pids `members` gives; None for another user's process.

    The kernel's list of sockets is read in a fraction of a millisecond; finding who owns them means looking at every
    process and takes a hundred times as long. So that is done only for the rare port with several sockets.
    """
    pids = listeners(port) if _listening_sockets(port) > 1 else []
    own = members() if pids else ()
    return [pid for pid in pids if pid not in own]


def _listening_sockets(port: int) -> int:
    """Return how many sockets listen on `port`; 2 (look closer) where the kernel's list cannot be read."""
    tables = [table for table in map(Path, ("/proc/net/tcp", "/proc/net/tcp6")) if table.exists()]
    try:
        rows = [line.split() for table in tables for line in table.read_text().splitlines()[1:]]
        # "0A" is the kernel's number for a socket that listens.
        sockets = {row[9] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    except (OSError, IndexError):
        return 2
    return len(sockets) if tables else 2


def _owner_of(port: int) -> str:
    pid = next(iter(listeners(port)), 0)
    if not pid:
        return "a process of another user" if pid is None else "a process that cannot be seen from here"
    try:
        process = psutil.Process(pid)
        return f"process {pid} ({process.name()}) of {process.username()}"
    except psutil.Error:
        return f"process {pid}"


def _bind(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, port))
        return int(probe.getsockname()[1])


def _accepts_connection(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((host, port)) == 0
