"""What a report is about: cells, each with its plan, its finished rows and its faults.

With a sweep named, its file says which cells there are and what each plans. Without one, the folders under `results/`
are what there is: a cell for each `num_trials-<n>.json` next to the ledger, or for all trials found; what was planned
is then not known, so every task with a row or a fault counts as planned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.params import load_sweep
from tautools.report.formatting import short_name
from tautools.run import read_events, read_ledger, results_of
from tautools.sweep.plan import plan_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tautools.records import CommitRow, Event, Setting
    from tautools.run import SettingFolder

_VIEW = re.compile(r"num_trials-(\d+)\.json")
_LOST_KINDS = {"fault", "user_error"}
"""Events of a conversation that ended without a row."""


@dataclass(frozen=True, slots=True)
class ReportCell:
    """One cell: a view of `num_trials` trials on the pool of its setting."""

    results: SettingFolder
    """The setting and its folder, which need not exist."""
    num_trials: int
    tasks: tuple[str, ...]
    """Planned task ids."""
    rows: tuple[CommitRow, ...]
    """Finished and planned, with a trial below `num_trials`."""
    faults: tuple[Event, ...]
    """`fault` and `user_error` events of the planned conversations: they ended without a row, some more than once."""
    plan: str
    """Where the plan comes from, in words."""

    @property
    def setting(self) -> Setting:
        """What makes its conversations comparable."""
        return self.results.setting

    @property
    def setting_id(self) -> str:
        """The setting's id as its writer computed it."""
        return self.results.id

    @property
    def folder(self) -> Path:
        """Where its results are."""
        return self.results.path

    @property
    def planned(self) -> int:
        """Number of conversations that the cell plans."""
        return len(self.tasks) * self.num_trials

    @property
    def pending(self) -> int:
        """Number of planned conversations that are not finished."""
        return self.planned - len(self.rows)

    @property
    def simulated(self) -> bool:
        """Whether a simulated model had a part in it."""
        return self.setting.simulated or any(row.simulated for row in self.rows)

    @property
    def marks(self) -> tuple[str, ...]:
        """What must stand below its model: simulated, imported from other programs' files."""
        imported = sum(row.imported is not None for row in self.rows)
        return (*(["SIMULATED"] if self.simulated else []), *([f"{imported} imported"] if imported else []))

    @property
    def short_path(self) -> str:
        """The folder as seen from the workspace: `results/<env>/<strategy>/<slug>`."""
        return "/".join(self.folder.parts[-4:])

    @property
    def model(self) -> str:
        """The agent model, without its owner, followed by the customer's persona where it has one."""
        name = short_name(self.setting.agent.model)
        return f"{name} +{self.setting.persona}" if self.setting.persona else name


def find_cells(workspace: Path, sweep: str | None = None) -> list[ReportCell]:
    """Return the cells of a sweep (name or path), or those that the results of the workspace make up.

    Raises
    ------
    ParamsError
        When there is no such sweep, or its file is wrong.
    BenchError, RunError
        When a cell of the sweep cannot be planned, or a folder of results cannot be read.
    """
    if not sweep:
        found = [_TrialPool(folder, read_ledger(folder.path).values()) for folder in results_of(workspace)]
        return [pool.cell(trials, None, "tasks with results") for pool in found for trials in pool.trials_shown()]
    pools: dict[str, _TrialPool] = {}
    cells = []
    for planned in plan_cells(load_sweep(sweep, workspace=workspace), workspace=workspace, to_read=True):
        cell = planned.prepared
        if cell.setting.id not in pools:
            pools[cell.setting.id] = _TrialPool(cell.results, cell.known.values())
        tasks = tuple(task.id for task in cell.tasks)
        cells.append(pools[cell.setting.id].cell(cell.run.num_trials, tasks, f"sweep {sweep}"))
    return cells


def widest_cells(cells: Sequence[ReportCell]) -> list[ReportCell]:
    """Return the cell with the most trials of each setting: those that are not nested in another one."""
    widest: dict[str, ReportCell] = {}
    for cell in cells:
        known = widest.get(cell.setting_id)
        if known is None or cell.num_trials > known.num_trials:
            widest[cell.setting_id] = cell
    return list(widest.values())


class _TrialPool:
    """A setting's results, read once for all cells that are views on them."""

    def __init__(self, folder: SettingFolder, rows: Iterable[CommitRow]) -> None:
        self._folder = folder
        self._rows = [row for row in rows if row.setting_id == folder.id]
        events = read_events(folder.path)
        self._faults = [
            (event.trial, event) for event in events if event.kind in _LOST_KINDS and event.trial is not None
        ]

    def cell(self, num_trials: int, tasks: tuple[str, ...] | None, plan: str) -> ReportCell:
        rows = [row for row in self._rows if row.trial < num_trials]
        faults = [event for trial, event in self._faults if trial < num_trials]
        if tasks is None:
            seen = {row.task_id for row in rows} | {event.task_id for event in faults}
            tasks = tuple(sorted(seen, key=_task_order))
        planned = set(tasks)
        return ReportCell(
            results=self._folder,
            num_trials=num_trials,
            tasks=tasks,
            rows=tuple(row for row in rows if row.task_id in planned),
            faults=tuple(event for event in faults if event.task_id in planned),
            plan=plan,
        )

    def trials_shown(self) -> list[int]:
        """Return the numbers of trials that the folder has a view for; without a view, the one of all trials."""
        views = [_VIEW.fullmatch(path.name) for path in self._folder.path.iterdir()]
        found = [row.trial for row in self._rows] + [trial for trial, _ in self._faults]
        return sorted(int(view[1]) for view in views if view) or ([max(found) + 1] if found else [])


def _task_order(task_id: str) -> tuple[int, str]:
    return (int(task_id), "") if task_id.isdecimal() else (10**9, task_id)
