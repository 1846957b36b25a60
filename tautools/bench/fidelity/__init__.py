"""Whether our loop is equal to tau-bench v1's own agents, users and envs: one script, two loops, all requests compared.

The original runs in a process of its own (`driver`, which knows nothing of ours); our side is the loop that every run
uses, behind a door that answers from the same script.
"""

from __future__ import annotations

from tautools.bench.fidelity.check import APPROACHES, Row, check, hold_to
from tautools.bench.fidelity.deviations import REASONS, Deviation
from tautools.bench.fidelity.original import Original
from tautools.bench.fidelity.scripts import VARIANTS
from tautools.bench.fidelity.truth import SHIPPED, Truth

__all__ = ["APPROACHES", "REASONS", "SHIPPED", "VARIANTS", "Deviation", "Original", "Row", "Truth", "check", "hold_to"]
