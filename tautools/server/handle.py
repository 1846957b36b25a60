"""One server: ask how it is, wait for it, prove it, read its log, stop it. The same handle however it was started."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import NotReadyError, ServerError
from tautools.llm.types import Endpoint
from tautools.server.proof.certificate import certificate_of, target_of
from tautools.server.proof.ladder import climb
from tautools.server.registry import Registry
from tautools.server.state import log_lines, server_state
from tautools.shell import stop_group

if TYPE_CHECKING:
    from collections.abc import Callable

    from tautools.http import Http
    from tautools.records import Certificate, Rung, ServerRecord
    from tautools.server.states import Snapshot

__all__ = ["Server"]


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
        on_rung: Callable[[Rung], None] | None = None,
    ) -> Server:
        """Wait until it answers, prove it by the ladder, and return this handle.

        Parameters
        ----------
        timeout_s : float, optional
            Most seconds to wait. By default only a lack of progress ends the wait: no new byte in the log for the
            server's `startup_timeout_s`.
        on_progress : callable, optional
            Told each new state.
        on_rung : callable, optional
            Told each rung of the ladder.

        Raises
        ------
        NotReadyError
            When it failed, stopped or made no progress; with the first cause and the end of its log.
        VerifyError
            When it answers and does not pass the ladder.
        """
        from tautools.server.waiting import wait_ready

        wait_ready(self, timeout_s=timeout_s, on_progress=on_progress, on_rung=on_rung)
        return self

    def verify(self, on_rung: Callable[[Rung], None] | None = None, *, concurrency: int = 0) -> Certificate:
        """Climb the ladder and write the result down; a server that fails is READY no more.

        Parameters
        ----------
        on_rung : callable, optional
            Told each rung as it is done.
        concurrency : int
            Chats at once that it must bear; 0 leaves out the rungs that load a server: the context limit, many chats
            at once, the same answer twice.

        Returns
        -------
        Certificate
            With every rung; `passed` says whether none failed.

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
            certificate = certificate_of(record.name, climb(target, http=self._door(), on_rung=on_rung), record)
        finally:
            self._registry.end(record)
        self.record = record.model_copy(
            update={"certificate": certificate, "simulated": record.simulated or certificate.simulated}
        )
        if certificate.passed:
            self._registry.prove(self.record)
        else:
            self._registry.disprove(self.record)
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
        if record.how == "slurm":
            self._cancel(record, on_progress)
            return
        if record.host not in {"", socket.gethostname()}:
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
        from tautools.server.on_slurm.stop import end_job, end_one_of

        self._registry.begin(record, "stopping")
        try:
            end = end_one_of if self._registry.neighbours(record) else end_job
            end(record, self._registry, tell or (lambda _text: None))
        except BaseException:
            self._registry.end(record)
            raise
        self._registry.remove(record)

    def _wait_for_cards(self, record: ServerRecord, tell: Callable[[str], None] | None) -> None:
        cards = record.spec.get("cards") if record.engine == "vllm" else None
        if cards:
            from tautools.server.cards.node import CardDoor
            from tautools.server.cards.release import RELEASE_TIMEOUT_S, wait_released

            longest_s = float(record.spec.get("release_timeout_s", RELEASE_TIMEOUT_S))
            wait_released(cards, CardDoor(), timeout_s=longest_s, tell=tell)

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
