"""The accelerators of this node, read through `hl-smi` or `nvidia-smi`: memory, module, and which processes use them.

Everything is read again each time: on Gaudi nodes the map from the index that `hl-smi` prints to the module id that a
process must be given differs from node to node. `hl-smi` has no query for processes, so three sources are combined:
memory above the idle baseline, the table that it prints without arguments, and this user's own processes that have
`/dev/accel/accel<index>` open. Processes of other users are named as far as the kernel allows, and never touched.
"""

import contextlib
import csv
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from tautools.errors import ServerError
from tautools.shell import run_command

Device = Literal["gaudi", "cuda"]

CARD_VARIABLES: dict[str, str] = {"gaudi": "HABANA_VISIBLE_MODULES", "cuda": "CUDA_VISIBLE_DEVICES"}
"""By device: the environment variable that shows a process its cards."""

_QUERIES: dict[Device, list[str]] = {
    "gaudi": ["hl-smi", "-Q", "index,module_id,memory.used,memory.total,name,uuid", "-f", "csv,noheader,nounits"],
    "cuda": ["nvidia-smi", "--query-gpu=index,memory.used,memory.total,name,uuid", "--format=csv,noheader,nounits"],
}
_CUDA_PROCESSES = ["nvidia-smi", "--query-compute-apps=gpu_uuid,pid", "--format=csv,noheader,nounits"]

_IDLE_MIB: dict[str, int] = {"gaudi": 1536, "cuda": 1024}
"""A card that uses more is busy. An idle HL-225 shows 768 MiB of 98304; an idle CUDA card next to nothing."""

# The block of processes at the end of hl-smi's table: card, pid, type, name, memory. `N/A` rows do not match.
_PROCESS_ROW = re.compile(r"^\|\s*(?P<index>\d+)\s+(?P<pid>\d+)\s+\S+\s+\S.*?\s+\d+\s*MiB\s*\|?\s*$")
_DEVICE_FILE = re.compile(r"^/dev/accel/accel(?P<index>\d+)$")


@dataclass(frozen=True, slots=True)
class CardProcess:
    """A process that uses a card; pid and start time [s since the epoch] together identify it for good."""

    pid: int
    started_at: float
    user: str
    mine: bool
    command: str
    """Its command line, cut; of another user's process the name only, which may be all that is known."""

    @property
    def token(self) -> str:
        """Its name in a confirmation: `PID@START`."""
        return f"{self.pid}@{int(self.started_at)}"

    @property
    def age_s(self) -> float:
        """Since it was started [s]."""
        return max(0.0, time.time() - self.started_at)

    def __str__(self) -> str:
        age_s = self.age_s
        unit, size = next((each for each in (("d", 86400), ("h", 3600), ("min", 60)) if age_s >= each[1]), ("s", 1))
        return f"process {self.pid} of {self.user}, {age_s / size:.{int(size > 1)}f} {unit} old: {self.command}"


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
        """Whether its memory is at the idle baseline and no process is known to use it."""
        return not self.holders and self.used_mib <= _IDLE_MIB[self.device]

    @property
    def why_busy(self) -> str:
        """Who uses it, as far as this user may know; empty for an idle card."""
        if self.idle:
            return ""
        processes = "; ".join(str(process) for process in self.holders)
        who = f"; {processes}" if processes else ", by a process that this user cannot see"
        return f"{self.used_mib} of {self.total_mib} MiB used{who}"


def visible_device(asked: str | None = None) -> Device | None:
    """Return what kind of cards can be read here, of the asked kind or any; None when there is no program to ask."""
    return next((each for each in _QUERIES if asked in {None, each} and shutil.which(_QUERIES[each][0])), None)


def read_cards(asked: str | None = None, *, proc: Path = Path("/proc")) -> list[Card]:
    """Return every card of this node with its processes, by index; an empty list where there is no program to ask.

    Parameters
    ----------
    asked : str, optional
        `gaudi` or `cuda`; the one whose program is on PATH by default.
    proc : Path
        The kernel's folder of processes; another one in tests.

    Raises
    ------
    ServerError
        When the program fails, or prints what cannot be read.
    """
    device = visible_device(asked)
    if device is None:
        return []
    rows = _cells(_output(_QUERIES[device]))
    if device == "cuda":
        # Where processes may not be seen it prints a sentence in brackets.
        pairs = [cells for cells in _cells(_output(_CUDA_PROCESSES)) if len(cells) == 2 and cells[1].isdigit()]
        users = [(uuid, int(pid)) for uuid, pid in pairs]
    else:
        _, _, processes = _output(["hl-smi"]).partition("Compute Processes")
        printed = filter(None, map(_PROCESS_ROW.match, processes.splitlines()))
        users = [*((row["index"], int(row["pid"])) for row in printed), *_open_devices(proc)]
    return sorted((_card(device, cells, users) for cells in rows), key=lambda card: card.index)


def _output(argv: list[str]) -> str:
    done = run_command(argv, timeout_s=20.0)
    if done.exit_code != 0:
        raise ServerError(
            f"`{argv[0]}` failed with status {done.exit_code}, so the cards of this node are not known.",
            evidence=(done.stderr or done.stdout).strip()[-500:],
            next_step=f"Run `{' '.join(argv)}` by hand; a driver that does not answer needs the administrators.",
        )
    return done.stdout


def _cells(text: str) -> list[list[str]]:
    rows = csv.reader(text.splitlines(), skipinitialspace=True)
    return [[cell.strip() for cell in cells] for cells in rows if any(cell.strip() for cell in cells)]


def _card(device: Device, cells: list[str], users: list[tuple[str, int]]) -> Card:
    """Read one line of a query; cells may carry units, and CUDA's lines have no module."""
    try:
        *numbers, name, uuid = cells
        index, *rest = (int(float(number.split()[0])) for number in numbers)
        module, used, total = rest if device == "gaudi" else (index, *rest)
    except (IndexError, ValueError) as error:
        program = _QUERIES[device][0]
        raise ServerError(
            f"The output of `{program}` for a card cannot be read.",
            evidence=", ".join(cells)[:300],
            next_step=f"Run `{program}` by hand; if all is well there, tautools does not know its format.",
        ) from error
    holders = map(_card_process, sorted({pid for card, pid in users if card in {uuid, str(index)}}))
    return Card(device, index, module, used, total, name, uuid, tuple(filter(None, holders)))


def _card_process(pid: int) -> CardProcess | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        mine = process.uids().real == os.getuid()
        command = process.name()
        with contextlib.suppress(psutil.AccessDenied):
            command = " ".join(process.cmdline()) if mine else command
        return CardProcess(pid, process.create_time(), process.username(), mine, (command or "?")[:120])
    except psutil.Error:
        return None


def _open_devices(proc: Path) -> Iterator[tuple[str, int]]:
    """Yield card and pid of each Gaudi device file that is open; other users' open files cannot be read."""
    for folder in proc.iterdir() if proc.is_dir() else ():
        with contextlib.suppress(OSError):
            for descriptor in (folder / "fd").iterdir() if folder.name.isdigit() else ():
                with contextlib.suppress(OSError):  # closed in the meantime
                    if device := _DEVICE_FILE.match(str(descriptor.readlink())):
                        yield device["index"], int(folder.name)
