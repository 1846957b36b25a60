"""Runs of cells as processes that a test may kill, started within milliseconds.

One process loads the benchmark once; each run is a grandchild of it, which tells its events and its result through a
pipe of its own. Use `Killable` in a test; the module is also that process's own program.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

__all__ = ["ChildRun", "Killable"]


@dataclass
class ChildRun:
    """A run in a process of its own."""

    lines: IO[str]
    pid: int = 0

    def send(self, number: int) -> None:
        """Send a signal, which may come too late."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return

    def until(self, kind: str) -> dict[str, Any]:
        """Wait until the run has told an event of this kind."""
        while True:
            told = json.loads(self.lines.readline())
            if told.get("event") == kind:
                return told
            if "status" in told:
                raise AssertionError(f"the run ended before {kind}: {told}")

    def end(self) -> dict[str, Any]:
        """Wait for the end; return the result that was told, if any, with the process's exit `status`."""
        told: dict[str, Any] = {}
        while "status" not in told:
            line = json.loads(self.lines.readline())
            told |= line if "event" not in line else {}
        return told


class Killable:
    """Starts runs; a context manager."""

    def __enter__(self) -> Self:
        path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}
        )
        self._folder = tempfile.TemporaryDirectory()
        self._runs: list[ChildRun] = []
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        for each in self._runs:
            each.lines.close()
        self._folder.cleanup()

    def start(self, run: Any, workspace: Path, **how: Any) -> ChildRun:
        """Start a run.

        `slow_sync_s` makes every fsync last so long; `largest_file` [bytes] makes the disk refuse more, in mid-write.
        """
        pipe = Path(self._folder.name) / str(len(self._runs))
        os.mkfifo(pipe)
        order = {"run": run.model_dump(mode="json"), "workspace": str(workspace), "pipe": str(pipe)} | how
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        lines = pipe.open()
        self._runs.append(ChildRun(lines, json.loads(lines.readline())["pid"]))
        return self._runs[-1]


class _Teller:
    """Writes lines to a run's pipe, from the run itself and from the process that waits for it."""

    def __init__(self, pipe: str) -> None:
        self._descriptor = os.open(pipe, os.O_WRONLY)

    def __call__(self, **what: Any) -> None:
        os.write(self._descriptor, json.dumps(what).encode() + b"\n")


def _run(order: dict[str, Any], tell: _Teller) -> None:
    from tautools.errors import TautoolsError
    from tautools.params.models import RunParams
    from tautools.run import run_cell

    if "slow_sync_s" in order:
        sync = os.fsync
        os.fsync = lambda descriptor: (time.sleep(order["slow_sync_s"]), sync(descriptor))[1]
    if "largest_file" in order:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"], resource.RLIM_INFINITY))
    try:
        result = run_cell(
            RunParams.model_validate(order["run"]),
            workspace=Path(order["workspace"]),
            on_event=lambda event: tell(event=event.kind),
        )
        tell(
            done=result.done, pending=result.pending, interrupted=result.interrupted, text=str(result),
            restored=signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        )  # fmt: skip
    except TautoolsError as error:
        tell(error=str(error))


def _main() -> None:
    from tautools.bench import open_source

    open_source().domain("retail")
    for line in sys.stdin:
        if not os.fork():
            _wait_for_run(json.loads(line))
            os._exit(0)


def _wait_for_run(order: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    tell = _Teller(order["pipe"])
    run = os.fork()
    if not run:
        _run(order, tell)
        os._exit(0)
    tell(pid=run)
    tell(status=os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]))


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for the runs
    _main()
