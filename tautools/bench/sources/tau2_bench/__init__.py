"""tau2 from a tau2-bench checkout, which runs in an environment and a process of its own.

`checkout` finds and checks the folder and its interpreter, `child` and `child_tables` run there, `process` speaks with
them through a `pipe`, `domain` and `world` are what the rest of the house sees.
"""

from __future__ import annotations

from tautools.bench.sources.tau2_bench.domain import Tau2Bench

__all__ = ["Tau2Bench"]
