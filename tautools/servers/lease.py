"""Servers that end by themselves: after minutes without a request, or when their owner is gone.

A watchdog, a process of its own, watches the server, so that it goes on when the notebook is closed; it ends with the
server. It looks at the process and at `/metrics`, never at the key, and stops the server as `tautools server stop`
does. A server that does not answer `/metrics` is not called idle; only its owner's end counts then. What the watchdog
sees is in `servers/launches/<name>.lease`; `active_lease` reads it.
"""

import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, model_validator

from tautools.errors import ParamsError, TautoolsError
from tautools.files import ensure_folder, write_atomic
from tautools.records import ServerRecord
from tautools.redaction import names_a_secret
from tautools.servers.metrics import Sample, ask_metrics
from tautools.servers.registry import Registry
from tautools.servers.server import Server
from tautools.shell import Process, process_alive, start_detached, this_process

_LOG = logging.getLogger("tautools.servers.lease")
_KERNEL_MARKS = ("ipykernel_launcher", "ipykernel", "colab_kernel_launcher")


class LeaseTerms(BaseModel, frozen=True):
    """When a server must end by itself."""

    idle_s: float | None = None
    """Without any request for this long [s]."""
    owner: Process | None = None
    """When this process is gone, and nothing was asked of the server for `quiet_s`."""
    quiet_s: float = 120.0
    """A run that goes on without the owner asks at least this often [s]."""
    every_s: float = 15.0
    """How often the watchdog looks [s]."""

    @model_validator(mode="after")
    def _can_be_met(self) -> "LeaseTerms":
        if self.idle_s is None and self.owner is None:
            raise ParamsError(
                "Neither an idle time nor an owner is given, so there is nothing to watch for.",
                next_step="Give `idle_s` or `owner`.",
            )
        if (self.idle_s is not None and self.idle_s <= 0) or self.quiet_s < 0 or self.every_s <= 0:
            raise ParamsError("The times of a lease must be above 0 s.", next_step="Give times above 0.")
        return self


class Lease(BaseModel, frozen=True):
    """What the watchdog of a server wrote down last."""

    alias: str
    terms: LeaseTerms
    watchdog: Process
    host: str
    seen_at: float
    """When it looked last [s since the epoch]."""
    quiet_since: float | None = None
    """Since when nothing was asked of the server [s since the epoch]; None while it works or does not say."""
    owner_gone: bool = False
    stopping: str = ""
    """Why it is stopping the server; empty while it is not."""

    @property
    def running(self) -> bool:
        """Whether the watchdog still runs; of one on another host only its last look is known."""
        if self.host != socket.gethostname():
            return time.time() - self.seen_at < 120
        return process_alive(self.watchdog.pid, self.watchdog.started_at)

    def __str__(self) -> str:
        if self.stopping:
            return f"being stopped: {self.stopping}"
        parts, idle_s, owner = [], self.terms.idle_s, self.terms.owner
        if idle_s is not None:
            left = idle_s if self.quiet_since is None else idle_s - (time.time() - self.quiet_since)
            parts.append(f"ends after {_format_minutes(idle_s)} idle, {_format_minutes(max(0.0, left))} left")
        if owner is not None:
            gone = f"process {owner.pid} is gone: ends when nothing uses it"
            parts.append(gone if self.owner_gone else f"ends with process {owner.pid}")
        return "; ".join(parts)


def start_watchdog(server: Server, terms: LeaseTerms) -> Process:
    """Start the process that ends `server` on these terms, and return it; the server must be registered still."""
    record, workspace = server.record, server.workspace.resolve()
    Registry(workspace).require(record)
    log = ensure_folder(workspace / "logs") / f"{record.name}_watchdog-{record.alias}.log"
    # Nothing secret is needed for watching and stopping, so nothing secret is passed on.
    env = {name: value for name, value in os.environ.items() if not names_a_secret(name)}
    argv = [sys.executable, "-m", "tautools.servers.lease", str(workspace), record.name, record.alias]
    return start_detached([*argv, terms.model_dump_json()], env=env, cwd=workspace, stdout=log, stderr=log)


def active_lease(record: ServerRecord, *, workspace: Path) -> Lease | None:
    """Return what the watchdog of this launch wrote last; None when it has none that runs."""
    lease = _read_lease(record, Registry(workspace))
    return lease if lease is not None and lease.running else None


