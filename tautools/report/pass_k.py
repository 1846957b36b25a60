"""The report on scores: what `30_pass_k.ipynb` shows, one property a cell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.errors import TautoolsError
from tautools.records import Outcome
from tautools.report.base import NOTHING_NEXT, Report
from tautools.report.cells import find_cells, widest_cells
from tautools.report.figures import ReportFigure, draw_scores
from tautools.report.formatting import Entry, Summary, Table, count, percent, plural, share
from tautools.report.frames import calls_of, conversation_frame
from tautools.report.scores import (
    PASS_AT,
    PASS_HAT,
    CellScore,
    Estimate,
    ScoreMetric,
    find_null_baseline,
    judging_notes,
    score_cell,
    task_counts,
)
from tautools.run.answers import FlaggedAnswers, flagged_answers
from tautools.run.replays import count_missed, failures_of

if TYPE_CHECKING:
    import pandas as pd


_EMPTY = "n = 0: no conversation is finished."
_CAUSES = ("database", "information", "environment", "actions", "end")
_MISSED = "action missed most often"
_READ_PREFIXES = ("get_", "find_", "search_", "list_", "calculate", "check_", "think")
_CAUSES_NOTE = (
    "A conversation may have several causes: the database is not as the reference leaves it, information was not "
    "given, an assertion about the environment does not hold, a required action was not made, or a limit ended it. "
    "The last column names the action that was missed most often; actions that only read are left out. "
    "`tautools failures` explains each conversation, `tautools show` shows one in full."
)
_NESTED_NOTE = (
    "Cells that differ only in num_trials are views on one pool of trials: they are nested in the largest one, never "
    "independent of it."
)
_CONVENTIONS_NOTE = (
    "Upper figure: pending conversations and user_errors are left out, each task counts with its own number of trials, "
    "k goes up to the smallest. Below it the 95 % interval over tasks, then `v1`: the same by tau-bench v1's "
    "convention, in which every fault and every missing trial is a failure."
)
_BASELINE_NOTE = "do nothing: what an agent that does nothing scores on the scored tasks; it is the same for every k."
_OUTCOMES_NOTE = (
    "planned = the outcomes + pending. A user_error remains after its repeats and carries no reward. infra faults and "
    "user model repeats are attempts that ended without a result; their conversations are pending again."
)
_FLAGS_NOTE = (
    "Answered calls of the planned conversations, those of attempts that were lost too. A flag says what is likely and "
    "changes no score; only a customer that repeats the agent word for word ends its conversation, as a user_error."
)
_NOTHING_FLAGGED = "n = 0: no answer looks wrong, or no call was recorded."
_SPREAD_NOTE = (
    "ICC is the share of the variance that lies between tasks; a task with several trials flips when some of "
    "them passed and others did not. A dash: too few tasks or trials to tell."
)
_SOURCES_NOTE = (
    "Every figure of a cell is computed from the rows of ledger/*.jsonl in its folder with a trial below trials."
)


@dataclass(frozen=True)
class PassReport(Report):
    """Scores of cells, ready to be shown and saved."""

    scores: tuple[CellScore, ...]

    name = "pass_k"
    file_name = "pass_k.json"

    @cached_property
    def _widest(self) -> list[CellScore]:
        """Those that are not nested."""
        return [each for each in self.scores if each.nested_in is None]

    @property
    def summary(self) -> Summary:
        """Two sentences: which setting scores best, and what the figures rest on."""
        if not self._widest:
            return Summary(f"There are no results under {self.workspace}/results.", NOTHING_NEXT)
        coverage = _coverage_sentence(self._widest, len(self.scores))
        if self._flagged:
            score, worst = max(self._flagged, key=lambda each: each[1].count)
            coverage = f"{coverage[:-1]}; with {score.label}, {worst.claim} (see Answers that look wrong)."
        return Summary(_best_sentence(self._widest), coverage, self.simulated)

    @cached_property
    def awaiting_judge(self) -> list[str]:
        """What tasks assert in natural language and nobody judged, a sentence for each env."""
        return judging_notes([each.cell for each in self._widest])

    @property
    def pass_hat_k(self) -> Table:
        """pass^k for every cell, both conventions, with coverage and null baseline."""
        return _score_table(self.scores, PASS_HAT, _CONVENTIONS_NOTE, self.awaiting_judge)

    @property
    def pass_at_k(self) -> Table:
        """pass@k for every cell, with coverage and null baseline."""
        return _score_table(self.scores, PASS_AT, "Below each figure its 95 % interval over tasks.")

    @property
    def outcomes(self) -> Table:
        """How conversations ended, what is pending, what was lost."""
        always = {Outcome.PASSED, Outcome.FAILED}
        kinds = [kind for kind in Outcome if kind in always or any(each.outcomes.get(kind) for each in self.scores)]
        never = [kind.value for kind in Outcome if kind not in kinds and kind is not Outcome.INFRA]
        rows = [
            _head(each)
            | {"trials": count(each.cell.num_trials), "planned": count(each.cell.planned)}
            | {kind.value: count(each.outcomes.get(kind, 0)) for kind in kinds}
            | {
                "pending": count(each.cell.pending),
                "infra faults": count(each.infra_faults),
                "user model repeats": count(each.user_errors),
            }
            for each in self.scores
        ]
        notes = [_OUTCOMES_NOTE, *([f"Never occurred: {', '.join(never)}."] if never else [])]
        return Table("Outcomes, pending conversations, faults", rows, notes, _EMPTY)

    @cached_property
    def causes(self) -> Table:
        """Why conversations did not pass, one row for each cell that is not nested."""
        rows = [_head(each) | _cause_entries(each) for each in self._widest]
        return Table("Why conversations did not pass", rows, [_CAUSES_NOTE], _EMPTY)

    @cached_property
    def _flagged(self) -> list[tuple[CellScore, FlaggedAnswers]]:
        return [(each, found) for each in self._widest for found in flagged_answers(calls_of(each.cell))]

    @property
    def flagged_answers(self) -> Table:
        """Answers that look wrong, by cell, role and endpoint, with the first of each kind."""
        rows = [
            _head(each)
            | {
                "role": (found.role, found.endpoint),
                "answers": f"{count(found.count)} of {count(found.answers)}",
                "what": (found.what, found.cause),
                "the first": (found.place, found.first.flagged_text) if found.first else "–",
            }
            for each, found in self._flagged
        ]
        return Table("Answers that look wrong", rows, [_FLAGS_NOTE], _NOTHING_FLAGGED)

    @property
    def steadiness(self) -> Table:
        """Standard error over tasks, intraclass correlation, tasks that flip."""
        rows = [
            _head(each)
            | {
                "tasks": count(len(each.tasks)),
                "scored": count(each.scored),
                "standard error of pass^1": share(each.spread.clustered_se),
                "ICC": share(each.spread.icc),
                "tasks that flip": percent(each.spread.flips),
            }
            for each in self._widest
            if each.spread is not None
        ]
        return Table("Standard error, correlation and flips of pass^1", rows, [_SPREAD_NOTE], _EMPTY)

    @property
    def sources(self) -> Table:
        """Where each cell's figures come from."""
        settings = [each.cell.setting for each in self.scores]
        rows = [
            _head(each)
            | {
                "trials": count(each.cell.num_trials),
                "setting": each.cell.setting_id,
                "user model": setting.user.model,
                "benchmark": f"{setting.source} {setting.source_version}, {setting.protocol}, {setting.reward_basis}",
                "plan": each.cell.plan,
                "folder": each.cell.short_path,
            }
            for each, setting in zip(self.scores, settings, strict=True)
        ]
        return Table("Settings and folders", rows, [_SOURCES_NOTE], _EMPTY)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, in the order of the report."""
        return (
            self.pass_hat_k,
            self.pass_at_k,
            self.outcomes,
            self.flagged_answers,
            self.causes,
            self.steadiness,
            self.sources,
        )

    @cached_property
    def pass_hat_figure(self) -> ReportFigure:
        """pass^k against k, with its intervals and the null baseline."""
        return draw_scores(self._widest, PASS_HAT)

    @cached_property
    def pass_at_figure(self) -> ReportFigure:
        """pass@k against k, with its intervals and the null baseline."""
        return draw_scores(self._widest, PASS_AT)

    @property
    def figures(self) -> Sequence[ReportFigure]:
        """Both pictures."""
        return self.pass_hat_figure, self.pass_at_figure

    @property
    def conversations(self) -> pd.DataFrame:
        """Every finished conversation once, for questions of your own."""
        return conversation_frame([each.cell for each in self.scores])

    def details(self) -> dict[str, Any]:
        """Return every score with the rows that it was computed from, as JSON can hold it."""
        flagged = [{"setting_id": each.cell.setting_id, **found.as_dict()} for each, found in self._flagged]
        cells = [_cell_json(each) for each in self.scores]
        return {"awaiting_judge": self.awaiting_judge, "flagged_answers": flagged, "cells": cells}


def pass_report(*, workspace: str | Path = ".", sweep: str = "") -> PassReport:
    """Read the results of a workspace and compute their scores; no results make an empty report.

    Parameters
    ----------
    workspace : str or Path
        The folder that holds `results/`.
    sweep : str
        Name or path of a sweep file; empty for everything under `results/`.

    Returns
    -------
    PassReport
        Its summary, tables and figures as properties, `save` to write them. pass^k and pass@k are means over tasks, by
        the formulas and sources of `tautools.stats.pass_k`.

    Raises
    ------
    ParamsError, BenchError, RunError
        A sweep that does not exist or cannot be planned; results that cannot be read.
    """
    cells = find_cells(Path(workspace), sweep or None)
    widest = {cell.setting_id: cell.num_trials for cell in widest_cells(cells)}
    plain = {
        cell.setting_id: f"{cell.model} under {cell.setting.strategy.value} on {cell.setting.env}" for cell in cells
    }
    names = list(plain.values())
    # Settings that differ in anything else get their id behind the name.
    labels = {key: name if names.count(name) == 1 else f"{name} [{key[:8]}]" for key, name in plain.items()}
    rewards: dict[tuple[str, ...], Mapping[str, float] | str] = {}
    scores = (
        score_cell(
            cell,
            label=labels[cell.setting_id],
            nested_in=widest[cell.setting_id] if cell.num_trials < widest[cell.setting_id] else None,
            baseline=find_null_baseline(cell.results, list(task_counts(cell)) or cell.tasks, rewards),
        )
        for cell in cells
    )
    simulated = any(cell.simulated for cell in cells)
    return PassReport(Path(workspace), sweep, simulated, tuple(scores))


def _score_table(scores: Sequence[CellScore], metric: ScoreMetric, first_note: str, notes: Sequence[str] = ()) -> Table:
    """Return a metric for every cell: value, interval, and for pass^k v1's convention below it."""
    ks = range(1, max((score.cell.num_trials for score in scores), default=0) + 1)
    rows = []
    for score in scores:
        v1 = [f"v1 {share(value)}" for value in score.v1] if metric is PASS_HAT else []
        entries: dict[str, Entry] = {
            f"{metric.name}{k}": (*_estimate_entry(score, metric.of(score), k), *v1[k - 1 : k]) for k in ks
        }
        rows.append(_head(score) | _basis(score) | entries)
    needed = {
        "† fewer than ten tasks differ from the rest: Wilson's interval over tasks, no bootstrap.": any(
            each.interval.method == "wilson" for score in scores for each in metric.of(score)
        ),
        "– : some task of the cell has fewer scored trials than k.": any(
            len(metric.of(score)) < score.cell.num_trials for score in scores
        ),
        _NESTED_NOTE: any(score.nested_in for score in scores),
    }
    marks = [note for note, is_needed in needed.items() if is_needed]
    title = f"{metric.name}k: {metric.meaning}"
    return Table(title, rows, [first_note, _BASELINE_NOTE, *marks, *notes], _EMPTY)


