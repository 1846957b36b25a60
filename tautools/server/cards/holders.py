"""Processes that hold a card: found by their open device files, told by pid, age and command, stopped on request.

Another user's process is named as far as the kernel lets us, and never touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Holder", "device_pids", "holder_of"]

_DEVICE = re.compile(r"^/dev/accel/accel(?P<index>\d+)$")

_COMMAND_CHARS = 120


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a card; with its start time [s since the epoch] it is this one for ever."""

    pid: int
    started_at: float
    user: str
    mine: bool
    command: str
    """Its command line, cut; of another user's process the name only, which may be all that is told."""

    @property
    def token(self) -> str:
        """Name it for a confirmation: `PID@START`."""
        return f"{self.pid}@{int(self.started_at)}"

    @property
    def age_s(self) -> float:
        """Since it was started [s]."""
        return max(0.0, time.time() - self.started_at)

    def __str__(self) -> str:
        return f"process {self.pid} of {self.user}, {_age(self.age_s)} old: {self.command}"


def holder_of(pid: int) -> Holder | None:
    """Return what may be known of a process; None when it has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        mine = process.uids().real == os.getuid()
        command = process.name()
        with contextlib.suppress(psutil.AccessDenied):
            command = " ".join(process.cmdline()) if mine else command
        return Holder(pid, process.create_time(), process.username(), mine, (command or "?")[:_COMMAND_CHARS])
    except psutil.Error:
        return None


def device_pids(proc: Path) -> dict[int, set[int]]:
    """Return the pids that have a Gaudi card's device file open, by the card's number.

    Parameters
    ----------
    proc : Path
        `/proc`. Other users' open files cannot be read there; they are left out.
    """
    found: dict[int, set[int]] = {}
    for folder in proc.iterdir() if proc.is_dir() else ():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in (folder / "fd").iterdir():
                index = _device_of(descriptor)
                if index is not None:
                    found.setdefault(index, set()).add(int(folder.name))
    return found


def _device_of(descriptor: Path) -> int | None:
    with contextlib.suppress(OSError):  # closed in the meantime
        device = _DEVICE.match(str(descriptor.readlink()))
        return int(device["index"]) if device else None
    return None


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
