"""What Slurm says of nodes and their cards, read from columns of its own. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["NODE_FORMAT", "Node", "parse_nodes"]

_WIDTHS = {"NodeList": 64, "StateLong": 24, "Gres": 128, "GresUsed": 128}
NODE_FORMAT = ",".join(f"{name}:{width}" for name, width in _WIDTHS.items())


@dataclass(frozen=True, slots=True)
class Node:
    """One node."""

    name: str
    state: str
    cards: int = 0
    cards_used: int = 0


def parse_nodes(text: str) -> list[Node]:
    """Return the nodes of `sinfo --Node --noheader --Format=NODE_FORMAT`, each once, in their order."""
    found: dict[str, Node] = {}
    for line in text.splitlines():
        fields, at = [], 0
        for width in _WIDTHS.values():
            fields.append(line[at : at + width].strip())
            at += width
        name, state, there, used = fields
        if name:
            found[name] = Node(name, state.rstrip("*~#!%$@^-"), _cards(there), _cards(used))
    return list(found.values())


def _cards(text: str) -> int:
    """Return how many cards `gpu:hl225:8(S:0)` or `gpu:hl225:2(IDX:0-1)` tells."""
    counts = re.findall(r"gpu(?::[\w.-]+?)?:(\d+)(?=\(|,|$)", text)
    return sum(int(each) for each in counts)