def _head(score: CellScore) -> dict[str, Entry]:
    cell = score.cell
    return {"env": cell.setting.env, "strategy": cell.setting.strategy.value, "model": (cell.model, *cell.marks)}


def _basis(score: CellScore) -> dict[str, Entry]:
    cell, baseline = score.cell, score.null_baseline
    finished = f"{count(len(cell.rows))}/{count(cell.planned)}"
    return {
        "trials": (count(cell.num_trials), f"nested in {score.nested_in}" if score.nested_in else ""),
        "finished": (finished, percent(len(cell.rows) / cell.planned if cell.planned else None)),
        "tasks scored": f"{count(len(score.tasks))}/{count(len(cell.tasks))}",
        "do nothing": share(baseline.value) if baseline.value is not None else ("not known", baseline.reason),
    }


def _estimate_entry(score: CellScore, estimates: Sequence[Estimate], k: int) -> tuple[str, ...]:
    if k > len(estimates):
        return ("–" if k <= score.cell.num_trials else "",)
    value, interval = estimates[k - 1].value, estimates[k - 1].interval
    mark = " †" if interval.method == "wilson" else ""
    return share(value), f"{share(interval.low)} to {share(interval.high)}{mark}"


def _cause_entries(score: CellScore) -> dict[str, Entry]:
    """Return why the conversations of a cell did not pass, from replays on the benchmark's own tools."""
    cell = score.cell
    failed = sum(row.outcome.scored and row.reward != 1 for row in cell.rows)
    basis: dict[str, Entry] = {"scored": count(score.scored), "not passed": count(failed)}
    mine = {(row.task_id, row.trial) for row in cell.rows}
    found = failures_of(cell.results) if failed else ()
    try:
        failures = [each for each in found if (each.row.task_id, each.row.trial) in mine]
    except TautoolsError as error:  # the results can be read without the benchmark they came from
        return basis | dict.fromkeys(_CAUSES, "–") | {_MISSED: ("not known", error.problem)}
    by_cause = Counter(cause for each in failures for cause in each.causes)
    missed = {key: number for key, number in count_missed(failures).items() if not key[0].startswith(_READ_PREFIXES)}
    (name, status), number = max(missed.items(), key=lambda item: (item[1], item[0]), default=(("", ""), 0))
    action = (name, f"{status} in {number}") if number else ""
    return basis | {cause: count(by_cause[cause]) for cause in _CAUSES} | {_MISSED: action}


