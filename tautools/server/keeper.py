"""`python -m tautools.server.keeper`: watch one server and stop it when it is idle or its owner is gone.

It looks at the process and at `/metrics`, never at the key, and stops the server as `tautools server stop` does. While
a server does not tell how many requests it has, it is not called idle; only the lease goes on then, because what does
not answer is of no use to a run either.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.server.handle import Server
from tautools.server.keeping import KeeperNote, Terms, forget_note, write_note
from tautools.server.metrics import Sample, ask_metrics
from tautools.server.registry import Registry
from tautools.shell import Process, process_alive, this_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.http import Http
    from tautools.records import ServerRecord

__all__ = ["Keeper", "main"]

_log = logging.getLogger("tautools.server.keeper")


class Keeper:
    """Watches one launch.

    Parameters
    ----------
    record : ServerRecord
        The launch that is meant; a newer one of the same name is never touched.
    workspace : Path
        Where it is registered.
    terms : Terms
        When it shall end.
    """

    def __init__(self, record: ServerRecord, *, workspace: Path, terms: Terms) -> None:
        from tautools.http import Http

        self.record, self.workspace, self.terms = record, workspace, terms
        self._http: Http = Http()
        self._last: Sample | None = None
        self._quiet_since: float | None = None
        self._silent_since: float | None = None
        me = this_process()
        owner_pid = terms.owner.pid if terms.owner is not None else None
        self._note = KeeperNote(
            record.alias, me.pid, me.started_at, socket.gethostname(), terms.idle_s, owner_pid, time.time(), None
        )

    def watch(self) -> str:
        """Look until the server is gone or has to end; return why it was stopped, empty when it ended otherwise."""
        server = Server(self.record, workspace=self.workspace)
        registry = Registry(self.workspace)
        try:
            while registry.is_current(self.record) and not self._ended(server):
                why = self.look()
                if why:
                    write_note(self.record.name, self.workspace, dataclasses.replace(self._note, stopping=why))
                    server.stop()
                    return why
                self._rest(registry)
            return ""
        finally:
            forget_note(self.record, self.workspace)

    def _ended(self, server: Server) -> bool:
        """Whether the server ended otherwise; Slurm is asked only when the server itself does not answer."""
        if self.record.how == "slurm" and self._silent_since is None:
            return False
        return server.state().state.final

    def _rest(self, registry: Registry) -> None:
        """Wait until the next look; a server that is stopped meanwhile ends the wait within a second."""
        until = time.monotonic() + self.terms.every_s
        while (left := until - time.monotonic()) > 0 and registry.is_current(self.record):
            time.sleep(min(1.0, left))

    def look(self) -> str:
        """Look once; return why the server has to end now, empty when it goes on."""
        now = time.time()
        self._see(ask_metrics(self.record.base_url, http=self._http), now)
        owner = self.terms.owner
        gone = owner is not None and not process_alive(owner.pid, owner.started_at)
        self._note = dataclasses.replace(self._note, seen_at=now, quiet_since=self._quiet_since, owner_gone=gone)
        write_note(self.record.name, self.workspace, self._note)
        idle_s, quiet_s = self.terms.idle_s, self.terms.quiet_s
        if idle_s is not None and self._quiet_since is not None and now - self._quiet_since >= idle_s:
            return f"no request for {idle_s / 60:.3g} min"
        unused_since = self._quiet_since if self._quiet_since is not None else self._silent_since
        if gone and owner is not None and unused_since is not None and now - unused_since >= quiet_s:
            return f"its owner, process {owner.pid}, is gone and nothing uses it"
        return ""

    def _see(self, sample: Sample | None, now: float) -> None:
        if sample is None:
            self._quiet_since = None
            self._silent_since = self._silent_since if self._silent_since is not None else now
        else:
            self._silent_since = None
            same = self._last is None or sample.work == self._last.work
            if sample.busy or not same:
                self._quiet_since = None
            elif self._quiet_since is None:
                self._quiet_since = now
            self._last = sample


def main(words: Sequence[str] | None = None) -> int:
    """Watch in the foreground; return the exit status: 0 done, 1 the server could not be stopped."""
    given = _parser().parse_args(words)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    owner = None if given.owner_pid is None else Process(given.owner_pid, given.owner_started_at)
    terms = Terms(given.idle_s, owner, given.quiet_s, given.every_s)
    record = Registry(given.workspace).find(given.name)
    if record is None or record.alias != given.alias:
        return 0
    try:
        why = Keeper(record, workspace=given.workspace, terms=terms).watch()
    except TautoolsError as error:
        _log.error("%s: %s", given.name, error)
        return 1
    _log.info("%s: %s", given.name, f"stopped, {why}" if why else "has ended; nothing more to watch")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tautools.server.keeper", description="Watch one server.")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--alias", required=True, help="the launch that is meant")
    parser.add_argument("--idle-s", type=float, help="stop after so long without a request")
    parser.add_argument("--owner-pid", type=int, help="stop when this process is gone and nothing uses the server")
    parser.add_argument("--owner-started-at", type=float, help="start time of that process")
    parser.add_argument("--quiet-s", type=float, default=120.0, help="without a request for so long nothing uses it")
    parser.add_argument("--every-s", type=float, default=15.0, help="how often to look")
    return parser


if __name__ == "__main__":
    sys.exit(main())
