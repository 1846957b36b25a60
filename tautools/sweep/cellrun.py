"""What is known of the last attempt at a cell: who worked on it, when, and how it ended.

It lies beside the executed notebook, because the notebook itself does not tell the truth about its end: after a
time-out, an interrupt or a killed kernel papermill calls every cell completed. Whether the cell is *done* is not in
here either: that is read from the ledger.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pydantic import ValidationError

from tautools.files import ensure_folder, write_atomic
from tautools.records import Record
from tautools.shell import process_alive

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["STOPPED", "CellRun", "read_cell_run", "write_cell_run"]


STOPPED = 143
"""Exit status of a notebook that was asked to stop: 128 + SIGTERM, as shells say it."""


class CellRun(Record):
    """One attempt at a cell."""

    pid: int
    pid_started_at: float
    """Start time of the process [s since the epoch]; with the pid it names one process for ever."""
    host: str
    started_at: float
    """Unix time [s]."""
    finished_at: float | None = None
    exit_code: int | None = None
    """0: the notebook ran to its end; 143: it was asked to stop."""
    cause: str = ""
    """Why it did not run to its end."""
    stdout: str = ""
    """Path of the log of what the notebook printed."""

    @property
    def running(self) -> bool:
        """Whether its process still works on it; of another host it is believed until it says otherwise."""
        if self.finished_at is not None:
            return False
        return self.host != socket.gethostname() or process_alive(self.pid, self.pid_started_at)


def read_cell_run(path: Path) -> CellRun | None:
    """Return the last attempt, or None when there was none that can be read."""
    try:
        return CellRun.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_cell_run(path: Path, attempt: CellRun) -> None:
    """Write down an attempt, so that readers see the old one or the new one."""
    ensure_folder(path.parent)
    write_atomic(path, attempt.model_dump_json(indent=1) + "\n")