def _best_sentence(widest: Sequence[CellScore]) -> str:
    ranked = sorted((score for score in widest if score.pass_hat), key=lambda score: -score.pass_hat[0].value)
    if not ranked:
        return f"None of {plural(len(widest), 'setting')} has a scored conversation yet, so there is no score (n = 0)."
    top = ranked[0]
    value, limits = top.pass_hat[0].value, top.pass_hat[0].interval
    tied = sum(score.pass_hat[0].value == value for score in ranked) - 1
    rank = f"shares the highest pass^1 with {plural(tied, 'other')}," if tied else "has the highest pass^1,"
    several = len(widest) > 1
    start = f"Of {plural(len(widest), 'setting')}, {top.label} {rank}" if several else f"{top.label} has a pass^1 of"
    baseline = (
        "what doing nothing scores is not known"
        if top.null_baseline.value is None
        else f"doing nothing scores {share(top.null_baseline.value)} on these tasks"
    )
    return (
        f"{start} {share(value)} (95 % interval {share(limits.low)} to {share(limits.high)}; "
        f"{plural(len(top.tasks), 'task')}, {plural(top.scored, 'scored conversation')}); {baseline}."
    )


def _coverage_sentence(widest: Sequence[CellScore], cells: int) -> str:
    planned = sum(score.cell.planned for score in widest)
    done = sum(len(score.cell.rows) for score in widest)
    lost = sum(score.infra_faults for score in widest)
    pending = planned - done
    nested = f" ({plural(cells, 'cell')}, nested ones counted once)" if cells > len(widest) else ""
    rest = f"{count(pending)} {'is' if pending == 1 else 'are'} still pending" if pending else "nothing is pending"
    faults = (
        f"{plural(lost, 'attempt')} {'was' if lost == 1 else 'were'} lost to the infrastructure, "
        "none of them scored as a failure"
        if lost
        else "no conversation was lost to the infrastructure"
    )
    errors = sum(score.outcomes.get(Outcome.USER_ERROR, 0) for score in widest)
    if errors:
        faults += f"; {count(errors)} ended in a user_error and {'carries' if errors == 1 else 'carry'} no reward"
    return (
        f"{count(done)} of {plural(planned, 'planned conversation')} {'is' if done == 1 else 'are'} finished{nested}, "
        f"{percent(done / planned if planned else None)}, and {rest}; {faults}."
    )


