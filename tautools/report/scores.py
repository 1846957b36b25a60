"""Scores of one cell: pass^k and pass@k with intervals under both conventions, and the null baseline beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.bench import null_baseline
from tautools.errors import TautoolsError
from tautools.records import Outcome
from tautools.stats import (
    TaskCounts,
    intervals,
    largest_k,
    mean_over_tasks,
    pass_at_k,
    pass_hat_k,
    spread,
    task_values,
    v1_counts,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tautools.report.cells import ReportCell
    from tautools.run import SettingFolder
    from tautools.stats import Interval, Spread


@dataclass(frozen=True, slots=True)
class NullBaseline:
    """What an agent that does nothing scores on the same tasks, or why that is unknown."""

    value: float | None
    """Mean over the tasks, in [0, 1]; the same for every k, as doing nothing gives the same every time."""
    tasks: int
    reason: str = ""
    """Why there is no value."""


class NullBaselines:
    """Computes null baselines, each env once for a report."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], Mapping[str, float] | str] = {}

    def of(self, results: SettingFolder, tasks: Sequence[str]) -> NullBaseline:
        """Return the baseline of `tasks` under a setting's bench, env and split, from where its results were loaded."""
        rewards = self._rewards(results)
        if isinstance(rewards, str):
            return NullBaseline(None, len(tasks), rewards)
        unknown = [task for task in tasks if task not in rewards]
        if unknown or not tasks:
            reason = f"{results.setting.env} has no task {unknown[0]}" if unknown else "no task is planned"
            return NullBaseline(None, len(tasks), reason)
        return NullBaseline(sum(rewards[task] for task in tasks) / len(tasks), len(tasks))

    def _rewards(self, results: SettingFolder) -> Mapping[str, float] | str:
        setting = results.setting
        key = (setting.bench, setting.source, setting.env, setting.split, str(results.provenance.get("benchmark")))
        if key not in self._known:
            try:
                self._known[key] = null_baseline(results.domain)
            except TautoolsError as error:  # the results can be read without the benchmark they came from
                self._known[key] = error.problem
        return self._known[key]


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure with its interval."""

    k: int
    value: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class CellScore:
    """What one cell achieved."""

    cell: ReportCell
    label: str
    """Short and unique among the cells of a report."""
    nested_in: int | None
    """Trials of the widest cell of the same setting; None for that cell itself."""
    tasks: Mapping[str, TaskCounts]
    """Scored trials and passes of each task that has any: pending ones and user_errors are left out."""
    pass_hat: tuple[Estimate, ...]
    """pass^1 to pass^k, k up to the smallest number of scored trials of a task."""
    pass_at: tuple[Estimate, ...]
    v1: tuple[float, ...]
    """pass^1 … as tau-bench v1 counts: faults and missing trials failed, k up to the trial numbers found."""
    v1_trials: int
    outcomes: Mapping[Outcome, int]
    infra_faults: int
    """How often a conversation was lost to the infrastructure."""
    user_errors: int
    """How often a conversation was repeated because the user model failed."""
    spread: Spread | None
    null_baseline: NullBaseline
    """Over the tasks that the score rests on; over the planned ones when none is scored."""

    @property
    def scored(self) -> int:
        """Conversations that carry a reward."""
        return sum(task.trials for task in self.tasks.values())


def score_cell(
    cell: ReportCell, *, label: str, nested_in: int | None, baseline: NullBaseline, seed: int = 0
) -> CellScore:
    """Compute the scores of one cell, in [0, 1], as means over tasks; without scored conversations there are none.

    Parameters
    ----------
    cell : ReportCell
        The cell, with the conversations that are finished.
    label : str
        Its name in the report.
    nested_in : int, optional
        Trials of the widest cell of the same setting; None when this is that one.
    baseline : NullBaseline
        What doing nothing scores on the same tasks.
    seed : int
        Of the bootstrap behind the intervals. Formulas and their sources are in `tautools.stats`.
    """
    tasks = task_counts(cell)
    counts = list(tasks.values())
    ks = range(1, largest_k(counts) + 1)
    v1_tasks, v1_trials = _v1(cell)
    return CellScore(
        cell=cell,
        label=label,
        nested_in=nested_in,
        tasks=tasks,
        pass_hat=_estimates(counts, ks, pass_hat_k, seed),
        pass_at=_estimates(counts, ks, pass_at_k, seed),
        v1=tuple(mean_over_tasks(v1_tasks, k) for k in range(1, v1_trials + 1)),
        v1_trials=v1_trials,
        outcomes=Counter(row.outcome for row in cell.rows),
        infra_faults=sum(event.kind == "fault" for event in cell.faults),
        user_errors=sum(event.kind == "user_error" for event in cell.faults),
        spread=spread(counts) if counts else None,
        null_baseline=baseline,
    )


def task_counts(cell: ReportCell) -> dict[str, TaskCounts]:
    """Return scored trials and passes of the tasks that a cell's score rests on: those with a scored conversation."""
    trials: Counter[str] = Counter()
    passed: Counter[str] = Counter()
    for row in cell.rows:
        if row.outcome.scored:
            trials[row.task_id] += 1
            passed[row.task_id] += row.outcome is Outcome.PASSED
    return {task: TaskCounts(trials[task], passed[task]) for task in cell.tasks if trials[task]}


def _estimates(
    counts: Sequence[TaskCounts], ks: range, estimator: Callable[[int, int, int], float], seed: int
) -> tuple[Estimate, ...]:
    columns = [task_values(counts, k, estimator) for k in ks]
    found = zip(ks, columns, intervals(columns, seed=seed), strict=True)
    return tuple(Estimate(k, sum(values) / len(values), limits) for k, values, limits in found)


def _v1(cell: ReportCell) -> tuple[list[TaskCounts], int]:
    """Count as tau-bench v1's file would: a row for every conversation that ended, in whatever way."""
    pairs = {(row.task_id, row.trial) for row in cell.rows}
    pairs |= {(event.task_id, event.trial) for event in cell.faults if event.trial is not None}
    passed: Counter[str] = Counter({task: 0 for task, _ in pairs})
    passed.update(row.task_id for row in cell.rows if row.outcome is Outcome.PASSED)
    trials = len({trial for _, trial in pairs})
    return v1_counts(list(passed.values()), trials), trials
