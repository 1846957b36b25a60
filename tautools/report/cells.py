"""What a report is about: cells, each with its plan, its finished rows and its faults.

With a sweep named, its file says which cells there are and what each plans. Without one, the folders under `results/`
are what there is: a cell for each `num_trials-<n>.json` next to the ledger, or for all trials found; what was planned
is then not known, so every task with a row or a fault counts as planned.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tautools.params import load_sweep
from tautools.records import CommitRow, Event, Setting
from tautools.report.formatting import short_name
from tautools.run import SettingFolder, read_events, read_ledger, results_of
from tautools.sweep.plan import plan_cells

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
    """Return the cells of a sweep, or those that the results of a workspace make up.

    Parameters
    ----------
    workspace : Path
        The folder that holds `results/`.
    sweep : str, optional
        Name or path of a sweep file; everything under `results/` when not given.

    Returns
    -------
    list of ReportCell
        In the order of the sweep, or by folder and number of trials.

    Raises
    ------
    ParamsError
        When there is no such sweep, or its file is wrong.
    BenchError, RunError
        When a cell of the sweep cannot be planned, or a folder of results cannot be read.
    """
    if not sweep:
        found = [_read_results(folder, read_ledger(folder.path).values()) for folder in results_of(workspace)]
        return [_view(results, trials) for results in found for trials in _trials_shown(results)]
    read: dict[str, ReportCell] = {}
    cells = []
    for planned in plan_cells(load_sweep(sweep, workspace=workspace), workspace=workspace, to_read=True):
        cell = planned.prepared
        if cell.setting.id not in read:
            read[cell.setting.id] = _read_results(cell.results, cell.known.values())
        tasks = tuple(task.id for task in cell.tasks)
        cells.append(_view(read[cell.setting.id], cell.run.num_trials, tasks, f"sweep {sweep}"))
    return cells


def widest_cells(cells: Sequence[ReportCell]) -> list[ReportCell]:
    """Return the cell with the most trials of each setting: those that are not nested in another one."""
    widest: dict[str, ReportCell] = {}
    for cell in cells:
        known = widest.get(cell.setting_id)
        if known is None or cell.num_trials > known.num_trials:
            widest[cell.setting_id] = cell
    return list(widest.values())


def _read_results(folder: SettingFolder, known: Iterable[CommitRow]) -> ReportCell:
    """Return a setting's results as one cell of all trials found, read once for all cells that are views on it."""
    rows = tuple(row for row in known if row.setting_id == folder.id)
    lost = (event for event in read_events(folder.path) if event.kind in _LOST_KINDS)
    faults = tuple(event for event in lost if event.trial is not None)
    trials = [*(row.trial for row in rows), *(event.trial or 0 for event in faults)]
    return ReportCell(folder, max(trials, default=-1) + 1, (), rows, faults, "tasks with results")


def _trials_shown(results: ReportCell) -> list[int]:
    """Return the numbers of trials that the folder has a view for; without a view, the one of all trials."""
    views = [_VIEW.fullmatch(path.name) for path in results.folder.iterdir()]
    return sorted(int(view[1]) for view in views if view) or ([results.num_trials] if results.num_trials else [])


def _view(results: ReportCell, num_trials: int, tasks: tuple[str, ...] | None = None, plan: str = "") -> ReportCell:
    """Return the cell of so many trials, of the tasks that were seen in them when no `tasks` are planned."""
    rows = [row for row in results.rows if row.trial < num_trials]
    faults = [event for event in results.faults if (event.trial or 0) < num_trials]
    if tasks is None:
        seen = {row.task_id for row in rows} | {event.task_id for event in faults}
        tasks = tuple(sorted(seen, key=_task_order))
    planned = set(tasks)
    return replace(
        results,
        num_trials=num_trials,
        tasks=tasks,
        rows=tuple(row for row in rows if row.task_id in planned),
        faults=tuple(event for event in faults if event.task_id in planned),
        plan=plan or results.plan,
    )


def _task_order(task_id: str) -> tuple[int, str]:
    return (int(task_id), "") if task_id.isdecimal() else (10**9, task_id)
