"""What is finished: commit rows and the conversations they point to.

A conversation is finished if and only if its commit row can be read and its bytes are there. Rows lie in
`ledger/<writer>.jsonl`, one file for each writer, never reopened; a torn last line, NUL bytes and foreign lines count
as never written. Of two rows with one key the one that finished first counts, whatever its outcome, so that a repeat
can never improve a score. A row whose conversation turned out to be damaged is taken back by a later line, a `Void`:
nothing is ever rewritten.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError

from tautools.errors import RecordError
from tautools.files import read_lines, read_span
from tautools.records import CallRecord, CommitRow, Conversation, Event, Outcome, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tautools.records import ConversationPlace

__all__ = ["Key", "Ledger", "Void", "intact", "read_calls", "read_conversation", "read_events", "read_ledger"]

Key: TypeAlias = tuple[str, str, int]
"""Setting id, task id, trial."""

Model = TypeVar("Model", bound=BaseModel)


class Void(Record):
    """A line of the ledger that takes a row back: its conversation's bytes are damaged."""

    void: Literal[True] = True
    file: str
    """The damaged conversation's file and offset name the row."""
    offset: int
    sha256: str
    reason: str
    at: float


class Ledger:
    """Reads a setting's ledger, each line once; after `refresh`, `rows` is what is finished now.

    Parameters
    ----------
    folder : Path
        The setting's folder. It need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._start_over()

    def _start_over(self) -> None:
        self._read_to: dict[str, int] = {}
        self._rows: dict[Key, list[CommitRow]] = {}
        self._void: set[tuple[str, int, str]] = set()

    def refresh(self) -> Ledger:
        """Read what writers have added since the last time, and return this ledger."""
        sizes = {path: path.stat().st_size for path in sorted((self.folder / "ledger").glob("*.jsonl"))}
        if any(size < self._read_to.get(path.name, 0) for path, size in sizes.items()):
            self._start_over()  # a file was cut by someone: what it held then is not to be trusted
        for path, size in sizes.items():
            start = self._read_to.get(path.name, 0)
            if size > start:
                self._read_to[path.name] = start + self._read(read_span(path, start, size - start))
        return self

    def rows(self) -> dict[Key, CommitRow]:
        """Return the row that counts for each key: the first finished of those whose conversation is there."""
        sizes: dict[str, int] = {}
        found = ((key, self._first(rows, sizes)) for key, rows in self._rows.items())
        return {key: row for key, row in found if row is not None}

    def row(self, key: Key) -> CommitRow | None:
        """Return the row that counts for one key, or None when it is not finished."""
        return self._first(self._rows.get(key, []), {})

    def repeats(self) -> int:
        """Return how many rows repeat a key that another row has."""
        return sum(len(rows) - 1 for rows in self._rows.values())

    def _read(self, data: bytes) -> int:
        """Take the complete lines of `data` and return how many bytes they are."""
        complete = data.rfind(b"\n") + 1
        for line in data[:complete].split(b"\n"):
            if line and b"\0" not in line:
                self._take(line)
        return complete

    def _take(self, line: bytes) -> None:
        void = _parse(Void, line) if b'"void":true' in line else None
        if void is not None:
            self._void.add((void.file, void.offset, void.sha256))
            return
        row = _parse(CommitRow, line)
        if row is not None and row.outcome is not Outcome.INFRA and _is_bare_name(row.place.file):
            self._rows.setdefault(row.key, []).append(row)

    def _first(self, rows: list[CommitRow], sizes: dict[str, int]) -> CommitRow | None:
        there = [row for row in rows if self._is_there(row.place, sizes)]
        return min(there, key=_order, default=None)

    def _is_there(self, place: ConversationPlace, sizes: dict[str, int]) -> bool:
        if (place.file, place.offset, place.sha256) in self._void:
            return False
        if place.file not in sizes:
            try:
                sizes[place.file] = (self.folder / "conversations" / place.file).stat().st_size
            except (FileNotFoundError, NotADirectoryError):
                sizes[place.file] = -1
        return place.offset + place.length <= sizes[place.file]


def read_ledger(folder: Path) -> dict[Key, CommitRow]:
    """Return the commit row that counts for each finished conversation under `folder`.

    That the conversation's bytes are there is checked by size only; `read_conversation` checks their hash.
    """
    return Ledger(folder).refresh().rows()


def read_conversation(folder: Path, row: CommitRow) -> Conversation:
    """Return the conversation of a commit row.

    Raises
    ------
    RecordError
        When its bytes are not what the row says.
    """
    raw = _bytes(folder, row)
    found = None if raw is None else _parse(Conversation, raw)
    if found is None:
        raise RecordError(
            f"The conversation of task {row.task_id}, trial {row.trial} is damaged.",
            evidence=f"{folder / 'conversations' / row.place.file}, {row.place.length} bytes from {row.place.offset}: "
            "not what the ledger says.",
            next_step="Run the cell again with `tautools run`: it finds the damage and repeats this conversation.",
        )
    return found


def intact(folder: Path, row: CommitRow) -> bool:
    """Whether the conversation's bytes are there and hash to what the row says."""
    return _bytes(folder, row) is not None


def read_calls(folder: Path) -> Iterator[CallRecord]:
    """Yield the model calls recorded under `folder`, writer by writer, in the order they ended."""
    yield from _records(folder / "calls", CallRecord)


def read_events(folder: Path) -> Iterator[Event]:
    """Yield the events recorded under `folder`, writer by writer, in the order they happened."""
    yield from _records(folder / "events", Event)


def _records(folder: Path, kind: type[Model]) -> Iterator[Model]:
    for path in sorted(folder.glob("*.jsonl")):
        for line in read_lines(path):
            record = _parse(kind, line)
            if record is not None:
                yield record


def _parse(kind: type[Model], line: bytes) -> Model | None:
    try:
        return kind.model_validate_json(line)
    except ValidationError:
        return None


def _bytes(folder: Path, row: CommitRow) -> bytes | None:
    try:
        raw = read_span(folder / "conversations" / row.place.file, row.place.offset, row.place.length)
    except FileNotFoundError:
        return None
    return raw if hashlib.sha256(raw).hexdigest() == row.place.sha256 else None


def _is_bare_name(name: str) -> bool:
    return bool(name) and "/" not in name and "\\" not in name and name not in {".", ".."}


def _order(row: CommitRow) -> tuple[float, str, int]:
    return row.finished_at, row.writer, row.place.offset
