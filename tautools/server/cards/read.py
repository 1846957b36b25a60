"""What `hl-smi` and `nvidia-smi` print, read into rows. Pure text; cells may carry units, order is the query's."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass

from tautools.errors import ServerError

__all__ = [
    "HL_FIELDS",
    "NVIDIA_APP_FIELDS",
    "NVIDIA_FIELDS",
    "CardRow",
    "gaudi_pids",
    "gaudi_rows",
    "nvidia_pids",
    "nvidia_rows",
]

HL_FIELDS = ("index", "module_id", "memory.used", "memory.total", "name", "uuid")
NVIDIA_FIELDS = ("index", "memory.used", "memory.total", "name", "uuid")
NVIDIA_APP_FIELDS = ("gpu_uuid", "pid")

# The block of processes at the end of hl-smi's table: card, pid, type, name, memory. `N/A` rows do not fit.
_PROCESS = re.compile(r"^\|\s*(?P<index>\d+)\s+(?P<pid>\d+)\s+\S+\s+\S.*?\s+\d+\s*MiB\s*\|?\s*$")


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
    for cells in _cells(text):
        index, module, used, total = (_number("hl-smi", cells, place) for place in range(4))
        rows.append(CardRow(index, module, used, total, *_texts("hl-smi", cells, 4)))
    return rows


def nvidia_rows(text: str) -> list[CardRow]:
    """Read the answer to a query of `NVIDIA_FIELDS`; errors as `gaudi_rows`."""
    rows = []
    for cells in _cells(text):
        index, used, total = (_number("nvidia-smi", cells, place) for place in range(3))
        rows.append(CardRow(index, index, used, total, *_texts("nvidia-smi", cells, 3)))
    return rows


def nvidia_pids(text: str) -> dict[str, set[int]]:
    """Read the answer to a query of `NVIDIA_APP_FIELDS`: pids by the card's uuid."""
    found: dict[str, set[int]] = {}
    for cells in _cells(text):
        # Where processes may not be seen it prints a sentence in brackets.
        if len(cells) == len(NVIDIA_APP_FIELDS) and cells[1].isdigit():
            found.setdefault(cells[0], set()).add(int(cells[1]))
    return found


def gaudi_pids(table: str) -> dict[str, set[int]]:
    """Read the processes in the table of plain `hl-smi`: pids by the card's index; nothing of what does not fit."""
    found: dict[str, set[int]] = {}
    _, _, processes = table.partition("Compute Processes")
    for line in processes.splitlines():
        row = _PROCESS.match(line)
        if row:
            found.setdefault(row["index"], set()).add(int(row["pid"]))
    return found


def _cells(text: str) -> list[list[str]]:
    lines = csv.reader(io.StringIO(text), skipinitialspace=True)
    return [[cell.strip() for cell in cells] for cells in lines if any(cell.strip() for cell in cells)]


def _number(program: str, cells: list[str], place: int) -> int:
    try:
        return int(float(cells[place].split()[0]))
    except (IndexError, ValueError) as error:
        raise _unreadable(program, cells) from error


def _texts(program: str, cells: list[str], place: int) -> tuple[str, str]:
    if len(cells) != place + 2:
        raise _unreadable(program, cells)
    return cells[place], cells[place + 1]


def _unreadable(program: str, cells: list[str]) -> ServerError:
    return ServerError(
        f"What `{program}` says of a card cannot be read.",
        evidence=", ".join(cells)[:300],
        next_step=f"Run `{program}` by hand; if all is well there, its form is unknown to tautools.",
    )
