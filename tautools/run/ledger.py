"""The append-only record of a setting: conversations, the commit rows that make them finished, model calls and events.

A conversation is finished if and only if its commit row can be read and its bytes are there. Each writer has its own
files, `ledger/<writer>.jsonl` and so on, and never reopens one; a torn last line, NUL bytes and foreign lines count as
never written. Of two rows with one key the one that finished first counts, whatever its outcome, so that a repeat can
never improve a score. A row whose conversation turned out to be damaged is taken back by a later line: nothing is ever
rewritten. Conversations that lack only a judge's verdict wait in `awaiting_judge/<writer>.jsonl`.

`[TAU2_TASK_COMPLETE]`, `OVERALL_ETA` and `Retrying in N seconds` keep the words of the logs that users grep today.
"""

import hashlib
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, Field, ValidationError

from tautools.errors import ModelCallError, RecordError
from tautools.files import LineWriter, ensure_folder, read_lines, read_span
from tautools.llm.types import CallTag, CallUnderWay
from tautools.records import CallRecord, CommitRow, Conversation, ConversationLocation, Event, Outcome, Record, Setting

Key: TypeAlias = tuple[str, str, int]
"""Setting id, task id, trial."""

Model = TypeVar("Model", bound=BaseModel)

_BARE_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\\]+", re.DOTALL)
"""Of a file in the folder of conversations; a row that names another place is none of ours."""


class VoidedRow(Record):
    """A line of the ledger that takes a row back: its conversation's bytes are damaged."""

    void: Literal[True] = True
    file: str
    """The damaged conversation's file and offset name the row."""
    offset: int
    sha256: str
    reason: str
    at: float


class Ledger:
    """Reads a setting's ledger, each line once; after `refresh`, `rows` is what is finished now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._start_over()

    def _start_over(self) -> None:
        self._read_to: Counter[str] = Counter()
        self._rows: dict[Key, list[CommitRow]] = {}
        self._void: set[tuple[str, int, str]] = set()

    def refresh(self) -> "Ledger":
        """Read what writers have added since the last time, and return this ledger."""
        sizes = {path: path.stat().st_size for path in sorted((self.folder / "ledger").glob("*.jsonl"))}
        if any(size < self._read_to[path.name] for path, size in sizes.items()):
            self._start_over()  # a file was cut by someone: what it held then is not to be trusted
        for path, size in sizes.items():
            start = self._read_to[path.name]
            if size > start:
                self._read_to[path.name] += self._read(read_span(path, start, size - start))
        return self

    def rows(self, setting_id: str | None = None) -> dict[Key, CommitRow]:
        """Return the row that counts for each key, of one setting or of all.

        Of several rows the first finished counts whose conversation is there.
        """
        sizes: dict[str, int] = {}
        keys = [key for key in self._rows if setting_id in {None, key[0]}]
        counting = {key: self._first(self._rows[key], sizes) for key in keys}
        return {key: row for key, row in counting.items() if row is not None}

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
        if b'"void":true' in line and (void := _parse(VoidedRow, line)) is not None:
            self._void.add((void.file, void.offset, void.sha256))
            return
        row = _parse(CommitRow, line)
        if row is not None and row.outcome is not Outcome.INFRA and _BARE_NAME.fullmatch(row.location.file):
            self._rows.setdefault(row.key, []).append(row)

    def _first(self, rows: list[CommitRow], sizes: dict[str, int]) -> CommitRow | None:
        there = [row for row in rows if self._is_there(row.location, sizes)]
        return min(there, key=lambda row: (row.finished_at, row.writer, row.location.offset), default=None)

    def _is_there(self, place: ConversationLocation, sizes: dict[str, int]) -> bool:
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

    Parameters
    ----------
    folder : Path
        The setting's folder.
    row : CommitRow
        Which conversation.

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
            evidence=f"{folder / 'conversations' / row.location.file}, from byte {row.location.offset}: "
            "not what the ledger says.",
            next_step="Run the cell again with `tautools run`: it finds the damage and repeats this conversation.",
        )
    return found


def passed_and_scored(rows: Iterable[CommitRow]) -> tuple[int, int]:
    """Return how many conversations passed, and how many have a score."""
    outcomes = [row.outcome for row in rows]
    return outcomes.count(Outcome.PASSED), sum(outcome.scored for outcome in outcomes)


def count_user_errors(rows: Iterable[CommitRow]) -> int:
    """Return how many conversations have no score because the customer's model failed."""
    return sum(row.outcome is Outcome.USER_ERROR for row in rows)


