"""What a sweep would cost, before anything starts: cells, conversations, servers, time.

Cells that differ only in `num_trials` are views on one pool of trials, so a plan counts conversations by the ledger's
key, once each: 1 to 5 trials cost 5, not 15. Nothing is written and no server is asked.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tautools.bench import open_ref
from tautools.errors import NotInstalledError
from tautools.run import prepare_cell
from tautools.run.context import context_forecasts
from tautools.sweep.cells import agent_name, expand, select_cells
from tautools.sweep.servers import server_needs
from tautools.sweep.view import servers_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tautools.params.models import SweepParams
    from tautools.records import CommitRow
    from tautools.run import Cell, Key
    from tautools.run.context import ContextForecast
    from tautools.sweep.cells import SweepCell
    from tautools.sweep.servers import ServerNeed


KERNEL_S = 4.0
"""What starting papermill, a kernel and the benchmark costs for each cell [s]; measured on two cores."""

SERVER_S = {"simulate": 2.0, "vllm": 180.0}
"""What a server's start is taken to cost [s]; a vLLM of a few billion parameters with warm caches."""

REAL_CONVERSATION_S = 60.0
"""What a conversation with real models is taken to last when none was finished yet [s]."""

CALLS, TOKENS = 16, 60
"""Model calls of a conversation and output tokens of a call that a simulated model's time is reckoned with."""


