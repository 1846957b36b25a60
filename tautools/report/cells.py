"""What a report is about: cells, each with its plan, its finished rows and its faults.

With a sweep named, its file says which cells there are and what each plans. Without one, the folders under `results/`
are what there is: a cell for each `num_trials-<n>.json` beside the ledger, or for all trials found; what was planned is
then not known, so every task that has left a trace counts as planned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.params import load_sweep
from tautools.run import SettingFolder, prepare_cell, read_events, read_ledger, results_of
from tautools.sweep import expand

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.records import CommitRow, Event, Setting


_VIEW = re.compile(r"num_trials-(\d+)\.json")
_LOST_KINDS = {"fault", "user_error"}
"""Events of a conversation that ended without a row."""


@dataclass(frozen=True, slots=True)
class ReportCell:
    """One cell: a view of `num_trials` trials on the pool of its setting."""

    setting: Setting
    setting_id: str
    folder: Path
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
    def planned(self) -> int:
        """Conversations that the cell plans."""
        return len(self.tasks) * self.num_trials

    @property
    def pending(self) -> int:
        """Planned conversations that are not finished."""
        return self.planned - len(self.rows)

    @property
    def simulated(self) -> bool:
        """Whether a simulated model had a part in it."""
        return self.setting.simulated or any(row.simulated for row in self.rows)

    @property
    def marks(self) -> tuple[str, ...]:
        """What must stand beside its model: simulated, imported from other programs' files."""
        imported = sum(row.imported is not None for row in self.rows)
        return (*(["SIMULATED"] if self.simulated else []), *([f"{imported} imported"] if imported else []))

    @property
    def place(self) -> str:
        """The folder as seen from the workspace: `results/<env>/<strategy>/<slug>`."""
        return "/".join(self.folder.parts[-4:])

    @property
    def model(self) -> str:
        """The agent model, without its owner, and behind it the customer's persona where it has one."""
        name = self.setting.agent.model.rstrip("/").rsplit("/", 1)[-1]
        return f"{name} +{self.setting.persona}" if self.setting.persona else name


def find_cells(workspace: Path, sweep: str | None = None) -> list[ReportCell]:
    """Return the cells of a sweep, or those that the results of the workspace make up.

    Raises
    ------
    ParamsError
        When there is no such sweep, or its file is wrong.
    BenchError, RunError
        When a cell of the sweep cannot be planned, or a folder of results cannot be read.
    """
    return _of_sweep(workspace, sweep) if sweep else _of_results(workspace)


def pools(cells: Sequence[ReportCell]) -> list[ReportCell]:
    """Return the cell with the most trials of each setting: those that are not nested in another one."""
    widest: dict[str, ReportCell] = {}
    for cell in cells:
        known = widest.get(cell.setting_id)
        if known is None or cell.num_trials > known.num_trials:
            widest[cell.setting_id] = cell
    return list(widest.values())


@dataclass(frozen=True, slots=True)
class _TrialPool:
    """A setting's folder, read once for all cells that are views on it."""

    folder: SettingFolder
    rows: tuple[CommitRow, ...]
    faults: tuple[Event, ...]

    @classmethod
    def read(cls, folder: SettingFolder) -> _TrialPool:
        rows = tuple(row for row in read_ledger(folder.path).values() if row.setting_id == folder.id)
        faults = (event for event in read_events(folder.path) if event.kind in _LOST_KINDS and event.trial is not None)
        return cls(folder, rows, tuple(faults))

    def cell(self, num_trials: int, tasks: tuple[str, ...] | None, plan: str) -> ReportCell:
        rows = [row for row in self.rows if row.trial < num_trials]
        faults = [event for event in self.faults if event.trial is not None and event.trial < num_trials]
        if tasks is None:
            seen = {row.task_id for row in rows} | {event.task_id for event in faults}
            tasks = tuple(sorted(seen, key=_task_order))
        planned = set(tasks)
        return ReportCell(
            setting=self.folder.setting,
            setting_id=self.folder.id,
            folder=self.folder.path,
            num_trials=num_trials,
            tasks=tasks,
            rows=tuple(row for row in rows if row.task_id in planned),
            faults=tuple(event for event in faults if event.task_id in planned),
            plan=plan,
        )

    def trials_shown(self) -> list[int]:
        names = (_VIEW.fullmatch(path.name) for path in self.folder.path.iterdir())
        views = sorted(int(name[1]) for name in names if name)
        if views:
            return views
        found = [row.trial for row in self.rows] + [event.trial or 0 for event in self.faults]
        return [max(found) + 1] if found else []


def _of_results(workspace: Path) -> list[ReportCell]:
    opened = [_TrialPool.read(folder) for folder in results_of(workspace)]
    return [pool.cell(trials, None, "tasks that left a trace") for pool in opened for trials in pool.trials_shown()]


def _of_sweep(workspace: Path, name: str) -> list[ReportCell]:
    opened = {folder.id: _TrialPool.read(folder) for folder in results_of(workspace)}
    cells = []
    for planned in expand(load_sweep(name, workspace=workspace)):
        cell = prepare_cell(planned.run, workspace=workspace, need_servers=False, to_read=True)
        pool = (
            opened.get(cell.setting.id) or opened.get(_other_id(cell.setting)) or _empty_pool(cell.setting, cell.folder)
        )
        tasks = tuple(task.id for task in cell.tasks)
        cells.append(pool.cell(planned.run.num_trials, tasks, f"sweep {name}"))
    return cells


def _other_id(setting: Setting) -> str:
    """Return the id of results whose servers are gone, so that nobody can say whether they were simulated."""
    return setting.model_copy(update={"simulated": not setting.simulated}).id


def _empty_pool(setting: Setting, folder: Path) -> _TrialPool:
    return _TrialPool(SettingFolder(folder, setting.id, setting, {}), (), ())


def _task_order(task_id: str) -> tuple[int, str]:
    return (int(task_id), "") if task_id.isdecimal() else (10**9, task_id)
