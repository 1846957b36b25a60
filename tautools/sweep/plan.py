"""What a sweep would cost, before anything starts: cells, conversations, servers, time.

Cells that differ only in `num_trials` are views on one pool of trials, so a plan counts conversations by the ledger's
key, once each: 1 to 5 trials cost 5, not 15. Nothing is written and no server is asked.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, Self, TypeVar

from tautools.bench import open_ref
from tautools.errors import NotInstalledError
from tautools.params.models import RunParams, SweepParams
from tautools.records import CommitRow
from tautools.run import Cell, Key, prepare_cell
from tautools.run.answers import STOPS_EARLY
from tautools.run.context import ContextForecast, context_forecasts
from tautools.run.plan import limits_note
from tautools.sweep.cells import SweepCell, agent_name, expand, select_cells
from tautools.sweep.servers import ServerNeed, server_needs, servers_text

SomeCell = TypeVar("SomeCell", bound=SweepCell)

KERNEL_S = 4.0
"""Time to start papermill, a kernel and the benchmark, for each cell [s]; measured on two cores."""

SERVER_S = {"simulate": 2.0, "vllm": 180.0}
"""Assumed time to start a server [s]; for vLLM, a model of a few billion parameters with warm caches."""

REAL_CONVERSATION_S = 60.0
"""Assumed time of a conversation with real models when none is finished yet [s]."""

CALLS, TOKENS = 14, 19
"""Agent calls of a long conversation, and output tokens of a call, as simulated models made them in 57 of tau2."""


CELL_COLUMNS = ("cell", "env", "strategy", "model", "trials")
"""The first columns of every table of cells."""

PLAN_COLUMNS = (*CELL_COLUMNS, "conversations", "shared", "pending")


@dataclass(frozen=True)
class PlannedCell(SweepCell):
    """One cell with what the ledger says about it."""

    prepared: Cell = field(repr=False)
    shared: int
    """Conversations that an earlier cell of the plan has too."""

    @property
    def planned(self) -> int:
        """Number of its conversations."""
        return len(self.prepared.keys)

    @property
    def missing(self) -> frozenset[Key]:
        """The ledger's keys of its conversations that are not finished."""
        return self.prepared.keys - self.prepared.known.keys()

    @property
    def pending(self) -> int:
        """Number of its conversations that are not finished."""
        return len(self.missing)

    @property
    def model(self) -> str:
        """The agent's model, followed by the customer's persona where it has one."""
        setting = self.prepared.setting
        return f"{setting.agent.model}{f' +{setting.persona}' if setting.persona else ''}"

    @property
    def columns(self) -> tuple[str, ...]:
        """What stands in the `PLAN_COLUMNS` of a table."""
        run = self.run
        counts = (run.num_trials, self.planned, self.shared, self.pending)
        return (str(self.index), run.env, run.strategy.value, self.model, *map(str, counts))


@dataclass(frozen=True)
class SweepPlan:
    """What of a sweep is done, what is pending, and what that needs."""

    sweep: SweepParams = field(repr=False)
    cells: tuple[PlannedCell, ...]
    servers: tuple[ServerNeed, ...]
    """Servers that the pending cells need."""
    estimate_s: float
    """Wall time of what is pending [s]."""
    basis: str
    """What the estimate rests on."""
    context: tuple[ContextForecast, ...] = ()
    """Models whose context some tasks are likely to exceed, one forecast for each env, strategy and model."""
    limits: tuple[str, ...] = ()
    """What ends answers and conversations that would go on for ever."""

    @property
    def conversations(self) -> int:
        """Distinct conversations: trials that cells share are counted once."""
        return sum(cell.planned - cell.shared for cell in self.cells)

    @property
    def shared(self) -> int:
        """How many more there would be if cells did not share trials."""
        return sum(cell.shared for cell in self.cells)

    @cached_property
    def pending(self) -> int:
        """Distinct conversations that are not finished."""
        return len({key for cell in self.cells for key in cell.missing})

    @property
    def done(self) -> int:
        """Distinct conversations that are finished."""
        return self.conversations - self.pending

    @property
    def pending_cells(self) -> tuple[PlannedCell, ...]:
        """Cells with something to do."""
        return tuple(cell for cell in self.cells if cell.pending)

    def refreshed(self) -> Self:
        """Return the plan with what is finished by now; its estimate stays what it was."""
        return replace(self, cells=tuple(refreshed(self.cells)))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        lines = "".join(f"<div>{escape(line)}</div>" for line in self._lines())
        table = table_html(PLAN_COLUMNS, (cell.columns for cell in self.cells))
        return f"<div>{lines}<details><summary>cells</summary>{table}</details></div>"

    def _lines(self) -> Iterator[str]:
        pending = len(self.pending_cells)
        shared = f"; trials that cells share are counted once, which saves {self.shared}" if self.shared else ""
        cells = len(self.cells)
        yield f"Sweep {self.sweep.name}: {cells} cells, {cells - pending} done, {pending} with work"
        yield f"Conversations: {self.conversations}, {self.done} done, {self.pending} pending{shared}"
        if self.pending:
            yield f"Servers: {servers_text(self.servers)}"
            yield f"Time: about {duration(self.estimate_s)} ({self.basis})"
            yield from self.limits
            yield from dict.fromkeys(map(str, self.context))
            if any(cell.run.stop_hopeless for cell in self.cells):
                yield STOPS_EARLY.replace("It", "A cell", 1)
        else:
            yield "Nothing to do: no server is needed and no model call will be made."