def _read_lease(record: ServerRecord, registry: Registry) -> Lease | None:
    try:
        lease = Lease.model_validate_json(registry.launch_file(record.name, "lease").read_bytes())
    except (OSError, ValueError, TautoolsError):
        return None
    return lease if lease.alias == record.alias else None


def owner_process(pid: int) -> Process:
    """Return the running process with this pid, with its start time; raise a ParamsError when there is none."""
    try:
        return Process(pid, psutil.Process(pid).create_time())
    except (psutil.Error, ValueError, OverflowError) as error:
        raise ParamsError(
            f"There is no process {pid}, so no server can be leased to it.",
            evidence=str(error),
            next_step="Give the pid of a process of this machine, or `kernel` in a notebook.",
        ) from error


def kernel_process(pid: int | None = None) -> Process:
    """Return the notebook kernel that `pid` (this process by default) was started from, or is.

    A ParamsError is raised when no process above it is one.
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


def _format_minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


class Watchdog:
    """Watches one launch; a newer one of the same name is never touched."""

    def __init__(self, record: ServerRecord, *, workspace: Path, terms: LeaseTerms) -> None:
        self.record, self.terms = record, terms
        self._server, self._registry = Server(record, workspace=workspace), Registry(workspace)
        self._file = self._registry.launch_file(record.name, "lease")
        self._last: Sample | None = None
        self._silent_since: float | None = None
        self._lease = Lease(
            alias=record.alias, terms=terms, watchdog=this_process(), host=socket.gethostname(), seen_at=time.time()
        )

    def watch(self) -> str:
        """Look until the server is gone or has to end; return why it was stopped, empty when it ended otherwise."""
        try:
            # A job's server gets its address only when the job begins: the record is read again each time.
            while (current := self._registry.current(self.record)) is not None:
                self.record = current
                reason = self.look()
                if reason:
                    self._write(stopping=reason)
                    self._server.stop()
                    return reason
                # The backend is asked only when the server itself does not answer: many jobs would ask Slurm often.
                if self._silent_since is not None and self._server.state().state.final:
                    break
                # A server that is stopped meanwhile ends the wait within a second.
                until = time.monotonic() + self.terms.every_s
                while (left := until - time.monotonic()) > 0 and self._registry.current(self.record):
                    time.sleep(min(1.0, left))
            return ""
        finally:
            if _read_lease(self.record, self._registry) is not None:
                self._file.unlink(missing_ok=True)

    def _write(self, **news: Any) -> None:
        self._lease = self._lease.model_copy(update=news)
        write_atomic(self._file, self._lease.model_dump_json(), mode=0o600)

    def look(self) -> str:
        """Look once; return why the server has to end now, empty when it goes on."""
        now, sample = time.time(), ask_metrics(self.record.base_url)
        if sample is None:
            quiet_since, self._silent_since = None, self._silent_since or now
        else:
            idle = not sample.busy and (self._last is None or sample.work == self._last.work)
            quiet_since, self._silent_since = (self._lease.quiet_since or now) if idle else None, None
            self._last = sample
        owner, idle_s = self.terms.owner, self.terms.idle_s
        gone = owner is not None and not process_alive(owner.pid, owner.started_at)
        self._write(seen_at=now, quiet_since=quiet_since, owner_gone=gone)
        if idle_s is not None and quiet_since is not None and now - quiet_since >= idle_s:
            return f"no request for {idle_s / 60:.3g} min"
        unused_since = quiet_since or self._silent_since
        if gone and owner is not None and unused_since is not None and now - unused_since >= self.terms.quiet_s:
            return f"its owner, process {owner.pid}, is gone and nothing uses it"
        return ""


def main(words: Sequence[str]) -> int:
    """Watch in the foreground; return the exit status: 0 done, 1 the server could not be stopped."""
    workspace, name, alias, terms = words
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    record = Registry(Path(workspace)).find(name)
    if record is None or record.alias != alias:
        return 0
    try:
        reason = Watchdog(record, workspace=Path(workspace), terms=LeaseTerms.model_validate_json(terms)).watch()
    except TautoolsError as error:
        _LOG.error("%s: %s", name, error)
        return 1
    _LOG.info("%s: %s", name, f"stopped, {reason}" if reason else "has ended; nothing more to watch")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
