"""A program that answers one line of JSON with one line of JSON, for as long as it lives."""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
import weakref
from collections import deque
from typing import IO, TYPE_CHECKING, Any, cast

from tautools.shell import start_piped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.shell import Piped

__all__ = ["GoneError", "JsonPipe"]

_KEPT_LINES = 40
_END_S = 2.0
"""Seconds in which the program may end by itself once its input has ended."""


class GoneError(Exception):
    """The program has ended, or is as good as gone; the message completes "The program …"."""


class JsonPipe:
    """One run of a program.

    Parameters
    ----------
    argv, env, cwd
        As `start_piped` takes them.

    Raises
    ------
    ShellError
        When it cannot be started.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        self._process = start_piped(argv, env=env, cwd=cwd)
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        self._unread = b""
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        listen = (cast("IO[bytes]", self._process.stderr), self._lines)
        self._listener = threading.Thread(target=_listen, args=listen, name=f"stderr of {self.pid}", daemon=True)
        self._listener.start()
        # Also at the interpreter's end: the input is closed in good order, and the program is waited for.
        self._finish = weakref.finalize(self, _end, self._process)

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._process.pid

    def exchange(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """Send a request and return the answer; after any failure the program is ended.

        Raises
        ------
        GoneError
            When the program ends, closes its output or does not answer in time.
        """
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
            answer: dict[str, Any] = json.loads(self._line(timeout_s))
        except (OSError, ValueError, EOFError) as error:
            raise GoneError(self._how_it_ended()) from error
        except BaseException:  # such as an interrupt: the answer that is still to come must not be taken for another
            self.end()
            raise
        return answer

    def last_lines(self) -> str:
        """Return the last that the program wrote to its standard error, all of it once it has ended."""
        if self._process.poll() is not None:
            self._listener.join(timeout=1.0)
        return "\n".join(self._lines)

    def end(self) -> None:
        """End the program: by the end of its input, or else by force."""
        self._finish()

    def _line(self, timeout_s: float) -> bytes:
        deadline = time.monotonic() + timeout_s
        parts = [self._unread]
        while b"\n" not in parts[-1]:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.end()
                raise GoneError(f"gave no answer within {timeout_s:g} s and was ended")
            parts.append(os.read(self._answers.fileno(), 1 << 20))
            if not parts[-1]:
                raise EOFError
        line, _, self._unread = b"".join(parts).partition(b"\n")
        return line

    def _how_it_ended(self) -> str:
        self.end()
        code = self._process.returncode
        return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"


def _listen(stream: IO[bytes], lines: deque[str]) -> None:
    with stream:
        for line in stream:
            lines.append(line.decode(errors="replace").rstrip())


def _end(process: Piped) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not sent cannot be sent any more
                stream.close()
    deadline = time.monotonic() + _END_S
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    if process.poll() is None:
        process.kill()
        process.wait()
