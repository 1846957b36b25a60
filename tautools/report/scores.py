"""Scores of one cell under both conventions, its null baseline, and what of it waits for a judge."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tautools.bench import null_baseline
from tautools.errors import TautoolsError
from tautools.records import Outcome
from tautools.report.cells import ReportCell
from tautools.run import SettingFolder
from tautools.run.judging import folder_judging_note
from tautools.stats import (
    Interval,
    Spread,
    TaskCounts,
    intervals,
    largest_k,
    mean_over_tasks,
    pass_at_k,
    pass_hat_k,
    spread,
    task_values,
)


@dataclass(frozen=True, slots=True)
class NullBaseline:
    """What an agent that does nothing scores on the same tasks, or why that is unknown."""

    value: float | None
    """Mean over the tasks, in [0, 1]; the same for every k, as doing nothing gives the same every time."""
    tasks: int
    reason: str = ""
    """Why there is no value."""


def find_null_baseline(
    results: SettingFolder, tasks: Sequence[str], known: dict[tuple[str, ...], Mapping[str, float] | str]
) -> NullBaseline:
    """Return the baseline of `tasks` on the benchmark that results were made with; `known` keeps rewards by env."""
    setting = results.setting
    key = (setting.bench, setting.source, setting.env, setting.split, str(results.provenance.get("benchmark")))
    if key not in known:
        try:
            known[key] = null_baseline(results.domain)
        except TautoolsError as error:  # the results can be read without the benchmark they came from
            known[key] = error.problem
    rewards = known[key]
    if isinstance(rewards, str):
        return NullBaseline(None, len(tasks), rewards)
    unknown = [task for task in tasks if task not in rewards]
    if unknown or not tasks:
        reason = f"{setting.env} has no task {unknown[0]}" if unknown else "no task is planned"
        return NullBaseline(None, len(tasks), reason)
    return NullBaseline(sum(rewards[task] for task in tasks) / len(tasks), len(tasks))


@dataclass(frozen=True, slots=True)
class Estimate:
    """One figure with its interval."""

    k: int
    value: float
    interval: Interval


class ScoreMetric(NamedTuple):
    """One of the two figures that are told of every cell."""

    name: str
    meaning: str
    file_name: str
    of: "Callable[[CellScore], Sequence[Estimate]]"


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


PASS_HAT = ScoreMetric("pass^", "all of k trials pass", "pass_hat_k", lambda score: score.pass_hat)
PASS_AT = ScoreMetric("pass@", "at least one of k trials passes", "pass_at_k", lambda score: score.pass_at)


def score_cell(cell: ReportCell, *, label: str, nested_in: int | None, baseline: NullBaseline) -> CellScore:
    """Compute the scores of one cell, in [0, 1], as means over tasks; without scored conversations there are none."""
    tasks = task_counts(cell)
    counts = list(tasks.values())
    return CellScore(
        cell=cell,
        label=label,
        nested_in=nested_in,
        tasks=tasks,
        pass_hat=_estimates(counts, pass_hat_k),
        pass_at=_estimates(counts, pass_at_k),
        v1=_v1(cell),
        outcomes=Counter(row.outcome for row in cell.rows),
        infra_faults=sum(event.kind == "fault" for event in cell.faults),
        user_errors=sum(event.kind == "user_error" for event in cell.faults),
        spread=spread(counts) if counts else None,
        null_baseline=baseline,
    )


def task_counts(cell: ReportCell) -> dict[str, TaskCounts]:
    """Return scored trials and passes of the tasks that a cell's score rests on: those with a scored conversation."""
    trials = Counter(row.task_id for row in cell.rows if row.outcome.scored)
    passed = Counter(row.task_id for row in cell.rows if row.outcome is Outcome.PASSED)
    return {task: TaskCounts(trials[task], passed[task]) for task in cell.tasks if trials[task]}


def _estimates(counts: Sequence[TaskCounts], estimator: Callable[[int, int, int], float]) -> tuple[Estimate, ...]:
    ks = range(1, largest_k(counts) + 1)
    columns = [task_values(counts, k, estimator) for k in ks]
    found = zip(ks, columns, intervals(columns), strict=True)
    return tuple(Estimate(k, sum(values) / len(values), limits) for k, values, limits in found)


def _v1(cell: ReportCell) -> tuple[float, ...]:
    """Return pass^1 … of what tau-bench v1's file would hold: a row for every conversation that ended, in any way."""
    pairs = {(row.task_id, row.trial) for row in cell.rows}
    pairs |= {(event.task_id, event.trial) for event in cell.faults if event.trial is not None}
    trials = len({trial for _, trial in pairs})
    passed = Counter(row.task_id for row in cell.rows if row.outcome is Outcome.PASSED)
    counts = [TaskCounts(trials, passed[task]) for task in sorted({task for task, _ in pairs})]
    return tuple(mean_over_tasks(counts, k) for k in range(1, trials + 1))


def judging_notes(cells: Sequence[ReportCell]) -> list[str]:
    """Return one sentence for each env, and cells of it that differ, in which natural language was not judged."""
    notes = {
        f"{cell.setting.env}: {note}.": None
        for cell in cells
        if cell.results.exists and (note := folder_judging_note(cell.results, cell.tasks))
    }
    return list(notes)