def intact(folder: Path, row: CommitRow) -> bool:
    """Whether the conversation's bytes are there and hash to what the row says."""
    return _bytes(folder, row) is not None


def read_calls(folder: Path) -> Iterator[CallRecord]:
    """Yield the model calls recorded under `folder`, writer by writer, in the order they ended."""
    yield from _records(folder / "calls", CallRecord)


def read_events(folder: Path, *kinds: str) -> Iterator[Event]:
    """Yield the events recorded under `folder`, of all kinds or of these, writer by writer, in their order."""
    yield from (each for each in _records(folder / "events", Event) if not kinds or each.kind in kinds)


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
        raw = read_span(folder / "conversations" / row.location.file, row.location.offset, row.location.length)
    except FileNotFoundError:
        return None
    return raw if hashlib.sha256(raw).hexdigest() == row.location.sha256 else None


class AwaitingJudge(Record):
    """One conversation that has ended and lacks a judge's verdict."""

    conversation: Conversation
    counts: dict[str, int] = Field(default_factory=dict)
    """Calls and tokens that it cost, by the names of `CommitRow`."""


def read_awaiting_judge(folder: Path, setting_id: str) -> dict[tuple[str, int], AwaitingJudge]:
    """Return what was stored without a verdict, by task and trial, whether it has a commit row by now or not.

    Lines that cannot be read count as never written; of two for one conversation the first counts.
    """
    waiting: dict[tuple[str, int], AwaitingJudge] = {}
    for each in _records(folder / "awaiting_judge", AwaitingJudge):
        if each.conversation.setting_id == setting_id:
            waiting.setdefault((each.conversation.task_id, each.conversation.trial), each)
    return waiting


def count_awaiting_judge(folder: Path, setting_id: str, ledger: Ledger | None = None) -> int:
    """Return how many conversations are stored and have no verdict yet; the ledger is read unless it is given."""
    waiting = read_awaiting_judge(folder, setting_id)
    if not waiting:
        return 0
    rows = (ledger or Ledger(folder).refresh()).rows(setting_id)
    return len(waiting.keys() - {key[1:] for key in rows})


FLAG_COUNT = "flags "
"""Begins the names of counts of flagged answers, among the counts of a conversation."""

KINDS = ("conversations", "ledger", "calls", "events", "awaiting_judge")

_SHARED_FIELDS = frozenset(CommitRow.model_fields) & frozenset(Conversation.model_fields)
"""What a commit row repeats of its conversation."""


def is_tool_output(message: Mapping[str, Any]) -> bool:
    """Whether a message is what a tool gave back; under `act` and `react` it comes as a user message."""
    return message["role"] == "tool" or (
        message["role"] == "user" and str(message.get("content", "")).startswith("API output:")
    )


