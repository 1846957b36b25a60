"""What can be said of a sweep whose benchmark is not at hand: everything but the number of tasks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tautools.bench import open_source
from tautools.errors import NotHereError
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
    why_not: NotHereError
    """What opening the benchmark ended in."""

    def __str__(self) -> str:
        each = ", ".join(f"{number} for each task of {env}" for env, number in self.trials.items())
        saved = self.trials_unshared - sum(self.trials.values())
        shared = f"; sharing trials saves {saved} for a task of each" if saved else ""
        lines = (
            f"Sweep {self.sweep.name}: {len(self.cells)} cells in {self.settings} settings",
            f"Conversations: {each}{shared}",
            f"Servers: {servers_text(self.servers)}",
            f"Not known: tasks, what is done, time. {self.why_not.problem}",
            f"Next: {self.why_not.next_step} Here that is `--set path=FOLDER`."
            if self.sweep.bench == "tau-bench"
            else f"Next: {self.why_not.next_step}",
        )
        return "\n".join(lines)

    def as_row(self) -> dict[str, Any]:
        """Return what is known, for programs; what is not known is null."""
        return {
            "sweep": self.sweep.name,
            "conversations": None,
            "trials_per_task": dict(self.trials),
            "trials_per_task_unshared": self.trials_unshared,
            "why_not": self.why_not.problem,
            "cells": [_cell_row(cell) for cell in self.cells],
        }


def outline_sweep(sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None) -> SweepOutline | None:
    """Say what is known of a sweep whose benchmark is not here; None when it is, and a plan says more.

    Raises
    ------
    ParamsError
        A server file or cell that does not exist.
    BenchError
        A source that does not exist, or a path that leads to none.
    """
    why_not = _why_not(sweep)
    return None if why_not is None else _outline(sweep, why_not, workspace=workspace, only=only)


def _why_not(sweep: SweepParams) -> NotHereError | None:
    try:
        open_source(sweep.bench, sweep.source, sweep.path, sweep.python)
    except NotHereError as error:
        return error
    return None


def _outline(sweep: SweepParams, why_not: NotHereError, *, workspace: Path, only: Sequence[int] | None) -> SweepOutline:
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
        why_not=why_not,
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
