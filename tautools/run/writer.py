"""One process's hand on a setting's folder: conversations, commit rows, model calls and events.

Each writer has its own files, named after host, process, time and chance, and never reopens one. A conversation is
written and synced before the row that commits it, so a row that can be read points to bytes that are there.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
import threading
import time
from typing import TYPE_CHECKING

from tautools.files import LineWriter, ensure_folder
from tautools.records import CommitRow, Conversation, ConversationPlace
from tautools.run.ledger import Void
from tautools.run.unjudged import Unjudged

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tautools.records import CallRecord, Event

__all__ = ["Writer", "writer_name"]

KINDS = ("conversations", "ledger", "calls", "events", "unjudged")

_SHARED = frozenset(CommitRow.model_fields) & frozenset(Conversation.model_fields)
"""What a commit row repeats of its conversation."""


def writer_name() -> str:
    """Return a new name for a writer: `<host>-<pid>-<time>-<random>`."""
    host = re.sub(r"[^A-Za-z0-9.]+", "-", socket.gethostname()) or "host"
    return f"{host}-{os.getpid()}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


class Writer:
    """Writes what happens to one setting; files are made when the first line is written.

    Safe to use from several threads, `commit` and `flush_calls` from one at a time. Model calls are held in memory
    until `flush_calls`, `commit` or `close`.

    Parameters
    ----------
    folder : Path
        The setting's folder, which exists.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = writer_name()
        self._files: dict[str, LineWriter] = {}
        self._calls: list[bytes] = []
        # One lock for each kind: a model call is noted without waiting for the disk that syncs a conversation.
        self._locks = {kind: threading.Lock() for kind in KINDS}

    def commit(self, conversation: Conversation, counts: Mapping[str, int]) -> CommitRow:
        """Write a finished conversation and its row; when this returns, both are on the disk.

        Parameters
        ----------
        conversation : Conversation
            What to keep.
        counts : mapping of str to int
            The row's counts of calls and tokens, by field name.

        Raises
        ------
        FilesError
            When the disk did not take it; the conversation is owed again then.
        """
        raw = conversation.model_dump_json().encode()
        self.flush_calls()
        offset, length = self._append("conversations", raw, sync=True)
        place = ConversationPlace(
            file=f"{self.name}.jsonl", offset=offset, length=length, sha256=hashlib.sha256(raw).hexdigest()
        )
        shared = {name: getattr(conversation, name) for name in _SHARED}
        row = CommitRow(**shared, **counts, place=place, writer=self.name)
        self._append("ledger", row.model_dump_json().encode(), sync=True)
        return row

    def unjudged(self, conversation: Conversation, counts: Mapping[str, int]) -> None:
        """Keep a conversation that owes its verdict; when this returns, it is on the disk."""
        self.flush_calls()
        line = Unjudged(conversation=conversation, counts=dict(counts))
        self._append("unjudged", line.model_dump_json().encode(), sync=True)

    def void(self, row: CommitRow, reason: str) -> None:
        """Take back a row whose conversation is damaged."""
        place = row.place
        line = Void(file=place.file, offset=place.offset, sha256=place.sha256, reason=reason, at=time.time())
        self._append("ledger", line.model_dump_json().encode(), sync=True)

    def event(self, event: Event) -> None:
        """Write one event."""
        self._append("events", event.model_dump_json().encode())

    def call(self, record: CallRecord) -> None:
        """Hold one model call for the next flush."""
        self._calls.append(record.model_dump_json(exclude_none=True).encode())

    def flush_calls(self) -> None:
        """Write the model calls that are held."""
        lines = self._calls[:]
        if lines:
            del self._calls[: len(lines)]
            self._append("calls", b"\n".join(lines))

    def close(self) -> None:
        """Write what is held and close the files."""
        try:
            self.flush_calls()
        finally:
            for file in self._files.values():
                file.close()

    def _append(self, kind: str, line: bytes, *, sync: bool = False) -> tuple[int, int]:
        with self._locks[kind]:
            if kind not in self._files:
                self._files[kind] = LineWriter(ensure_folder(self.folder / kind) / f"{self.name}.jsonl")
            return self._files[kind].append(line, sync=sync)
