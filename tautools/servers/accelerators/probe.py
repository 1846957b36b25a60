"""The accelerators of this node, read through `hl-smi` or `nvidia-smi`: memory, module, and which processes hold them.

Everything is read again each time: on Gaudi nodes the map from the index that `hl-smi` prints to the module id that a
process must be given differs from node to node. `hl-smi` has no query for processes, so three sources are combined:
memory above the idle baseline, the table that it prints without arguments, and this user's own processes that have
`/dev/accel/accel<index>` open. Processes of other users are named as far as the kernel allows, and never touched.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import psutil

from tautools.errors import ServerError
from tautools.shell import Shell

HL_FIELDS = ("index", "module_id", "memory.used", "memory.total", "name", "uuid")
NVIDIA_FIELDS = ("index", "memory.used", "memory.total", "name", "uuid")
NVIDIA_APP_FIELDS = ("gpu_uuid", "pid")

# The block of processes at the end of hl-smi's table: card, pid, type, name, memory. `N/A` rows do not fit.
_PROCESS_ROW = re.compile(r"^\|\s*(?P<index>\d+)\s+(?P<pid>\d+)\s+\S+\s+\S.*?\s+\d+\s*MiB\s*\|?\s*$")


@dataclass(frozen=True, slots=True)
class CardRow:
    """One line of a query; memory in MiB."""

    index: int
    module: int
    used_mib: int
    total_mib: int
    name: str
    uuid: str


def gaudi_rows(text: str) -> list[CardRow]:
    """Read the answer to a query of `HL_FIELDS`.

    Raises
    ------
    ServerError
        When a line does not fit.
    """
    rows = []
    for cells in _csv_cells(text):
        index, module, used, total = (_cell_number("hl-smi", cells, place) for place in range(4))
        rows.append(CardRow(index, module, used, total, *_cell_texts("hl-smi", cells, 4)))
    return rows


def nvidia_rows(text: str) -> list[CardRow]:
    """Read the answer to a query of `NVIDIA_FIELDS`; errors as `gaudi_rows`."""
    rows = []
    for cells in _csv_cells(text):
        index, used, total = (_cell_number("nvidia-smi", cells, place) for place in range(3))
        rows.append(CardRow(index, index, used, total, *_cell_texts("nvidia-smi", cells, 3)))
    return rows


def nvidia_pids(text: str) -> dict[str, set[int]]:
    """Read the answer to a query of `NVIDIA_APP_FIELDS`: pids by the card's uuid."""
    found: dict[str, set[int]] = {}
    for cells in _csv_cells(text):
        # Where processes may not be seen it prints a sentence in brackets.
        if len(cells) == len(NVIDIA_APP_FIELDS) and cells[1].isdigit():
            found.setdefault(cells[0], set()).add(int(cells[1]))
    return found


def gaudi_pids(table: str) -> dict[str, set[int]]:
    """Read the processes in the table of plain `hl-smi`: pids by the card's index; nothing of what does not fit."""
    found: dict[str, set[int]] = {}
    _, _, processes = table.partition("Compute Processes")
    for line in processes.splitlines():
        row = _PROCESS_ROW.match(line)
        if row:
            found.setdefault(row["index"], set()).add(int(row["pid"]))
    return found


def _csv_cells(text: str) -> list[list[str]]:
    lines = csv.reader(io.StringIO(text), skipinitialspace=True)
    return [[cell.strip() for cell in cells] for cells in lines if any(cell.strip() for cell in cells)]


def _cell_number(program: str, cells: list[str], place: int) -> int:
    try:
        return int(float(cells[place].split()[0]))
    except (IndexError, ValueError) as error:
        raise _unreadable_output(program, cells) from error


def _cell_texts(program: str, cells: list[str], place: int) -> tuple[str, str]:
    if len(cells) != place + 2:
        raise _unreadable_output(program, cells)
    return cells[place], cells[place + 1]


def _unreadable_output(program: str, cells: list[str]) -> ServerError:
    return ServerError(
        f"What `{program}` says of a card cannot be read.",
        evidence=", ".join(cells)[:300],
        next_step=f"Run `{program}` by hand; if all is well there, its form is unknown to tautools.",
    )


_DEVICE_FILE = re.compile(r"^/dev/accel/accel(?P<index>\d+)$")

_COMMAND_CHARS = 120


@dataclass(frozen=True, slots=True)
class CardProcess:
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
        return f"process {self.pid} of {self.user}, {_age_text(self.age_s)} old: {self.command}"