class ResultsWriter:
    """Writes what happens to one setting, in files that are made when their first line is written.

    Safe to use from several threads, `commit` and `flush_calls` from one at a time. Model calls stay in memory until
    `flush_calls`, `commit` or `close`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        host = re.sub(r"[^A-Za-z0-9.]+", "-", socket.gethostname()) or "host"
        began = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        self.name = f"{host}-{os.getpid()}-{began}-{secrets.token_hex(4)}"
        self._files: dict[str, LineWriter] = {}
        self._calls: list[bytes] = []
        # One lock for each kind: a model call is noted without waiting for the disk that syncs a conversation.
        self._locks = {kind: threading.Lock() for kind in KINDS}

    def commit(self, conversation: Conversation, counts: Mapping[str, int]) -> CommitRow:
        """Write a finished conversation and its row; when this returns, both are on the disk.

        `counts` are the row's, of calls and tokens, by field name; tool calls are counted here unless they are given.
        On a `FilesError` the disk did not take it, and the conversation is pending again.
        """
        raw = conversation.model_dump_json().encode()
        self.flush_calls()
        offset, length = self._append("conversations", raw, sync=True)
        place = ConversationLocation(
            file=f"{self.name}.jsonl", offset=offset, length=length, sha256=hashlib.sha256(raw).hexdigest()
        )
        fields = {name: getattr(conversation, name) for name in _SHARED_FIELDS}
        flags = {name.removeprefix(FLAG_COUNT): n for name, n in counts.items() if name.startswith(FLAG_COUNT)}
        fields |= {"tool_calls": sum(map(is_tool_output, conversation.messages)), **counts, "flags": flags}
        row = CommitRow(**fields, location=place, writer=self.name)
        self._append("ledger", row.model_dump_json().encode(), sync=True)
        return row

    def awaiting_judge(self, ended: AwaitingJudge) -> None:
        """Store a conversation that lacks its verdict; when this returns, it is on the disk."""
        self.flush_calls()
        self._append("awaiting_judge", ended.model_dump_json().encode(), sync=True)

    def void(self, row: CommitRow, reason: str) -> None:
        """Take back a row whose conversation is damaged."""
        place = row.location
        line = VoidedRow(file=place.file, offset=place.offset, sha256=place.sha256, reason=reason, at=time.time())
        self._append("ledger", line.model_dump_json().encode(), sync=True)

    def event(self, event: Event) -> None:
        """Write one event."""
        self._append("events", event.model_dump_json().encode())

    def call(self, record: CallRecord) -> None:
        """Keep one model call in memory for the next flush."""
        self._calls.append(record.model_dump_json(exclude_none=True).encode())

    def flush_calls(self) -> None:
        """Write the model calls that are in memory."""
        lines = self._calls[:]
        if lines:
            del self._calls[: len(lines)]
            self._append("calls", b"\n".join(lines))

    def close(self) -> None:
        """Write what is in memory and close the files."""
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


log = logging.getLogger("tautools.run")


class EventSink:
    """Turns what happens under a setting into events, stored and passed on in the run's thread, and into log lines."""

    def __init__(self, setting: Setting, writer: ResultsWriter, on_event: Callable[[Event], None]) -> None:
        self._setting, self._writer, self._on_event = setting, writer, on_event
        self._name = f"{setting.env} {setting.strategy.value} {setting.agent.model}"

    def emit(self, kind: str, message: str = "", *, at: tuple[str, int] | None = None, **data: Any) -> None:
        """Store an event and pass it on; `at` is the task and trial that it happened to, None for the whole run."""
        event = self._event(kind, message, at, data)
        self._writer.event(event)
        self._on_event(event)

    def finished(self, row: CommitRow, **data: Any) -> None:
        """Pass on that a conversation is finished; the ledger has it, so the events file does not repeat it."""
        reward = "none" if row.reward is None else f"{row.reward:g}"
        if row.writer == self._writer.name:
            took_s, eta_s, of = row.finished_at - row.started_at, data.get("eta_s"), f"{data['done']}/{data['planned']}"
            what = f"{self._name} task={row.task_id} trial={row.trial} outcome={row.outcome.value} reward={reward}"
            log.info("[TAU2_TASK_COMPLETE] %s took=%.1fs calls=%d (%s)", what, took_s, row.model_calls, of)
            eta = "unknown" if eta_s is None else clock(eta_s)
            log.info("OVERALL_ETA %s done=%s elapsed=%s", eta, of, clock(data["elapsed_s"]))
        message = f"task {row.task_id} trial {row.trial}: {row.outcome.value}, reward {reward}"
        data |= {"outcome": row.outcome.value, "reward": row.reward, "took_s": row.duration_s, "writer": row.writer}
        self._on_event(self._event("done", message, (row.task_id, row.trial), data))

    def retrying(self, tag: CallTag, delay_s: float, error: ModelCallError) -> None:
        """Emit that a model call is tried again after a while."""
        fault, role = error.fault.value, tag.role.value
        what = f"{self._name} task={tag.task_id} trial={tag.trial} {role} call: {fault} ({error.problem})"
        log.warning("Retrying in %.3g seconds: %s", delay_s, what)
        at = (tag.task_id, tag.trial)
        self.emit("retry", error.problem, at=at, fault=fault, role=role, delay_s=delay_s, status=error.status)

    def waiting(self, message: str, calls: Sequence[CallUnderWay]) -> None:
        """Pass on which call takes long; an empty message when none does any more. Nothing is stored."""
        first = calls[0] if calls else None
        at = (first.tag.task_id, first.tag.trial) if first else None
        data = {"role": first.tag.role.value, "seconds": first.seconds, "chunks": first.chunks} if first else {}
        self._on_event(self._event("waiting", message, at, {**data, "calls": len(calls)}))

    def _event(self, kind: str, message: str, at: tuple[str, int] | None, data: dict[str, Any]) -> Event:
        task_id, trial = at or ("", None)
        now, setting_id = time.time(), self._setting.id
        return Event(kind=kind, at=now, setting_id=setting_id, task_id=task_id, trial=trial, message=message, data=data)


def clock(seconds: float) -> str:
    """Return a length of time as `H:MM:SS`.

    Examples
    --------
    >>> clock(3725.4)
    '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
