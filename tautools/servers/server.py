"""One server: its state, waiting for it, verifying it, its log, stopping it. The same handle for every backend.

There is no fixed time-out for a start, because one takes ten seconds or an hour; what ends the wait is a log that
stands still. A free port can be lost to another process before the server binds it; then the start is repeated on
another one.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from tautools.errors import NotReadyError, TautoolsError, VerifyError
from tautools.llm.types import Endpoint
from tautools.records import Certificate, Check, ServerRecord
from tautools.servers.backends import Look, backend_of
from tautools.servers.checks.run import OnWait, certificate_of, run_checks
from tautools.servers.checks.target import target_of
from tautools.servers.diagnose import Diagnosis
from tautools.servers.registry import Registry
from tautools.servers.state import LogReader, Snapshot, State, diagnose_end, log_lines, record_start
from tautools.shell import stop_group

_MAX_STARTS = 3
"""Starts in all, when ports are lost."""
_LOST_PORT_CAUSES = {"port_in_use", "internal_port_in_use"}
"""Causes that go away with another start, because it takes other ports."""
_EAGER_S = 30.0
"""For so long a start is looked at often; a longer one takes minutes, and half a second does not matter then."""
_EXIT_NOTE_S = 1.0
"""Longest wait for the exit status of a start that failed, which is written down a moment after the end."""
_NEARLY_PERCENT = 96
"""From here on a start is a matter of a second, however long it took."""


class Server:
    """The handle of one launch, registered in a workspace.

    The launcher itself gives it `start_again`, which starts the same server on another free port.
    """

    def __init__(
        self, record: ServerRecord, *, workspace: Path, start_again: Callable[[], ServerRecord] | None = None
    ) -> None:
        self.record, self.workspace, self.start_again = record, Path(workspace), start_again
        self._registry = Registry(workspace)

    def __repr__(self) -> str:
        return f"Server({self.record.name!r}, {self.record.model!r}, {self.record.base_url!r})"

    @property
    def name(self) -> str:
        """Its name in the registry."""
        return self.record.name

    def state(self) -> Snapshot:
        """Return how it is now, asked of its process or job and of its address."""
        return _state(self.record, self._current(), Look(self._registry))

    def endpoint(self) -> Endpoint:
        """Return what a model client needs to speak to it."""
        record = self._current() or self.record
        return Endpoint(
            backend_of(record).address(record),
            record.model,
            key=self._registry.key(record),
            name=record.name,
            simulated=record.simulated,
            max_model_len=record.certificate.max_model_len if record.certificate else None,
            warm=self._registry.is_warm(record),
        )

    def time_left(self) -> float | None:
        """Return how long it may still run [s]; None without a limit."""
        return backend_of(self.record).time_left(self.record)

    def tail(self, lines: int = 200) -> list[str]:
        """Return the last lines of what it wrote: output first, then errors."""
        return log_lines(self.record, lines)

    def follow(self, lines: int = 0, *, poll_s: float = 0.3) -> Iterator[str]:
        """Yield the last `lines` lines of each of its files, and then each new one, until it has ended."""
        backend, readers = backend_of(self.record), dict[Path, LogReader]()
        asked_at, ended = float("-inf"), False
        while True:
            now = time.monotonic()
            if now - asked_at >= max(poll_s, backend.ask_every_s):
                # A job in the queue gets its log's name when it is submitted, and another one when it comes back.
                asked_at, current = now, self._current()
                ended = current is None or backend.has_ended(current, self._registry)
            for log in backend.logs(self.record):
                if log not in readers:
                    readers[log] = LogReader(log, lines)
                yield from readers[log].new_lines()
            if ended:
                return
            time.sleep(poll_s)

    def cause(self) -> Diagnosis:
        """Return why it failed, or that it has not."""
        snapshot, backend = self.state(), backend_of(self.record)
        if backend.owns and (snapshot.state.final or snapshot.state is State.DEGRADED):
            return diagnose_end(self.record, self._registry, job_state=backend.job_state(self.record))
        fix = snapshot.next_step or f"See how it goes on with `tautools server logs {self.name} -f`."
        if snapshot.state is State.READY:
            fix = "Nothing: it passed all checks and answers."
        return Diagnosis("not_failed", f"It has not failed: it is {snapshot}".rstrip(".") + ".", fix)

    def looks(self) -> Iterator[tuple[Snapshot, float]]:
        """Yield its state again and again, each with how long it has made no progress [s]: no new byte in its log."""
        began = changed_at = time.monotonic()
        size = -1
        while True:
            snapshot, now = self.state(), time.monotonic()
            logs = backend_of(self.record).logs(self.record)
            written = sum(path.stat().st_size for path in logs if path.exists())
            # A queue is no standstill: who wants to wait only so long gives a time-out.
            if written != size or snapshot.state is State.QUEUED:
                size, changed_at = written, now
            yield snapshot, now - changed_at
            nearly = snapshot.percent is not None and snapshot.percent >= _NEARLY_PERCENT
            time.sleep(0.03 if nearly else 0.1 if now - began < _EAGER_S else 0.5)

    def wait_ready(
        self,
        timeout_s: float | None = None,
        on_progress: Callable[[Snapshot], None] | None = None,
        on_check: Callable[[Check], None] | None = None,
        on_wait: OnWait | None = None,
    ) -> "Server":
        """Wait until it answers, verify it, and return this handle.

        A start that lost its port is made again; the handle is then of the new process.

        Parameters
        ----------
        timeout_s : float, optional
            Most seconds to wait. By default only a lack of progress ends the wait: no new byte in the log for the
            server's `startup_timeout_s`.
        on_progress : callable, optional
            Called with each new state.
        on_check : callable, optional
            Called with each finished check.
        on_wait : callable, optional
            Called about once a second with the checks that are waited for, and for how long already.

        Raises
        ------
        NotReadyError
            When it failed, stopped or made no progress; with the first cause and the end of its log.
        VerifyError
            When it answers and fails a check.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        # What the checks need is loaded while the server loads its weights, not when it answers.
        import_module("tautools.llm")
        for _ in range(_MAX_STARTS):
            snapshot = self._wait_answer(deadline, on_progress)
            answers = snapshot.stage == "answering"
            certificate = self.verify(on_check, on_wait=on_wait) if answers else self.record.certificate
            if snapshot.state is State.READY or (answers and certificate is not None and certificate.passed):
                if answers and backend_of(self.record).owns:
                    record_start(self.record, self._registry)
                return self
            if self.start_again is None or not self._lost_port(snapshot, certificate):
                break
            self.stop(term_s=5.0)
            self.record = self.start_again()
        raise self._why_not_ready()

    def _wait_answer(self, deadline: float | None, on_progress: Callable[[Snapshot], None] | None) -> Snapshot:
        """Return the first state that is no longer on the way: it answers, failed, or another server answers."""
        stall_s = float(self.record.spec.get("startup_timeout_s", 900.0))
        shown: tuple[object, ...] = ()
        for snapshot, still_s in self.looks():
            news = (snapshot.state, snapshot.detail, snapshot.percent)
            if on_progress is not None and news != shown:
                shown = news
                on_progress(snapshot)
            starting = snapshot.state is State.STARTING and snapshot.stage != "answering"
            if not starting and snapshot.state not in {State.QUEUED, State.VERIFYING}:
                break
            late = deadline is not None and time.monotonic() > deadline
            if late or still_s > stall_s:
                what = (
                    "was not ready in the time it was given" if late else f"wrote nothing to its log for {stall_s:g} s"
                )
                raise NotReadyError(
                    f"Server {self.name!r} {what}; it is at: {snapshot.stage or snapshot.state.value}.",
                    evidence="\n".join(self.tail(15)),
                    next_step=f"It still runs: see `tautools server logs {self.name}`, or `tautools server stop "
                    f"{self.name}`.",
                )
        return snapshot

    def _lost_port(self, snapshot: Snapshot, certificate: Certificate | None) -> bool:
        """Whether the start failed because another process has the port, or shares it."""
        if certificate is not None:
            return any(check.number == 1 and check.passed is False for check in certificate.checks)
        if snapshot.state is State.DEGRADED:
            return True
        failed = snapshot.state is State.FAILED
        return failed and diagnose_end(self.record, self._registry).kind in _LOST_PORT_CAUSES

    def _why_not_ready(self) -> TautoolsError:
        record = self.record
        if record.certificate is not None and (failed := record.certificate.failed) is not None:
            ended = self.state()
            if ended.state.final:
                return VerifyError(
                    f"Server {self.name!r} ended over check {failed.number}, {failed.name}: {ended}",
                    evidence=failed.detail,
                    next_step=ended.next_step or f"Read its log with `tautools server logs {self.name}`.",
                )
            return VerifyError(
                f"Server {self.name!r} answers and fails check {failed.number}, {failed.name}.",
                evidence=failed.detail,
                next_step=f"Fix it and run `tautools server verify {self.name}`, or `tautools server stop "
                f"{self.name}`.",
            )
        snapshot = self.state()
        if snapshot.state is State.FAILED and record.process is not None:
            # The main process is dead. Workers that it may have left would keep their cards for ever.
            stop_group(*record.process, term_s=5.0)
            until = time.monotonic() + _EXIT_NOTE_S
            while self._registry.exit_code(record) is None and time.monotonic() < until:
                time.sleep(0.02)
            snapshot = self.state()
        found = self.cause() if snapshot.state is State.FAILED else None
        told = (found.evidence, *found.also) if found else ()  # the line that says why; it may stand far above the end
        return NotReadyError(
            f"Server {self.name!r} is {snapshot.state.value}: {snapshot.detail}",
            evidence="\n".join(dict.fromkeys(filter(None, (*told, *self.tail(10))))),
            next_step=snapshot.next_step or f"Read its log with `tautools server logs {self.name}`.",
        )

    def verify(
        self,
        on_check: Callable[[Check], None] | None = None,
        *,
        concurrency: int = 0,
        on_wait: OnWait | None = None,
    ) -> Certificate:
        """Run the checks and write the result down; a server that fails is READY no more.

        Parameters
        ----------
        on_check : callable, optional
            Called with each finished check.
        concurrency : int
            Chats at once that it must bear; 0 leaves out the checks that load a server: the context limit, many chats
            at once, the same answer twice.
        on_wait : callable, optional
            Called about once a second with which checks are waited for, and for how long already.

        Raises
        ------
        ServerError
            When the launch is not registered any more, or its key is gone.
        """
        record = self._registry.require(self.record)
        with self._registry.marked(record, "verifying") as note:

            def wait_on(words: str) -> None:
                note(words)
                if on_wait is not None:
                    on_wait(words)

            target = target_of(record, self._registry.key(record), concurrency=concurrency)
            certificate = certificate_of(record.name, run_checks(target, on_check=on_check, on_wait=wait_on), record)
        simulated = record.simulated or certificate.simulated
        self.record = record.model_copy(update={"certificate": certificate, "simulated": simulated})
        self._registry.certify(self.record)
        return certificate

    def stop(self, on_progress: Callable[[str], None] | None = None, *, term_s: float = 20.0) -> None:
        """End it and forget it, with its key, once nothing of it runs; an attached one is only forgotten.

        Parameters
        ----------
        on_progress : callable, optional
            Called with each signal that is sent, and with the cards that are waited for.
        term_s : float
            Seconds it gets to end in good order before SIGKILL.

        Raises
        ------
        ShellError
            When something of it still runs at the end; it stays registered then.
        ServerError
            When it runs on another host.
        """
        if (record := self._current()) is None:
            return
        with self._registry.marked(record, "stopping"):
            backend_of(record).stop(record, self._registry, on_progress or (lambda _text: None), term_s=term_s)
            self._registry.remove(record)

    def _current(self) -> ServerRecord | None:
        """Take over what other processes wrote down of the same launch; None when it was stopped or replaced."""
        if (known := self._registry.current(self.record)) is not None:
            self.record = known
        return known


def open_server(name: str, *, workspace: Path) -> Server:
    """Return the handle of a registered server; raise an UnknownServerError when there is none of that name."""
    return Server(Registry(workspace).get(name), workspace=workspace)


def states_of(records: Sequence[ServerRecord], registry: Registry) -> list[Snapshot]:
    """Return the states of servers whose records were read just now, with one question to Slurm for all.

    They are asked side by side, so one that hangs delays none.
    """
    if not records:
        return []
    jobs = None
    if any(record.job_id for record in records):
        from tautools.servers.backends.slurm import ask_jobs

        jobs = ask_jobs(records)
    look = Look(registry, jobs)
    with ThreadPoolExecutor(max_workers=min(32, len(records))) as pool:
        return list(pool.map(lambda record: _state(record, record, look), records))


def _state(record: ServerRecord, current: ServerRecord | None, look: Look) -> Snapshot:
    if current is None:
        snapshot = Snapshot(State.STOPPED, "It was stopped.")
    elif look.registry.activity(current) == "stopping":
        snapshot = Snapshot(State.STOPPING, "It is being stopped.")
    else:
        snapshot = backend_of(current).poll(current, look)
    return replace(snapshot, age=max(0.0, time.time() - record.started_at))