@dataclass(frozen=True)
class PlannedCell:
    """One cell with what the ledger says about it."""

    cell: SweepCell
    prepared: Cell = field(repr=False)
    keys: frozenset[Key] = field(repr=False)
    """The ledger's keys of its conversations."""
    pending: int
    """Conversations that are not finished."""
    shared: int
    """Those that an earlier cell of the plan has too."""

    @property
    def planned(self) -> int:
        """How many conversations it has."""
        return len(self.keys)

    @property
    def model(self) -> str:
        """The agent's model, and behind it the customer's persona where it has one."""
        setting = self.prepared.setting
        return f"{setting.agent.model}{f' +{setting.persona}' if setting.persona else ''}"


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep has, owes and needs."""

    sweep: SweepParams = field(repr=False)
    cells: tuple[PlannedCell, ...]
    conversations: int
    """Distinct conversations: trials that cells share are counted once."""
    shared: int
    """How many more there would be if cells did not share trials."""
    pending: int
    """Distinct conversations that are not finished."""
    servers: tuple[ServerNeed, ...]
    """Servers that the pending cells need."""
    estimate_s: float
    """Wall time of what is pending [s]."""
    basis: str
    """What the estimate rests on."""
    context: tuple[ContextForecast, ...] = ()
    """Models that some tasks are likely to outgrow, one forecast for each env, strategy and model."""

    @property
    def done(self) -> int:
        """Distinct conversations that are finished."""
        return self.conversations - self.pending

    @property
    def pending_cells(self) -> tuple[PlannedCell, ...]:
        """Cells with something to do."""
        return tuple(cell for cell in self.cells if cell.pending)

    def __str__(self) -> str:
        from tautools.sweep.view import plan_text

        return plan_text(self)

    def _repr_html_(self) -> str:
        from tautools.sweep.view import plan_html

        return plan_html(self)


def plan_sweep(sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None) -> SweepPlan:
    """Say what a sweep would do.

    Parameters
    ----------
    sweep : SweepParams
        The sweep.
    workspace : Path
        Where its results are, or will be.
    only : sequence of int, optional
        Indices of the cells to plan; all when not given.

    Raises
    ------
    ParamsError, BenchError, RunError
        An env, task, server file or cell that does not exist, or a workspace that cannot be written.
    """
    cells = plan_cells(sweep, workspace=workspace, only=only)
    planned = {key for cell in cells for key in cell.keys}
    pending = {cell.prepared.key(pair) for cell in cells for pair in cell.prepared.pending}
    needs = server_needs([cell.cell for cell in cells if cell.pending], workspace=workspace)
    estimate_s, basis = _estimate(sweep, cells, needs)
    return SweepPlan(
        sweep=sweep,
        cells=tuple(cells),
        conversations=len(planned),
        shared=sum(cell.planned for cell in cells) - len(planned),
        pending=len(pending),
        servers=tuple(needs),
        estimate_s=estimate_s,
        basis=basis,
        context=tuple(_context_warnings(cells)),
    )


def plan_cells(
    sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None, to_read: bool = False
) -> list[PlannedCell]:
    """Return the cells of a sweep with what the ledger says about each; asks no server.

    Parameters
    ----------
    sweep : SweepParams
        The sweep.
    workspace : Path
        Where its results are, or will be.
    only : sequence of int, optional
        Indices of the cells to look at; all when not given.
    to_read : bool
        Whether results are only looked at; then the workspace need not be writable.

    Raises
    ------
    ParamsError, BenchError, RunError
        As `plan_sweep` does.
    """
    seen: set[Key] = set()
    cells = []
    for cell in select_cells(expand(sweep), only):
        prepared = prepare_cell(cell.run, workspace=workspace, need_servers=False, to_read=to_read)
        keys = frozenset(prepared.key(pair) for pair in prepared.planned)
        cells.append(PlannedCell(cell, prepared, keys, len(prepared.pending), len(keys & seen)))
        seen |= keys
    return cells


def by_setting(cells: Iterable[PlannedCell]) -> list[list[PlannedCell]]:
    """Group cells by the setting whose trials they share, fewest trials first within a group."""
    groups: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        groups.setdefault(cell.prepared.setting.id, []).append(cell)
    return [sorted(group, key=lambda cell: (cell.cell.run.num_trials, cell.cell.index)) for group in groups.values()]


def _context_warnings(cells: Sequence[PlannedCell]) -> Iterator[ContextForecast]:
    """Yield a forecast for each model that some task of a setting with work left is likely to outgrow."""
    for group in by_setting(cell for cell in cells if cell.pending):
        yield from (each for each in context_forecasts(group[-1].prepared) if each.exceeding)


def _estimate(sweep: SweepParams, cells: Sequence[PlannedCell], needs: Sequence[ServerNeed]) -> tuple[float, str]:
    """Return seconds and what they rest on: settings side by side, conversations side by side within one."""
    groups = by_setting(cell for cell in cells if cell.pending)
    if not groups:
        return 0.0, "nothing is pending"
    done = {key: row for cell in cells for key, row in cell.prepared.done.items()}
    known = _durations(done.values())
    engines = {need.name: need for need in needs}
    costs = []
    for group in groups:
        largest = group[-1]
        rounds = math.ceil(largest.pending / sweep.concurrency)
        costs.append(rounds * _conversation_s(largest, known, engines) + KERNEL_S * len(group))
    side_by_side = max(*costs, sum(costs) / min(sweep.parallel_settings, len(costs)))
    start_s = max((SERVER_S.get(need.engine, 0.0) for need in needs if not need.running), default=0.0)
    basis = f"median of {len(known)} finished conversations" if known else "assumed times; none is finished yet"
    return start_s + side_by_side, basis


def _conversation_s(cell: PlannedCell, known: Sequence[float], engines: dict[str, ServerNeed]) -> float:
    own = _durations(cell.prepared.known.values())
    if own or known:
        return statistics.median(own or known)
    need = engines.get(agent_name(cell.cell.run.agent))
    model = need.simulate if need is not None else None
    if model is None:
        return REAL_CONVERSATION_S
    call_ms = model.ttft_ms + model.prefill_ms_per_1k_tokens + TOKENS * model.itl_ms
    return 0.0 if model.speed == 0 else CALLS * call_ms / 1000 / model.speed


def _durations(rows: Iterable[CommitRow]) -> list[float]:
    """Return how long conversations took that were held here [s]; imported ones say nothing about these servers."""
    return [row.duration_s for row in rows if row.imported is None and row.duration_s is not None]


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
    why_not: NotInstalledError
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
            "cells": [_outline_row(cell) for cell in self.cells],
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
    why_not = _not_installed(sweep)
    return None if why_not is None else _outline(sweep, why_not, workspace=workspace, only=only)


def _not_installed(sweep: SweepParams) -> NotInstalledError | None:
    try:
        open_ref(sweep.ref)
    except NotInstalledError as error:
        return error
    return None


def _outline(
    sweep: SweepParams, why_not: NotInstalledError, *, workspace: Path, only: Sequence[int] | None
) -> SweepOutline:
    cells = select_cells(expand(sweep), only)
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


def _outline_row(cell: SweepCell) -> dict[str, Any]:
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
