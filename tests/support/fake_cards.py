"""Stands in for `hl-smi` and `nvidia-smi`: programs on PATH that answer from a file which a test writes.

    cards = FakeCards(tmp_path / "bin", "gaudi", [768, 768, 40000])
    monkeypatch.setenv("PATH", cards.path)

Each card: `used` (MiB; a list gives one value per question, the last stays), `module`, `pids`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

TOTAL_MIB = {"gaudi": 98304, "cuda": 81559}
GAUDI001 = (2, 6, 3, 7, 0, 4, 1, 5)
"""Module ids by index, as users saw them on one node."""


class FakeCards:
    """A node's cards, and the program that tells of them."""

    def __init__(self, folder: Path, device: str, used: list[int | list[int]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.device = device
        self.cards: list[dict[str, Any]] = [
            {"used": amount, "module": GAUDI001[index % 8], "pids": []} for index, amount in enumerate(used)
        ]
        program = folder / ("hl-smi" if device == "gaudi" else "nvidia-smi")
        program.write_text(
            f"#!{sys.executable}\n{Path(__file__).read_text()}\nanswer({str(folder / 'cards.json')!r})\n"
        )
        program.chmod(0o755)
        self.save()

    @property
    def path(self) -> str:
        """PATH with the program first, and nothing else that reads cards."""
        return f"{self.folder}{os.pathsep}/usr/bin{os.pathsep}/bin"

    def save(self, fail: str = "") -> None:
        """Write the state; with `fail` the program says so and fails."""
        state = {"device": self.device, "cards": self.cards, "fail": fail}
        (self.folder / "cards.json").write_text(json.dumps(state))

    def hold(self, index: int, pid: int, used: int | list[int] = 50000) -> None:
        """Let a process hold a card."""
        self.cards[index] |= {"used": used, "pids": [*self.cards[index]["pids"], pid]}
        self.save()


def answer(state_file: str) -> None:
    """Be the program: print what its arguments ask for."""
    state = json.loads(Path(state_file).read_text())
    if state["fail"]:
        sys.exit(state["fail"])
    words, cards = sys.argv[1:], state["cards"]
    if not words and state["device"] == "gaudi":
        print(_table(cards))
        return
    if words and words[0].startswith("--query-compute-apps="):
        for index, card in enumerate(cards):
            for pid in card["pids"]:
                print(f"GPU-{index:08d}, {pid}")
        return
    fields = words[1] if words[:1] == ["-Q"] else words[0].removeprefix("--query-gpu=")
    for index, card in enumerate(cards):
        used = card["used"]
        if isinstance(used, list):
            card["used"], used = used[1:] or used, used[0]
        kind = state["device"]
        row = {
            "index": index,
            "module_id": card["module"],
            "memory.used": used,
            "memory.total": TOTAL_MIB[kind],
            "name": "HL-225" if kind == "gaudi" else "NVIDIA A100-SXM4-80GB",
            "uuid": f"GPU-{index:08d}",
        }
        print(", ".join(str(row[field]) for field in fields.split(",")))
    Path(state_file).write_text(json.dumps(state))


def _table(cards: list[dict[str, Any]]) -> str:
    rule = "+-----------------------------------------------------------------------------+"
    lines = [rule, "| Compute Processes:                                               AIP Memory |"]
    lines += ["|  AIP       PID   Type   Process name                             Usage      |", rule]
    for index, card in enumerate(cards):
        for pid in card["pids"]:
            lines.append(f"|   {index}     {pid}     C   python3 -m vllm                          1234MiB    |")
        if not card["pids"]:
            lines.append(f"|   {index}        N/A   N/A    N/A                                      N/A        |")
    return "\n".join([*lines, rule])
