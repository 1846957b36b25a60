"""Requests that met a shape which the warm-up had not compiled: how many, and which buckets would have held them.

Gaudi only: the plugin compiles a graph for each bucket of batch size, query length and context before it serves. A
shape outside of them is compiled when it first comes, and that request is slow; many of them spoil a latency figure.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["ColdShapes", "read_cold_shapes"]

_LINE = re.compile(r"Configuration: \((?P<shape>[^)]*)\).*was not warmed-up!")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class ColdShapes:
    """Shapes of one server that were not warmed up."""

    counts: Mapping[tuple[str, int, int, int], int] = field(default_factory=dict)
    """By phase, batch size, query length and context blocks: how often."""

    @property
    def total(self) -> int:
        """How many requests were slow by it."""
        return sum(self.counts.values())

    def proposed(self) -> dict[str, str]:
        """Return the variables of buckets that reach as far as what was seen, rounded up to a power of two."""
        found: dict[str, int] = {}
        for phase, batch, query, blocks in self.counts:
            asked = (
                {"BS": batch, "QUERY": query, "CTX": blocks} if phase == "PROMPT" else {"BS": batch, "BLOCK": blocks}
            )
            for part, size in asked.items():
                name = f"VLLM_{phase}_{part}_BUCKET_MAX"
                found[name] = max(found.get(name, 1), size)
        return {name: str(1 << (size - 1).bit_length()) for name, size in sorted(found.items())}


def read_cold_shapes(lines: Iterable[str]) -> ColdShapes:
    """Return the shapes that a server's log tells."""
    counts: Counter[tuple[str, int, int, int]] = Counter()
    for line in lines:
        if match := _LINE.search(line):
            numbers = [int(each) for each in _NUMBER.findall(match["shape"])][:3]
            phase = "DECODE" if "decode" in match["shape"].lower() else "PROMPT"
            batch, query, blocks = [*numbers, 1, 1, 1][:3]
            counts[phase, max(1, batch), max(1, query), max(1, blocks)] += 1
    return ColdShapes(counts)
