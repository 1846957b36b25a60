"""Server-sent events: from bytes to lines, from lines to the JSON of each event.

Read as the standard says (WHATWG HTML, 9.2.6), with what servers of models add to it or leave out; the table is in
`docs/fidelity.md`, How streams are read. A line that cannot be read fails the stream: a skipped one could be a word.
"""

import json
from abc import ABC, abstractmethod
from typing import Any, NoReturn

import orjson

from tautools.errors import ModelCallError

UNREADABLE = (ValueError, AttributeError, TypeError, KeyError, IndexError, RecursionError)
"""What is raised where a chunk is no JSON, or has not the form of a chunk."""

_USUAL = b"data: {"
LONGEST_LINE = 2**24
_LONGEST_STREAM = 2**27
"""Bytes; 128,000 tokens with a kilobyte around each."""


class EventLines(ABC):
    """Reads events off the bytes of a stream; a subclass says what becomes of each, and in which words it fails."""

    def __init__(self) -> None:
        self.done = False
        self.opened = False
        """Whether an event has come."""
        self._bytes = 0
        self._held: list[bytes] = []  # the beginning of a line
        self._after_cr = False
        self._within = False  # an event that may go on
        self._type = b""  # its type
        self._data: list[bytes] = []  # its data lines, when the first could not be read by itself

    @abstractmethod
    def take(self, event: dict[str, Any], now: float) -> None:
        """Take one event, parsed; raises one of `UNREADABLE` for what is none."""

    @abstractmethod
    def error_of(self, event: dict[str, Any]) -> ModelCallError:
        """Return the error that an error event says."""

    @abstractmethod
    def malformed(self, did: str, seen: bytes) -> ModelCallError:
        """Return the error for what cannot be read."""

    def feed(self, data: bytes, now: float) -> None:
        """Take raw bytes of a server-sent event stream that arrived at `now`.

        Raises
        ------
        ModelCallError
            For an error event, and for what is not an event of such a stream (`MALFORMED`).
        """
        line = b""
        loads, take = orjson.loads, self.take
        try:
            for line in self._whole_lines(data):
                if line.startswith(_USUAL) and not self._within:
                    try:
                        event = loads(line[6:])
                    except orjson.JSONDecodeError:
                        self._take_line(line, now)
                    else:
                        take(event, now)
                elif line or self._within:
                    self._take_line(line, now)
                if self.done:
                    return
        except UNREADABLE:
            raise self.malformed("sends chunks that cannot be read", line) from None

    def end(self, now: float) -> None:
        """Take the end of the stream: what came last may lack the end of its line; raises as `feed` does."""
        self.feed(b"\n\n", now)

    def _whole_lines(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` ends; the beginning of the next one is kept for later."""
        if self._after_cr or b"\r" in data:
            data = self._without_cr(data)
        self._bytes += len(data)
        if self._bytes > _LONGEST_STREAM:
            raise self.malformed("sends an answer without end", data)
        if b"\n" not in data:
            self._hold(data)
            return []
        if self._held:
            data = b"".join((*self._held, data))
            self._held.clear()
        lines = data.split(b"\n")
        if rest := lines.pop():
            self._hold(rest)
        return lines

    def _without_cr(self, data: bytes) -> bytes:
        """Return `data` with LF for every end of a line, also for a CRLF that two reads share."""
        if self._after_cr and data:
            data = data.removeprefix(b"\n")
            self._after_cr = False
        self._after_cr = data.endswith(b"\r") if data else self._after_cr
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        if self._bytes > LONGEST_LINE and sum(map(len, self._held)) > LONGEST_LINE:
            raise self.malformed("sends a line without end", self._held[0])

    def _take_line(self, line: bytes, now: float) -> None:
        """Take a line that is no data of an event of one line; an empty one ends the event."""
        if not self.opened:
            line = line.removeprefix(b"\xef\xbb\xbf")
        name, _, value = line.partition(b":")
        self._within = True
        if not line:
            self._end_event(now)
        elif name == b"data":
            self._take_data(value, now)
        elif name == b"event":
            self._type = value.strip()
        elif name == b"error":
            self._type = name
            self._take_data(value, now)
            self._end_event(now)
        elif name not in {b"", b"id", b"retry"}:
            self._refuse(line)

    def _take_data(self, data: bytes, now: float) -> None:
        """Take one data line; what is not readable by itself waits for the next ones of its event."""
        self._data.append(data)
        if len(self._data) == 1 and self._take_event(data, now):
            self._data.clear()

    def _end_event(self, now: float) -> None:
        data, self._data = b"\n".join(self._data), []
        if data and not self._take_event(data, now):
            if self._type == b"error":
                raise self.error_of({"error": data[:2000].decode(errors="replace").strip()})
            raise self.malformed("sends chunks that cannot be read", data)
        self._type, self._within = b"", False

    def _take_event(self, data: bytes, now: float) -> bool:
        """Take the data of an event; return whether it could be read."""
        if (plain := data.strip()) in {b"", b"[DONE]"}:
            self.done = self.done or bool(plain)
            return True
        try:
            event = loads(data)
        except ValueError:
            return False
        if self._type == b"error":
            raise self.error_of(event if isinstance(event, dict) and event.get("error") else {"error": event})
        self.take(event, now)
        return True

    def _refuse(self, line: bytes) -> NoReturn:
        """Raise what a line means that is no part of an event: a bare error object, or nothing that is known."""
        if line.startswith(b"{"):
            event = loads(line)
            if event.get("error") or event.get("object") == "error":
                raise self.error_of(event)
        did = "sends a line that is no event" if self.opened else "did not send a stream of events"
        raise self.malformed(did, line)


def loads(data: bytes) -> Any:
    """Return JSON as Python reads it where orjson is strict: half a letter, or half a surrogate pair, is no error."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data.decode(errors="replace"), parse_constant=_no_number)


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no JSON")