def card_process(pid: int) -> CardProcess | None:
    """Return what may be known of a process; None when it has ended."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        mine = process.uids().real == os.getuid()
        command = process.name()
        with contextlib.suppress(psutil.AccessDenied):
            command = " ".join(process.cmdline()) if mine else command
        return CardProcess(pid, process.create_time(), process.username(), mine, (command or "?")[:_COMMAND_CHARS])
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
        device = _DEVICE_FILE.match(str(descriptor.readlink()))
        return int(device["index"]) if device else None
    return None


def _age_text(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


Device = Literal["gaudi", "cuda"]

_PROGRAMS: dict[Device, str] = {"gaudi": "hl-smi", "cuda": "nvidia-smi"}

_FREE_MIB: dict[Device, int] = {"gaudi": 1536, "cuda": 1024}
"""A card that holds more is in use. An idle HL-225 shows 768 MiB of 98304; an idle CUDA card next to nothing."""

_VARIABLES: dict[Device, str] = {"gaudi": "HABANA_VISIBLE_MODULES", "cuda": "CUDA_VISIBLE_DEVICES"}

_QUERY_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Card:
    """One card as it was found."""

    device: Device
    index: int
    """What people and `nvidia-smi`/`hl-smi` call it."""
    module: int
    """What a process must be given to see it: the module id on Gaudi, the index elsewhere."""
    used_mib: int
    total_mib: int
    name: str = ""
    uuid: str = ""
    holders: tuple[CardProcess, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether its memory is at the idle baseline and no process is known to hold it."""
        return not self.holders and self.used_mib <= _FREE_MIB[self.device]

    @property
    def why_busy(self) -> str:
        """Say who holds it, as far as this user may know; empty for an idle card."""
        if self.idle:
            return ""
        memory = f"{self.used_mib} of {self.total_mib} MiB used"
        if not self.holders:
            return f"{memory}, by a process that this user cannot see"
        return f"{memory}; " + "; ".join(str(holder) for holder in self.holders)


class AcceleratorProbe:
    """Reads the cards of this node.

    Parameters
    ----------
    device : str, optional
        `gaudi` or `cuda`; the one whose program is on PATH by default.
    shell : Shell, optional
        The door to processes.
    proc : Path
        Where the kernel tells of processes; another folder in tests.
    """

    def __init__(self, device: str | None = None, *, shell: Shell | None = None, proc: Path = Path("/proc")) -> None:
        self._asked = device
        self._shell = shell or Shell()
        self._proc = proc

    @property
    def device(self) -> Device | None:
        """What kind of cards can be read here; None when there is no program to ask."""
        for device, program in _PROGRAMS.items():
            if self._asked in {None, device} and shutil.which(program):
                return device
        return None

    def read(self) -> list[Card]:
        """Return every card with its holders, by index; an empty list on a node without cards' programs.

        Raises
        ------
        ServerError
            When the program fails, or says what cannot be read.
        """
        device = self.device
        if device is None:
            return []
        rows = self._rows(device)
        pids = self._pids(device)
        return [
            replace(
                Card(device, row.index, row.module, row.used_mib, row.total_mib, row.name, row.uuid),
                holders=_running_processes(pids.get(row.uuid, set()) | pids.get(str(row.index), set())),
            )
            for row in sorted(rows, key=lambda row: row.index)
        ]

    def _rows(self, device: Device) -> list[CardRow]:
        if device == "gaudi":
            argv = ["hl-smi", "-Q", ",".join(HL_FIELDS), "-f", "csv,noheader,nounits"]
            return gaudi_rows(self._ask(argv))
        argv = ["nvidia-smi", f"--query-gpu={','.join(NVIDIA_FIELDS)}", "--format=csv,noheader,nounits"]
        return nvidia_rows(self._ask(argv))

    def _pids(self, device: Device) -> dict[str, set[int]]:
        """Return the pids known to hold each card, by its index or uuid."""
        if device == "cuda":
            argv = [
                "nvidia-smi",
                f"--query-compute-apps={','.join(NVIDIA_APP_FIELDS)}",
                "--format=csv,noheader,nounits",
            ]
            return nvidia_pids(self._ask(argv))
        pids = gaudi_pids(self._ask(["hl-smi"]))
        for index, own in device_pids(self._proc).items():
            pids.setdefault(str(index), set()).update(own)
        return pids

    def _ask(self, argv: list[str]) -> str:
        done = self._shell.run(argv, timeout_s=_QUERY_TIMEOUT_S)
        if done.exit_code != 0:
            raise ServerError(
                f"`{argv[0]}` failed with status {done.exit_code}, so the cards of this node are not known.",
                evidence=(done.stderr or done.stdout).strip()[-500:],
                next_step=f"Run `{' '.join(argv)}` by hand; a driver that does not answer needs the administrators.",
            )
        return done.stdout


def visible_to(cards: list[Card]) -> dict[str, str]:
    """Return the environment variable that shows a process these cards and no others; nothing for no cards."""
    if not cards:
        return {}
    return {_VARIABLES[cards[0].device]: ",".join(str(card.module) for card in cards)}


def _running_processes(pids: set[int]) -> tuple[CardProcess, ...]:
    found = (card_process(pid) for pid in sorted(pids))
    return tuple(holder for holder in found if holder is not None)
