"""Follow a server's log from where it was last read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.files import read_span
from tautools.server.registry import Registry
from tautools.server.state import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.records import ServerRecord

__all__ = ["LogReader", "follow"]

_ASK_SLURM_S = 5.0
_MOST_BYTES = 262_144
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
        if now - asked_at >= (_ASK_SLURM_S if record.how == "slurm" else poll_s):
            asked_at, ended = now, has_ended(record, workspace=workspace)
        # A job in the queue has its log's name only when it was submitted, and another one after it came back.
        record = registry.find(record.name) or record if registry.is_current(record) else record
        for log in filter(None, (record.log_out, record.log_err)):
            if log not in readers:
                readers[log] = LogReader(Path(log), _start_of_last(Path(log), lines))
            yield from readers[log].new_lines()
        if ended:
            return
        time.sleep(poll_s)


def _start_of_last(path: Path, lines: int) -> int:
    """Return where the last so many complete lines of a file begin [bytes]; its end when none is wanted."""
    try:
        size = path.stat().st_size
        first = max(0, size - _MOST_BYTES)
        data = read_span(path, first, size - first)
    except FileNotFoundError:
        return 0
    at = data.rfind(b"\n") + 1
    for _ in range(lines):
        if at == 0:
            break
        at = data.rfind(b"\n", 0, at - 1) + 1
    return first + at
