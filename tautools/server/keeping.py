"""Servers that end by themselves: after minutes without a request, or when their owner is gone.

The watching is done by a small process of its own (`python -m tautools.server.keeper`), so that it goes on when the
notebook is closed; it ends with the server. It writes down what it sees in `servers/launches/<name>.keeper`, and
`kept` reads that.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tautools.errors import ParamsError, ServerError
from tautools.files import ensure_folder, write_atomic
from tautools.params.secrets import names_a_secret
from tautools.server.registry import Registry
from tautools.shell import Process, process_alive, start_detached

if TYPE_CHECKING:
    from tautools.records import ServerRecord
    from tautools.server.handle import Server

__all__ = [
    "KeeperNote",
    "Terms",
    "forget_note",
    "keep",
    "kept",
    "kernel_of",
    "note_file",
    "owner_process",
    "write_note",
]

_KERNEL_MARKS = ("ipykernel_launcher", "ipykernel", "colab_kernel_launcher")


@dataclass(frozen=True, slots=True)
class Terms:
    """When a server shall end by itself."""

    idle_s: float | None = None
    """Without any request for this long [s]."""
    owner: Process | None = None
    """When this process is gone, and nothing was asked of the server for `quiet_s`."""
    quiet_s: float = 120.0
    """A run that goes on without the owner asks at least this often [s]."""
    every_s: float = 15.0
    """How often is looked [s]."""

    def __post_init__(self) -> None:
        if self.idle_s is None and self.owner is None:
            raise ParamsError(
                "Neither an idle time nor an owner is given, so there is nothing to watch for.",
                next_step="Give `idle_s` or `owner`.",
            )
        if (self.idle_s is not None and self.idle_s <= 0) or self.quiet_s < 0 or self.every_s <= 0:
            raise ParamsError("The times of a keeper must be above 0 s.", next_step="Give times above 0.")


@dataclass(frozen=True, slots=True)
class KeeperNote:
    """What the keeper of a server wrote down last."""

    alias: str
    pid: int
    started_at: float
    host: str
    idle_s: float | None
    """The idle time after which it stops the server [s]."""
    owner_pid: int | None
    seen_at: float
    """When it looked last [s since the epoch]."""
    quiet_since: float | None
    """Since when nothing was asked of the server [s since the epoch]; None while it works or does not tell."""
    owner_gone: bool = False
    stopping: str = ""
    """Why it is stopping the server; empty while it is not."""

    @property
    def running(self) -> bool:
        """Whether the keeper still runs; of one on another host nothing is known, and its last look counts."""
        if self.host != socket.gethostname():
            return time.time() - self.seen_at < 120
        return process_alive(self.pid, self.started_at)

    def __str__(self) -> str:
        if self.stopping:
            return f"being stopped: {self.stopping}"
        parts = []
        if self.idle_s is not None:
            left = self.idle_s if self.quiet_since is None else self.idle_s - (time.time() - self.quiet_since)
            parts.append(f"ends after {_minutes(self.idle_s)} idle, {_minutes(max(0.0, left))} left")
        if self.owner_pid is not None:
            gone = f"process {self.owner_pid} is gone: ends when nothing uses it"
            parts.append(gone if self.owner_gone else f"ends with process {self.owner_pid}")
        return "; ".join(parts)


def keep(server: Server, terms: Terms) -> Process:
    """Start the process that ends `server` on these terms, and return it.

    Raises
    ------
    ServerError
        When the server is not registered any more.
    """
    record, workspace = server.record, Path(server.workspace).resolve()
    if not Registry(workspace).is_current(record):
        raise ServerError(
            f"Server {record.name!r} of this handle was stopped or replaced.",
            next_step="Take a new handle from the registry.",
        )
    log = ensure_folder(workspace / "logs") / f"{record.name}_keeper-{record.alias}.log"
    # Nothing secret is needed for watching and stopping, so nothing secret is handed on.
    env = {name: value for name, value in os.environ.items() if not names_a_secret(name)}
    return start_detached(_argv(record, workspace, terms), env=env, cwd=workspace, stdout=log, stderr=log)


def kept(record: ServerRecord, *, workspace: Path) -> KeeperNote | None:
    """Return what the keeper of this launch wrote last; None when it has none that runs."""
    note = _read_note(record, workspace)
    return note if note is not None and note.running else None


def note_file(name: str, workspace: Path) -> Path:
    """Return where the keeper of a server writes what it sees."""
    return Path(workspace) / "servers" / "launches" / f"{name}.keeper"


def write_note(name: str, workspace: Path, note: KeeperNote) -> None:
    """Write down what the keeper sees, private as everything of the registry."""
    write_atomic(note_file(name, workspace), json.dumps(asdict(note)), mode=0o600)


def forget_note(record: ServerRecord, workspace: Path) -> None:
    """Remove what the keeper of this launch wrote; another launch's stays."""
    if _read_note(record, workspace) is not None:
        note_file(record.name, workspace).unlink(missing_ok=True)


def _read_note(record: ServerRecord, workspace: Path) -> KeeperNote | None:
    try:
        note = KeeperNote(**json.loads(note_file(record.name, workspace).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return note if note.alias == record.alias else None


def owner_process(pid: int) -> Process:
    """Return the running process with this pid, with its start time.

    Raises
    ------
    ParamsError
        When there is none.
    """
    try:
        return Process(pid, psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError) as error:
        raise ParamsError(
            f"There is no process {pid}, so no server can be leased to it.",
            evidence=str(error),
            next_step="Give the pid of a process of this machine, or `kernel` in a notebook.",
        ) from error


def kernel_of(pid: int | None = None) -> Process:
    """Return the notebook kernel that `pid` (this process by default) was started from, or is.

    Raises
    ------
    ParamsError
        When no process above it is one.
    """
    start = psutil.Process(pid)
    for process in (start, *start.parents()):
        try:
            words = process.cmdline()
            if any(mark in word for word in words[:4] for mark in _KERNEL_MARKS):
                return Process(process.pid, process.create_time())
        except psutil.Error:
            continue
    raise ParamsError(
        "This was not started from a notebook, so there is no kernel to lease the server to.",
        next_step="Run it in a cell (`!tautools server up …`), or give a pid: `--lease $$` ends it with your shell.",
    )


def _argv(record: ServerRecord, workspace: Path, terms: Terms) -> list[str]:
    words = [sys.executable, "-m", "tautools.server.keeper", "--workspace", str(workspace)]
    words += ["--name", record.name, "--alias", record.alias]
    words += ["--quiet-s", repr(terms.quiet_s), "--every-s", repr(terms.every_s)]
    if terms.idle_s is not None:
        words += ["--idle-s", repr(terms.idle_s)]
    if terms.owner is not None:
        words += ["--owner-pid", str(terms.owner.pid), "--owner-started-at", repr(terms.owner.started_at)]
    return words


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
