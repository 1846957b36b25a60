"""The cards of this node: memory, module, and who holds them, read through `hl-smi` or `nvidia-smi`.

Everything is read anew each time it is asked: on Gaudi nodes the map from the index that `hl-smi` prints to the module
id that a process must be given differs from node to node. `hl-smi` has no query for processes, so three sources are
taken together: memory above the idle baseline, the table that it prints without arguments, and this user's own
processes that have `/dev/accel/accel<index>` open.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tautools.errors import ServerError
from tautools.server.cards.holders import Holder, device_pids, holder_of
from tautools.server.cards.read import (
    HL_FIELDS,
    NVIDIA_APP_FIELDS,
    NVIDIA_FIELDS,
    CardRow,
    gaudi_pids,
    gaudi_rows,
    nvidia_pids,
    nvidia_rows,
)
from tautools.shell import Shell

__all__ = ["Card", "CardDoor", "Device", "visible_to"]

Device = Literal["gaudi", "cuda"]

_PROGRAMS: dict[Device, str] = {"gaudi": "hl-smi", "cuda": "nvidia-smi"}

_FREE_MIB: dict[Device, int] = {"gaudi": 1536, "cuda": 1024}
"""A card that holds more is in use. An idle HL-225 shows 768 MiB of 98304; an idle CUDA card next to nothing."""

_VARIABLES: dict[Device, str] = {"gaudi": "HABANA_VISIBLE_MODULES", "cuda": "CUDA_VISIBLE_DEVICES"}

_ASK_S = 20.0


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
    holders: tuple[Holder, ...] = ()

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


class CardDoor:
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
                holders=_holders(pids.get(row.uuid, set()) | pids.get(str(row.index), set())),
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
        done = self._shell.run(argv, timeout_s=_ASK_S)
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


def _holders(pids: set[int]) -> tuple[Holder, ...]:
    found = (holder_of(pid) for pid in sorted(pids))
    return tuple(holder for holder in found if holder is not None)
