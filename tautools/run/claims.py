"""Which conversations are being held right now, by whom, and what was said in them so far.

`running/<task>-<trial>.jsonl` is claim and live transcript in one: made exclusively by the process that runs the
conversation, a line for its owner and then one for each message, removed when the conversation ends. Claims only make
repeats between processes rare, the ledger settles them. A claim is dropped when its process is gone (same host), or
when nobody has touched it for a while.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from tautools.files import ensure_folder, read_lines
from tautools.shell import process_alive, this_process

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


STALE_S = 120.0
"""A claim that was not touched for so long has no owner any more [s]."""

RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Running:
    """A conversation that is being held, as far as it has come."""

    path: Path
    owner: Mapping[str, Any]
    messages: list[dict[str, Any]]

    @property
    def task_id(self) -> str:
        """The task."""
        return str(self.owner.get("task_id", ""))

    @property
    def trial(self) -> int:
        """The trial, from 0."""
        return int(self.owner.get("trial", 0))


class Claim:
    """The right to hold one conversation, until `release`."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file

    def write(self, line: Mapping[str, Any]) -> None:
        """Add one line to the live transcript; a disk that refuses it costs the transcript, not the conversation."""
        with contextlib.suppress(OSError, ValueError):
            self._file.write(json.dumps(line, ensure_ascii=False, default=str).encode() + b"\n")

    def touch(self) -> None:
        """Tell other processes that the owner is alive."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def release(self) -> None:
        """Give the claim up and remove the transcript."""
        self._file.close()
        with contextlib.suppress(OSError):
            self.path.unlink()


class Claims:
    """Takes claims in one setting's folder on behalf of one writer."""

    def __init__(self, folder: Path, writer: str) -> None:
        self._folder = folder / RUNNING
        self._writer = writer
        self._held: set[Claim] = set()

    def take(self, task_id: str, trial: int) -> Claim | None:
        """Return the claim on a conversation, or None while another process holds it."""
        path = ensure_folder(self._folder) / f"{_file_name(task_id, trial)}.jsonl"
        for _ in range(2):
            try:
                claim = Claim(path, path.open("xb", buffering=0))
            except FileExistsError:
                if not _abandoned(path) or not _take_away(path, self._writer):
                    return None
                continue
            claim.write({**_owner(self._writer), "task_id": task_id, "trial": trial, "started_at": time.time()})
            self._held.add(claim)
            return claim
        return None

    def release(self, claim: Claim) -> None:
        """Give a claim up."""
        self._held.discard(claim)
        claim.release()

    def touch(self) -> None:
        """Touch every claim that is held."""
        for claim in list(self._held):
            claim.touch()

    def close(self) -> None:
        """Give everything up and remove what dead processes left."""
        for claim in list(self._held):
            self.release(claim)
        for path in self._folder.glob("*.jsonl"):
            if _abandoned(path):
                _take_away(path, self._writer)


def running(folder: Path) -> list[Running]:
    """Return the conversations of a setting that are being held now, the longest running first."""
    found = []
    for path in (folder / RUNNING).glob("*.jsonl"):
        lines = [parsed for line in read_lines(path) if (parsed := _json(line)) is not None]
        if lines and not _abandoned(path):
            found.append(Running(path, lines[0], lines[1:]))
    return sorted(found, key=lambda each: float(each.owner.get("started_at", 0.0)))


def _owner(writer: str) -> dict[str, Any]:
    me = this_process()
    return {"host": socket.gethostname(), "pid": me.pid, "process_started_at": me.started_at, "writer": writer}


def _abandoned(path: Path) -> bool:
    try:
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return False
    if age_s > STALE_S:
        return True
    owner = next((parsed for line in read_lines(path) if (parsed := _json(line)) is not None), None)
    if owner is None or owner.get("host") != socket.gethostname():
        return False
    try:
        return not process_alive(int(owner["pid"]), float(owner["process_started_at"]))
    except (KeyError, TypeError, ValueError):
        return False


def _take_away(path: Path, writer: str) -> bool:
    """Remove an abandoned claim; of several processes that try, one succeeds."""
    aside = path.with_name(f".{path.name}.{writer}.gone")
    try:
        path.rename(aside)
    except OSError:
        return False
    aside.unlink(missing_ok=True)
    return True


def _file_name(task_id: str, trial: int) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", task_id)[:40].lstrip(".")
    exact = "" if readable == task_id else "-" + hashlib.sha256(task_id.encode()).hexdigest()[:12]
    return f"{readable}{exact}-{trial}"


def _json(line: bytes) -> dict[str, Any] | None:
    try:
        parsed = json.loads(line)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict) else None