def _cell_json(score: CellScore) -> dict[str, Any]:
    cell, setting = score.cell, score.cell.setting
    return {
        "env": setting.env,
        "strategy": setting.strategy.value,
        "agent_model": setting.agent.model,
        "user_model": setting.user.model,
        "persona": setting.persona,
        "finished": len(cell.rows),
        **{name: getattr(cell, name) for name in ("setting_id", "num_trials", "simulated", "planned", "pending")},
        **{name: getattr(score, name) for name in ("nested_in", "scored", "infra_faults")},
        "v1_trials": len(score.v1),
        "pass_hat_k": [asdict(each) for each in score.pass_hat],
        "pass_at_k": [asdict(each) for each in score.pass_at],
        "v1_pass_hat_k": list(score.v1),
        "null_baseline": asdict(score.null_baseline),
        "outcomes": {outcome.value: number for outcome, number in score.outcomes.items()},
        "user_errors_repeated": score.user_errors,
        "spread": None if score.spread is None else asdict(score.spread),
        "rows": {
            "files": sorted(f"{cell.folder}/ledger/{name}.jsonl" for name in {row.writer for row in cell.rows}),
            "where": f"setting_id = {cell.setting_id} and trial < {cell.num_trials}; of one key the first finished",
            "tasks": {task: counts._asdict() for task, counts in score.tasks.items()},
        },
    }
