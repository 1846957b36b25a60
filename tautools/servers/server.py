"""One server: its state, waiting for it, verifying it, its log, stopping it. The same handle for every backend."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import NotReadyError, ServerError, VerifyError
from tautools.files import read_span
from tautools.llm.types import Endpoint
from tautools.servers.checks.run import certificate_of, run_checks
from tautools.servers.checks.target import target_of
from tautools.servers.registry import Registry
from tautools.servers.state import Snapshot, State, ask_jobs, cause_of, has_ended, log_lines, record_start, server_state
from tautools.shell import stop_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tautools.http import Http
    from tautools.records import Certificate, Check, ServerRecord
    from tautools.servers.state import Snapshot


class Server:
    """The handle of one launch.

    Parameters
    ----------
    record : ServerRecord
        The launch that is meant.
    workspace : Path
        Where it is registered.
    start_again : callable, optional
        Starts the same server on another free port and returns the new record; for the launcher itself.
    """

    def __init__(
        self,
        record: ServerRecord,
        *,
        workspace: Path,
        start_again: Callable[[], ServerRecord] | None = None,
    ) -> None:
        self.record = record
        self.workspace = Path(workspace)
        self._registry = Registry(workspace)
        self.start_again = start_again
        self._http: Http | None = None

    def __repr__(self) -> str:
        return f"Server({self.record.name!r}, {self.record.model!r}, {self.record.base_url!r})"

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return self.record.name

    def state(self) -> Snapshot:
        """Return how it is now, asked of its process and of its address."""
        return server_state(self._reread(), workspace=self.workspace, http=self._door())

    def endpoint(self) -> Endpoint:
        """Return what the model door needs to speak to it."""
        record = self._reread()
        length = record.certificate.max_model_len if record.certificate else None
        return Endpoint(
            record.base_url,
            record.model,
            key=self._registry.key(record),
            name=record.name,
            simulated=record.simulated,
            max_model_len=length,
        )

    def tail(self, lines: int = 200) -> list[str]:
        """Return the last lines of what it wrote: output first, then errors."""
        return log_lines(self.record, lines)

    def wait_ready(
        self,
        timeout_s: float | None = None,
        on_progress: Callable[[Snapshot], None] | None = None,
        on_check: Callable[[Check], None] | None = None,
    ) -> Server:
        """Wait until it answers, prove it by the ladder, and return this handle.

        Parameters
        ----------
        timeout_s : float, optional
            Most seconds to wait. By default only a lack of progress ends the wait: no new byte in the log for the
            server's `startup_timeout_s`.
        on_progress : callable, optional
            Told each new state.
        on_check : callable, optional
            Told each check of the ladder.

        Raises
        ------
        NotReadyError
            When it failed, stopped or made no progress; with the first cause and the end of its log.
        VerifyError
            When it answers and does not pass the ladder.
        """
        wait_ready(self, timeout_s=timeout_s, on_progress=on_progress, on_check=on_check)
        return self

    def verify(self, on_check: Callable[[Check], None] | None = None, *, concurrency: int = 0) -> Certificate:
        """Climb the ladder and write the result down; a server that fails is READY no more.

        Parameters
        ----------
        on_check : callable, optional
            Told each check as it is done.
        concurrency : int
            Chats at once that it must bear; 0 leaves out the checks that load a server: the context limit, many chats
            at once, the same answer twice.

        Returns
        -------
        Certificate
            With every check; `passed` says whether none failed.

        Raises
        ------
        ServerError
            When the launch is not registered any more, or its key is gone.
        """
        record = self._registry.get(self.record.name) if self._registry.is_current(self.record) else None
        if record is None:
            raise NotReadyError(
                f"Server {self.record.name!r} of this handle was stopped or replaced.",
                next_step="Start it again, or take a new handle from the registry.",
            )
        self._registry.begin(record, "verifying")
        try:
            target = target_of(record, self._registry.key(record), concurrency=concurrency)
            certificate = certificate_of(record.name, run_checks(target, http=self._door(), on_check=on_check), record)
        finally:
            self._registry.end(record)
        self.record = record.model_copy(
            update={"certificate": certificate, "simulated": record.simulated or certificate.simulated}
        )
        if certificate.passed:
            self._registry.mark_verified(self.record)
        else:
            self._registry.revoke(self.record)
        return certificate

    def stop(self, on_progress: Callable[[str], None] | None = None, *, term_s: float = 20.0) -> None:
        """End its process group and forget it, with its key, once nothing of it runs.

        Parameters
        ----------
        on_progress : callable, optional
            Told each signal that is sent, and the cards that are waited for.
        term_s : float
            Seconds it gets to end in good order before SIGKILL.

        Raises
        ------
        ShellError
            When something of it still runs at the end; it stays registered then.
        ServerError
            When it runs on another host.
        """
        record = self._reread()
        if not self._registry.is_current(record):
            return
        if record.backend == "slurm":
            self._cancel(record, on_progress)
            return
        if not record.on_this_host:
            raise ServerError(
                f"Server {record.name!r} runs on host {record.host}, which this session cannot reach into.",
                next_step=f"Run `tautools server stop {record.name}` there.",
            )
        if record.pid is not None and record.pid_started_at is not None:
            self._registry.begin(record, "stopping")
            try:
                stop_group(record.pid, record.pid_started_at, term_s=term_s, on_signal=on_progress)
                self._wait_for_cards(record, on_progress)
            except BaseException:
                self._registry.end(record)
                raise
        self._registry.remove(record)

    def _cancel(self, record: ServerRecord, tell: Callable[[str], None] | None) -> None:
        from tautools.servers.backends.slurm_stop import stop_job, stop_one_of

        self._registry.begin(record, "stopping")
        try:
            end = stop_one_of if self._registry.neighbours(record) else stop_job
            end(record, self._registry, tell or (lambda _text: None))
        except BaseException:
            self._registry.end(record)
            raise
        self._registry.remove(record)

    def _wait_for_cards(self, record: ServerRecord, tell: Callable[[str], None] | None) -> None:
        cards = record.spec.get("cards") if record.engine == "vllm" else None
        if cards:
            from tautools.servers.accelerators.assignment import RELEASE_TIMEOUT_S, wait_released
            from tautools.servers.accelerators.probe import AcceleratorProbe

            longest_s = float(record.spec.get("release_timeout_s", RELEASE_TIMEOUT_S))
            wait_released(cards, AcceleratorProbe(), timeout_s=longest_s, emit=tell)

    def _reread(self) -> ServerRecord:
        """Take over what another process has proven of the same launch."""
        known = self._registry.find(self.record.name)
        if known is not None and self._registry.is_current(self.record):
            self.record = known
        return self.record

    def _door(self) -> Http:
        if self._http is None:
            from tautools.http import Http

            self._http = Http()
        return self._http


_MAX_STARTS = 3
"""Starts in all, when ports are lost."""

_LOST_PORT_CAUSES = {"port_in_use", "internal_port_in_use"}
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
    on_check: Callable[[Check], None] | None,
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
    on_check : callable, optional
        Told each check of the ladder.

    Raises
    ------
    NotReadyError, VerifyError
        As `Server.wait_ready` says.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    # What the ladder needs is loaded while the server loads its weights, not when it answers.
    for module in ("aiohttp", "tautools.llm"):
        import_module(module)
    for _ in range(_MAX_STARTS):
        snapshot = _wait_answer(server, deadline, on_progress)
        certificate = server.verify(on_check) if snapshot.stage == "answering" else server.record.certificate
        if snapshot.state is State.READY or (snapshot.stage == "answering" and certificate and certificate.passed):
            if snapshot.stage == "answering":
                record_start(server.record, Registry(server.workspace))
            return
        if server.start_again is None or not _lost_port(server, snapshot, certificate):
            break
        server.stop(term_s=5.0)
        server.record = server.start_again()
    raise _failed_check(server) or _not_ready(server)


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
            raise _too_late(server, f"wrote nothing to its log for {patience_s:g} s", snapshot)
        if deadline is not None and now > deadline:
            raise _too_late(server, "was not ready in the time it was given", snapshot)
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
        return any(check.number == 1 and check.passed is False for check in certificate.checks)
    if snapshot.state is State.DEGRADED:
        return True
    return (
        snapshot.state is State.FAILED and cause_of(server.record, Registry(server.workspace)).kind in _LOST_PORT_CAUSES
    )


def _too_late(server: Server, what: str, snapshot: Snapshot) -> NotReadyError:
    return NotReadyError(
        f"Server {server.name!r} {what}; it is at: {snapshot.stage or snapshot.state.value}.",
        evidence="\n".join(server.tail(15)),
        next_step=f"It still runs: see `tautools server logs {server.name}`, or `tautools server stop {server.name}`.",
    )


def _failed_check(server: Server) -> VerifyError | None:
    certificate = server.record.certificate
    failed = [check for check in certificate.checks if check.passed is False] if certificate is not None else []
    if not failed:
        return None
    return VerifyError(
        f"Server {server.name!r} answers and fails check {failed[0].number} of the ladder, {failed[0].name}.",
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


def open_server(name: str, *, workspace: Path) -> Server:
    """Return the handle of a registered server.

    Raises
    ------
    ServerError
        When no server of that name is known.
    """
    return Server(Registry(workspace).get(name), workspace=workspace)


def server_states(workspace: Path) -> list[tuple[ServerRecord, Snapshot]]:
    """Return every registered server with its state now; they are asked side by side, so one that hangs delays none."""
    from tautools.http import Http

    records = Registry(workspace).list()
    if not records:
        return []
    ask = partial(server_state, workspace=workspace, http=Http(), jobs=ask_jobs(records))
    with ThreadPoolExecutor(max_workers=min(32, len(records))) as pool:
        return list(zip(records, pool.map(ask, records), strict=True))


_ASK_SLURM_S = 5.0
_MAX_TAIL_BYTES = 262_144
"""So far back the last lines are looked for."""


class LogReader:
    """Reads what was added to a file since the last look.

    Parameters
    ----------
    path : Path
        The file; it may come into being later.
    offset : int
        Where to begin [bytes].
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset
        self._torn = b""

    def new_lines(self) -> list[str]:
        """Return the lines that are complete since the last look; a redrawn progress bar counts as a line."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self.offset += len(data)
        *whole, self._torn = (self._torn + data).replace(b"\r", b"\n").split(b"\n")
        return [line.decode(errors="replace") for line in whole if line.strip()]


def follow(record: ServerRecord, *, workspace: Path, lines: int = 0, poll_s: float = 0.3) -> Iterator[str]:
    """Yield the last lines that the server wrote, and then each new one, until it has ended.

    Parameters
    ----------
    record : ServerRecord
        The launch that is meant.
    workspace : Path
        Where it is registered.
    lines : int
        How many of the lines that are there already, of each file.
    poll_s : float
        Seconds between two looks at the files.
    """
    registry = Registry(workspace)
    readers: dict[str, LogReader] = {}
    asked_at, ended = 0.0, False
    while True:
        now = time.monotonic()
        if now - asked_at >= (_ASK_SLURM_S if record.backend == "slurm" else poll_s):
            asked_at, ended = now, has_ended(record, workspace=workspace)
        # A job in the queue has its log's name only when it was submitted, and another one after it came back.
        record = registry.find(record.name) or record if registry.is_current(record) else record
        for log in filter(None, (record.log_out, record.log_err)):
            if log not in readers:
                readers[log] = LogReader(Path(log), _offset_of_last_lines(Path(log), lines))
            yield from readers[log].new_lines()
        if ended:
            return
        time.sleep(poll_s)


def _offset_of_last_lines(path: Path, lines: int) -> int:
    """Return where the last so many complete lines of a file begin [bytes]; its end when none is wanted."""
    try:
        size = path.stat().st_size
        first = max(0, size - _MAX_TAIL_BYTES)
        data = read_span(path, first, size - first)
    except FileNotFoundError:
        return 0
    at = data.rfind(b"\n") + 1
    for _ in range(lines):
        if at == 0:
            break
        at = data.rfind(b"\n", 0, at - 1) + 1
    return first + at
