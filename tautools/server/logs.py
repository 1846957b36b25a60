"""Follow a server's log from where it was last read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.server.state import server_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.http import Http
    from tautools.records import ServerRecord

__all__ = ["LogReader", "follow"]


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


def follow(record: ServerRecord, *, workspace: Path, http: Http | None = None, poll_s: float = 0.3) -> Iterator[str]:
    """Yield the lines that the server writes from now on, until it has ended.

    Parameters
    ----------
    record : ServerRecord
        The launch that is meant.
    workspace : Path
        Where it is registered.
    http : Http, optional
        The network's door, to ask whether it still runs.
    poll_s : float
        Seconds between two looks at the files.
    """
    paths = [Path(log) for log in (record.log_out, record.log_err) if log]
    readers = [LogReader(path, path.stat().st_size if path.exists() else 0) for path in paths]
    while True:
        ended = server_state(record, workspace=workspace, http=http).state.final
        for reader in readers:
            yield from reader.new_lines()
        if ended:
            return
        time.sleep(poll_s)
