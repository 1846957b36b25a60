"""Wait for a start: until the server answers and is proven, failed, or makes no progress.

There is no fixed time-out, because a start takes ten seconds or an hour; what ends the wait is a log that stands still.
A free port can be lost to another process before the server binds it; then the start is repeated on another one.
"""

from __future__ import annotations

import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import NotReadyError, VerifyError
from tautools.server.history import remember_start
from tautools.server.registry import Registry
from tautools.server.state import cause_of
from tautools.server.states import Snapshot, State
from tautools.shell import stop_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.records import Certificate, Rung
    from tautools.server.handle import Server

__all__ = ["wait_ready"]

_STARTS = 3
"""Starts in all, when ports are lost."""

_LOST = {"port_in_use", "internal_port_in_use"}
"""Causes that another start does away with, because it takes other ports."""

_EAGER_S = 30.0
"""So long a start is looked at often; a longer one is a matter of minutes, and half a second is nothing then."""

_NEARLY_PERCENT = 96
"""From here on a start is a matter of a second, however long it took."""


def wait_ready(
    server: Server,
    *,
    timeout_s: float | None,
    on_progress: Callable[[Snapshot], None] | None,
    on_rung: Callable[[Rung], None] | None,
) -> None:
    """Wait until the server is READY; see `Server.wait_ready` for what is raised when it does not become so.

    Parameters
    ----------
    server : Server
        Its handle; a start that lost its port is made again, and the handle is then of the new process.
    timeout_s : float, optional
        Most seconds to wait; None waits for as long as there is progress.
    on_progress : callable, optional
        Told each new state.
    on_rung : callable, optional
        Told each rung of the ladder.

    Raises
    ------
    NotReadyError, VerifyError
        As `Server.wait_ready` says.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    # What the ladder needs is loaded while the server loads its weights, not when it answers.
    for module in ("aiohttp", "tautools.llm"):
        import_module(module)
    for _ in range(_STARTS):
        snapshot = _wait_answer(server, deadline, on_progress)
        certificate = server.verify(on_rung) if snapshot.stage == "answering" else server.record.certificate
        if snapshot.state is State.READY or (snapshot.stage == "answering" and certificate and certificate.passed):
            if snapshot.stage == "answering":
                remember_start(server.record, Registry(server.workspace))
            return
        if server.start_again is None or not _lost_port(server, snapshot, certificate):
            break
        server.stop(term_s=5.0)
        server.record = server.start_again()
    raise _failed_rung(server) or _not_ready(server)


def _wait_answer(server: Server, deadline: float | None, on_progress: Callable[[Snapshot], None] | None) -> Snapshot:
    """Return the first state that is no longer on the way: it answers, failed, or another server answers."""
    patience_s = float(server.record.spec.get("startup_timeout_s", 900.0))
    began = changed_at = time.monotonic()
    size = -1
    told: tuple[object, ...] = ()
    while True:
        snapshot = server.state()
        news = (snapshot.state, snapshot.detail, snapshot.percent)
        if on_progress is not None and news != told:
            told = news
            on_progress(snapshot)
        on_the_way = snapshot.state in {State.QUEUED, State.VERIFYING} or (
            snapshot.state is State.STARTING and snapshot.stage != "answering"
        )
        if not on_the_way:
            return snapshot
        now = time.monotonic()
        # A queue is no standstill: whoever wants to wait only so long says so.
        if (current := _log_size(server)) != size or snapshot.state is State.QUEUED:
            size, changed_at = current, now
        if now - changed_at > patience_s:
            raise _late(server, f"wrote nothing to its log for {patience_s:g} s", snapshot)
        if deadline is not None and now > deadline:
            raise _late(server, "was not ready in the time it was given", snapshot)
        time.sleep(_pause_s(snapshot, now - began))


def _pause_s(snapshot: Snapshot, waited_s: float) -> float:
    if snapshot.percent is not None and snapshot.percent >= _NEARLY_PERCENT:
        return 0.03
    return 0.1 if waited_s < _EAGER_S else 0.5


def _log_size(server: Server) -> int:
    logs = (Path(log) for log in (server.record.log_out, server.record.log_err) if log)
    return sum(path.stat().st_size for path in logs if path.exists())


def _lost_port(server: Server, snapshot: Snapshot, certificate: Certificate | None) -> bool:
    """Whether the start failed because another process has the port, or shares it."""
    if certificate is not None:
        return any(rung.number == 1 and rung.passed is False for rung in certificate.rungs)
    if snapshot.state is State.DEGRADED:
        return True
    return snapshot.state is State.FAILED and cause_of(server.record, Registry(server.workspace)).kind in _LOST


def _late(server: Server, what: str, snapshot: Snapshot) -> NotReadyError:
    return NotReadyError(
        f"Server {server.name!r} {what}; it is at: {snapshot.stage or snapshot.state.value}.",
        evidence="\n".join(server.tail(15)),
        next_step=f"It still runs: see `tautools server logs {server.name}`, or `tautools server stop {server.name}`.",
    )


def _failed_rung(server: Server) -> VerifyError | None:
    certificate = server.record.certificate
    failed = [rung for rung in certificate.rungs if rung.passed is False] if certificate is not None else []
    if not failed:
        return None
    return VerifyError(
        f"Server {server.name!r} answers and fails rung {failed[0].number} of the ladder, {failed[0].name}.",
        evidence=failed[0].detail,
        next_step=f"Mend it and run `tautools server verify {server.name}`, or `tautools server stop {server.name}`.",
    )


def _not_ready(server: Server) -> NotReadyError:
    snapshot, record = server.state(), server.record
    if snapshot.state is State.FAILED and record.pid is not None and record.pid_started_at is not None:
        # The main process is dead. Workers that it may have left would keep their cards for ever.
        stop_group(record.pid, record.pid_started_at, term_s=5.0)
        snapshot = server.state()
    return NotReadyError(
        f"Server {server.name!r} is {snapshot.state.value}: {snapshot.detail}",
        evidence="\n".join(server.tail(10)),
        next_step=snapshot.next_step or f"Read its log with `tautools server logs {server.name}`.",
    )
