"""Run a sweep in a process of its own, so that a notebook's kernel stays free and a closed browser stops nothing.

The process is the command line's own `tautools sweep run`; it is recorded in `claims/<sweep>/runner.json`, so that
another panel, or the same one after a restart of its kernel, finds it again.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import SweepError
from tautools.files import ensure_folder
from tautools.records import Record
from tautools.shell import process_alive, start_detached, stop_group
from tautools.sweep.cells import expand, select_cells
from tautools.sweep.status import read_note, write_note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.params.models import SweepParams


STOP_MARGIN_S = 30.0
"""Added to the sweep's grace before its process is killed [s]: servers take a moment to stop."""


_COLOUR_VARIABLES = {"FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR"}


class SweepProcess(Record):
    """The process that works on a sweep."""

    pid: int
    pid_started_at: float
    started_at: float
    """Unix time [s]."""
    log: str
    """What it prints."""
    cells: list[int] | None = None
    """Indices it was asked for; all when None."""

    @property
    def alive(self) -> bool:
        """Whether it still works."""
        return process_alive(self.pid, self.pid_started_at)


def find_sweep_process(sweep: str, *, workspace: Path) -> SweepProcess | None:
    """Return the last process that was started for a sweep, or None; `alive` says whether it still works.

    Parameters
    ----------
    sweep : str
        The sweep's name.
    workspace : Path
        Where it is worked on.
    """
    return read_note(_record_path(sweep, workspace), SweepProcess)


def start_sweep(
    sweep: SweepParams, *, workspace: Path, source: str | None = None, only: Sequence[int] | None = None
) -> SweepProcess:
    """Start working on a sweep and return at once.

    Parameters
    ----------
    sweep : SweepParams
        The sweep.
    workspace : Path
        Where everything goes.
    source : str, optional
        The sweep's file or name, as the command line takes it; its name when not given.
    only : sequence of int, optional
        Indices of the cells to work on; all when not given.

    Raises
    ------
    SweepError
        When a process works on this sweep already.
    ParamsError
        When there is no cell with such an index.
    """
    select_cells(expand(sweep), only)
    known = find_sweep_process(sweep.name, workspace=workspace)
    if known is not None and known.alive:
        raise SweepError(
            f"Sweep {sweep.name} is being worked on already, by process {known.pid}.",
            evidence=f"Its log: {known.log}",
            next_step="Watch it, or stop it first.",
        )
    workspace = workspace.expanduser().resolve()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    log = ensure_folder(workspace / "logs") / f"sweep-{sweep.name}_{stamp}-{os.getpid()}.out"
    argv = [sys.executable, "-m", "tautools", "sweep", "run", source or sweep.name, "--workspace", str(workspace)]
    if only is not None:
        argv += ["--cells", ",".join(str(index) for index in only)]
    # Its output goes to a file: a kernel's demand for colours is left out.
    environment = {name: value for name, value in os.environ.items() if name not in _COLOUR_VARIABLES}
    process = start_detached(argv, env=environment | {"TERM": "dumb"}, cwd=Path.cwd(), stdout=log, stderr=log)
    runner = SweepProcess(
        pid=process.pid,
        pid_started_at=process.started_at,
        started_at=time.time(),
        log=str(log),
        cells=None if only is None else list(only),
    )
    write_note(_record_path(sweep.name, workspace), runner)
    return runner


def stop_sweep(sweep: SweepParams, *, workspace: Path) -> None:
    """Ask the process that works on a sweep to stop, and wait until it has; what is unfinished stays pending.

    Raises
    ------
    SweepError
        When no process works on it.
    """
    runner = find_sweep_process(sweep.name, workspace=workspace)
    if runner is None or not runner.alive:
        raise SweepError(f"Nothing is working on sweep {sweep.name}.", next_step="Run it to go on where it stopped.")
    # One SIGTERM only: a second one would cut the grace of running conversations short.
    wait_s = sweep.grace_s + STOP_MARGIN_S
    stop_group(runner.pid, runner.pid_started_at, term_s=wait_s, again_s=wait_s + 1)


def _record_path(sweep: str, workspace: Path) -> Path:
    return workspace / "claims" / sweep / "runner.json"