def plan_sweep(sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None) -> SweepPlan:
    """Return what a sweep would do.

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
    unfinished = [cell for cell in cells if cell.pending]
    needs = server_needs(unfinished, workspace=workspace)
    estimate_s, basis = _estimate(sweep, cells, needs)
    prepared = [cell.prepared for cell in unfinished]
    forecasts = (each for group in by_setting(unfinished) for each in context_forecasts(group[-1].prepared))
    return SweepPlan(
        sweep=sweep,
        cells=tuple(cells),
        servers=tuple(needs),
        estimate_s=estimate_s,
        basis=basis,
        context=tuple(each for each in forecasts if each.exceeding),
        limits=tuple(dict.fromkeys(limits_note(each.run, each.models.configs) for each in prepared)),
    )


def plan_cells(
    sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None, to_read: bool = False
) -> list[PlannedCell]:
    """Return the cells of a sweep with what the ledger says about each; asks no server.

    Cells of one pool are prepared once: its benchmark is opened and its ledger read for all of them together.

    Parameters
    ----------
    sweep : SweepParams
        The sweep.
    workspace : Path
        Where its results are, or will be.
    only : sequence of int, optional
        Indices of the cells; all when not given.
    to_read : bool
        Whether results are only looked at: the workspace need not be writable then.

    Raises
    ------
    ParamsError, BenchError, RunError
        As `plan_sweep` does.
    """
    chosen = select_cells(expand(sweep), only)
    return _with_pools(chosen, lambda cell: prepare_cell(cell.run, workspace=workspace, to_read=to_read))


def refreshed(cells: Iterable[PlannedCell]) -> list[PlannedCell]:
    """Return planned cells with what is finished by now; each pool's ledger is read once more, and nothing else.

    Where it was not known whether a server is simulated, the cell is prepared anew: its results tell by now.
    """

    def prepared_now(cell: PlannedCell) -> Cell:
        old = cell.prepared
        if len(old.models.simulated) == 1:
            return old.refreshed()
        return prepare_cell(cell.run, workspace=old.workspace, to_read=True)

    return _with_pools(cells, prepared_now)


def _with_pools(cells: Iterable[SomeCell], prepare: Callable[[SomeCell], Cell]) -> list[PlannedCell]:
    """Return cells with their pools of trials, each of which is prepared once."""
    pools: dict[str, Cell] = {}
    seen: set[Key] = set()
    planned = []
    for cell in cells:
        if cell.pool not in pools:
            pools[cell.pool] = prepare(cell)
        prepared = replace(pools[cell.pool], run=cell.run)
        planned.append(PlannedCell(cell.index, cell.run, cell.name, prepared, len(prepared.keys & seen)))
        seen |= prepared.keys
    return planned


def by_setting(cells: Iterable[PlannedCell]) -> list[list[PlannedCell]]:
    """Group cells by the setting whose trials they share, fewest trials first within a group."""
    groups: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        groups.setdefault(cell.prepared.setting.id, []).append(cell)
    return [sorted(group, key=lambda cell: (cell.run.num_trials, cell.index)) for group in groups.values()]


def _estimate(sweep: SweepParams, cells: Sequence[PlannedCell], needs: Sequence[ServerNeed]) -> tuple[float, str]:
    """Return seconds and what they rest on: settings run side by side, conversations side by side within one."""
    groups = by_setting(cell for cell in cells if cell.pending)
    if not groups:
        return 0.0, "nothing is pending"
    known = _durations({key: row for cell in cells for key, row in cell.prepared.done.items()}.values())
    by_name = {need.name: need for need in needs}
    costs = []
    for group in groups:
        rounds = math.ceil(group[-1].pending / sweep.concurrency)
        costs.append(rounds * _conversation_s(group[-1], known, by_name) + KERNEL_S * len(group))
    side_by_side = max(*costs, sum(costs) / min(sweep.parallel_settings, len(costs)))
    start_s = max((SERVER_S.get(need.engine, 0.0) for need in needs if not need.running), default=0.0)
    basis = f"median of {len(known)} finished conversations" if known else "assumed times; none is finished yet"
    return start_s + side_by_side, basis


def _conversation_s(cell: PlannedCell, known: Sequence[float], needs: Mapping[str, ServerNeed]) -> float:
    own = _durations(cell.prepared.known.values())
    if own or known:
        return statistics.median(own or known)
    need = needs.get(agent_name(cell.run.agent))
    model = need.simulate if need is not None else None
    if model is None:
        return REAL_CONVERSATION_S
    call_ms = model.ttft_ms + model.prefill_ms_per_1k_tokens + TOKENS * model.itl_ms
    return 0.0 if model.speed == 0 else CALLS * call_ms / 1000 / model.speed


def _durations(rows: Iterable[CommitRow]) -> list[float]:
    """Return the durations of conversations that ran here [s]; imported ones say nothing about these servers."""
    return [row.duration_s for row in rows if row.imported is None and row.duration_s is not None]


@dataclass(frozen=True)
class SweepOutline:
    """A plan without its benchmark: cells, settings, trials and servers are counted; conversations are not."""

    sweep: SweepParams = field(repr=False)
    cells: tuple[SweepCell, ...]
    servers: tuple[ServerNeed, ...]
    missing: NotInstalledError
    """Why the benchmark cannot be opened."""

    @cached_property
    def pools(self) -> Mapping[str, RunParams]:
        """Each pool of trials by its cell with the most of them; cells that differ only in `num_trials` share one."""
        return {cell.pool: cell.run for cell in sorted(self.cells, key=lambda cell: cell.run.num_trials)}

    @property
    def trials(self) -> Mapping[str, int]:
        """Env to the conversations that one task of it costs in all settings together, each counted once."""
        trials = dict.fromkeys((cell.run.env for cell in self.cells), 0)
        for run in self.pools.values():
            trials[run.env] += run.num_trials
        return trials

    @property
    def trials_unshared(self) -> int:
        """What one task of each env would cost if cells did not share trials."""
        return sum(cell.run.num_trials for cell in self.cells)

    def __str__(self) -> str:
        each = ", ".join(f"{number} for each task of {env}" for env, number in self.trials.items())
        saved = self.trials_unshared - sum(self.trials.values())
        shared = f"; sharing trials saves {saved} for a task of each" if saved else ""
        here = " Here that is `--set path=FOLDER`." if self.sweep.bench == "tau-bench" else ""
        return "\n".join(
            (
                f"Sweep {self.sweep.name}: {len(self.cells)} cells in {len(self.pools)} settings",
                f"Conversations: {each}{shared}",
                f"Servers: {servers_text(self.servers)}",
                f"Not known: tasks, what is done, time. {self.missing.problem}",
                f"Next: {self.missing.next_step}{here}",
            )
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what is known, for programs; what is not known is null."""
        return {
            "sweep": self.sweep.name,
            "conversations": None,
            "trials_per_task": dict(self.trials),
            "trials_per_task_unshared": self.trials_unshared,
            "missing": self.missing.problem,
            "cells": [{**cell.as_dict(), "model": agent_name(cell.run.agent), "planned": None} for cell in self.cells],
        }


def outline_sweep(sweep: SweepParams, *, workspace: Path, only: Sequence[int] | None = None) -> SweepOutline | None:
    """Return what is known of a sweep whose benchmark is not installed; None when it is, and a plan says more.

    Parameters and errors are those of `plan_sweep`.
    """
    try:
        open_ref(sweep.ref)
    except NotInstalledError as missing:
        cells = select_cells(expand(sweep), only)
        return SweepOutline(sweep, tuple(cells), tuple(server_needs(cells, workspace=workspace)), missing)
    return None


def duration(seconds: float) -> str:
    """Return a length of time as people say it, rounded.

    Examples
    --------
    >>> duration(0.2), duration(95), duration(4000), duration(200000)
    ('1 s', '95 s', '67 min', '56 h')
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"


def table_html(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a plain HTML table; everything in it is escaped."""
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
