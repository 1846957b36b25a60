"""What can be said of a sweep whose benchmark this version cannot load: everything but the number of tasks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tautools.bench import benchmarks
from tautools.sweep.cells import agent_name, expand, pick
from tautools.sweep.servers import server_needs
from tautools.sweep.view import servers_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.params.models import SweepParams
    from tautools.sweep.cells import SweepCell
    from tautools.sweep.servers import ServerNeed

__all__ = ["SweepOutline", "outline_sweep"]


@dataclass(frozen=True)
class SweepOutline:
    """A plan without its benchmark: cells, settings, trials and servers are counted; conversations are not."""

    sweep: SweepParams = field(repr=False)
    cells: tuple[SweepCell, ...]
    settings: int
    """Pools of trials; cells that differ only in `num_trials` share one."""
    trials: Mapping[str, int]
    """Env to the conversations that one task of it costs in all settings together, each counted once."""
    trials_unshared: int
    """What one task of each env would cost if cells did not share trials."""
    servers: tuple[ServerNeed, ...]

    def __str__(self) -> str:
        known = ", ".join(benchmarks())
        each = ", ".join(f"{number} for each task of {env}" for env, number in self.trials.items())
        saved = self.trials_unshared - sum(self.trials.values())
        shared = f"; sharing trials saves {saved} for a task of each" if saved else ""
        lines = (
            f"Sweep {self.sweep.name}: {len(self.cells)} cells in {self.settings} settings",
            f"Conversations: {each}{shared}",
            f"Servers: {servers_text(self.servers)}",
            f"Not known: tasks, what is done, time: {self.sweep.bench} ({self.sweep.source}) cannot be loaded.",
            f"This version plays {known}; `tautools sweep run` refuses this sweep.",
            "Next: plan the same cells on what it plays with --set bench=tau2 --set source=inspect-evals.",
        )
        return "\n".join(lines)

    def as_row(self) -> dict[str, Any]:
        """Return what is known, for programs; what is not known is null."""
        return {
            "sweep": self.sweep.name,
            "conversations": None,
            "trials_per_task": dict(self.trials),
            "trials_per_task_unshared": self.trials_unshared,
            "why_not": f"this version cannot load {self.sweep.bench} ({self.sweep.source})",
            "cells": [_cell_row(cell) for cell in self.cells],
        }


def outline_sweep(sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None) -> SweepOutline | None:
    """Say what is known of a sweep whose benchmark cannot be loaded; None when it can, and a plan says more.

    Raises
    ------
    ParamsError
        A server file or cell that does not exist.
    """
    if sweep.bench in benchmarks():
        return None
    cells = pick(expand(sweep), only)
    pools: dict[tuple[str, str], int] = {}
    for cell in cells:
        pool = (cell.run.env, cell.run.model_copy(update={"num_trials": 1}).model_dump_json())
        pools[pool] = max(pools.get(pool, 0), cell.run.num_trials)
    trials: Counter[str] = Counter()
    for (env, _), number in pools.items():
        trials[env] += number
    return SweepOutline(
        sweep=sweep,
        cells=tuple(cells),
        settings=len(pools),
        trials=trials,
        trials_unshared=sum(cell.run.num_trials for cell in cells),
        servers=tuple(server_needs(cells, workspace=workspace)),
    )


def _cell_row(cell: SweepCell) -> dict[str, Any]:
    run = cell.run
    return {
        "index": cell.index,
        "name": cell.name,
        "env": run.env,
        "strategy": run.strategy.value,
        "model": agent_name(run.agent),
        "num_trials": run.num_trials,
        "planned": None,
    }
