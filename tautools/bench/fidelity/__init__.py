"""Whether our loop is equal to tau-bench v1's own agents, users and envs: one script, two loops, all requests compared.

The original runs in a process of its own (`driver`, which knows nothing of ours); our side is the loop that every run
uses, behind a door that answers from the same script.
"""

from __future__ import annotations

from tautools.bench.fidelity.check import (
    APPROACHES,
    REASONS,
    SHIPPED_HASHES,
    Deviation,
    FidelityRow,
    HashFile,
    check_against_hashes,
    check_fidelity,
)
from tautools.bench.fidelity.scripts import VARIANTS
from tautools.bench.fidelity.traces import Original

__all__ = [
    "APPROACHES",
    "REASONS",
    "SHIPPED_HASHES",
    "VARIANTS",
    "Deviation",
    "FidelityRow",
    "HashFile",
    "Original",
    "check_against_hashes",
    "check_fidelity",
]
