"""The summary and the tables of the report on scores, with the causes of conversations that did not pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.records import Outcome
from tautools.report.formatting import (
    Column,
    Entry,
    Summary,
    Table,
    count,
    number_columns,
    percent,
    plural,
    share,
    text_columns,
)
from tautools.run.failures import count_missed, failures_of
from tautools.run.judging import folder_judging_note

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.records import Setting
    from tautools.report.cells import ReportCell
    from tautools.report.scores import CellScore, Estimate

_HEAD = text_columns("env", "strategy", "model")
_BASIS = number_columns("trials", "finished", "tasks scored", "do nothing")
_EMPTY = "n = 0: no conversation is finished."
_CAUSES = ("database", "information", "environment", "actions", "end")
_CAUSES_NOTE = (
    "A conversation may have several causes: the database is not as the reference leaves it, information was not "
    "given, an assertion about the environment does not hold, a required action was not made, or a limit ended it. "
    "The last column names the action that was missed most often; actions that only read are left out. "
    "`tautools failures` explains each conversation, `tautools show` shows one in full."
)
_READ_PREFIXES = ("get_", "find_", "search_", "list_", "calculate", "check_", "think")
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
_SPREAD_NOTE = (
    "ICC is the share of the variance that lies between tasks; a task with several trials flips when some of "
    "them passed and others did not. A dash: too few tasks or trials to tell."
)
_SOURCES_NOTE = (
    "Every figure of a cell is computed from the rows of ledger/*.jsonl in its folder with a trial below trials."
)


@dataclass(frozen=True, slots=True)
class CellCauses:
    """Why conversations of one cell did not pass."""

    failed: int
    by_cause: Counter[str]
    action: tuple[str, str, int] | None = None
    """The reference action that was missed most often, how, and how often; None when none was missed."""
    unknown: str = ""
    """Why the causes are not known."""


def causes_of(cell: ReportCell) -> CellCauses:
    """Count why the conversations of a cell did not pass, from replays on the benchmark's own tools."""
    failed = sum(row.outcome.scored and row.reward != 1 for row in cell.rows)
    if not failed:
        return CellCauses(0, Counter())
    mine = {(row.task_id, row.trial) for row in cell.rows}
    try:
        failures = [each for each in failures_of(cell.results) if (each.row.task_id, each.row.trial) in mine]
    except TautoolsError as error:  # the results can be read without the benchmark they came from
        return CellCauses(failed, Counter(), unknown=error.problem)
    missed = {key: number for key, number in count_missed(failures).items() if not key[0].startswith(_READ_PREFIXES)}
    most = max(missed.items(), key=lambda item: (item[1], item[0]), default=None)
    by_cause = Counter(cause for each in failures for cause in each.causes)
    return CellCauses(failed, by_cause, None if most is None else (*most[0], most[1]))


def judging_notes(cells: Sequence[ReportCell]) -> list[str]:
    """Return one sentence for each env, and cells of it that differ, in which natural language was not judged."""
    notes = {
        f"{cell.setting.env}: {note}.": None
        for cell in cells
        if cell.results.exists and (note := folder_judging_note(cell.results, cell.tasks))
    }
    return list(notes)


def cause_table(scores: Sequence[CellScore], causes: Sequence[CellCauses]) -> Table:
    """Return why conversations did not pass, one row for each cell; nested cells are left out."""
    rows = tuple(
        (
            *_head_entries(score),
            count(score.scored),
            count(each.failed),
            *("–" if each.unknown else count(each.by_cause[cause]) for cause in _CAUSES),
            _missed_action(each),
        )
        for score, each in zip(scores, causes, strict=True)
        if score.nested_in is None
    )
    numbers = number_columns("scored", "not passed", *_CAUSES)
    columns = (*_HEAD, *numbers, *text_columns("action missed most often"))
    return Table("Why conversations did not pass", columns, rows, (_CAUSES_NOTE,), _EMPTY)


def _missed_action(causes: CellCauses) -> Entry:
    if causes.unknown:
        return "not known", causes.unknown
    if causes.action is None:
        return ""
    name, status, number = causes.action
    return name, f"{status} in {number}"


def pass_hat_table(scores: Sequence[CellScore], notes: Sequence[str] = ()) -> Table:
    """Return pass^k for every cell: value, interval, and v1's convention below it; `notes` stand below the table."""

    def entry(score: CellScore, k: int) -> Entry:
        v1 = f"v1 {share(score.v1[k - 1])}" if k <= len(score.v1) else ""
        return (*_estimate_entry(score, score.pass_hat, k), v1)

    marks = _marks(scores, lambda score: score.pass_hat)
    notes = (_CONVENTIONS_NOTE, _BASELINE_NOTE, *marks, *notes)
    return _score_table("pass^k: all of k trials pass", "pass^{}", scores, entry, notes)


def pass_at_table(scores: Sequence[CellScore]) -> Table:
    """Return pass@k for every cell: value and interval."""
    marks = _marks(scores, lambda score: score.pass_at)
    return _score_table(
        "pass@k: at least one of k trials passes",
        "pass@{}",
        scores,
        lambda score, k: _estimate_entry(score, score.pass_at, k),
        ("Below each figure its 95 % interval over tasks.", _BASELINE_NOTE, *marks),
    )


def _score_table(
    title: str,
    column: str,
    scores: Sequence[CellScore],
    entry: Callable[[CellScore, int], Entry],
    notes: Sequence[str],
) -> Table:
    ks = range(1, max((score.cell.num_trials for score in scores), default=0) + 1)
    rows = tuple((*_head_entries(score), *_basis_entries(score), *(entry(score, k) for k in ks)) for score in scores)
    return Table(title, (*_HEAD, *_BASIS, *number_columns(*map(column.format, ks))), rows, tuple(notes), _EMPTY)


def outcome_table(scores: Sequence[CellScore]) -> Table:
    """Return how conversations ended, what is pending and what was lost on the way."""
    always = {Outcome.PASSED, Outcome.FAILED}
    kinds = [kind for kind in Outcome if kind in always or any(score.outcomes.get(kind) for score in scores)]
    never = [kind.value for kind in Outcome if kind not in kinds and kind is not Outcome.INFRA]
    rows = tuple(
        (
            *_head_entries(score),
            count(score.cell.num_trials),
            count(score.cell.planned),
            *(count(score.outcomes.get(kind, 0)) for kind in kinds),
            count(score.cell.pending),
            count(score.infra_faults),
            count(score.user_errors),
        )
        for score in scores
    )
    names = (*(kind.value for kind in kinds), "pending", "infra faults", "user model repeats")
    columns = (*_HEAD, *number_columns("trials", "planned", *names))
    notes = (_OUTCOMES_NOTE, *([f"Never occurred: {', '.join(never)}."] if never else []))
    return Table("Outcomes, pending conversations, faults", columns, rows, notes, _EMPTY)


def spread_table(scores: Sequence[CellScore]) -> Table:
    """Return how much trials of one task agree; nested cells are left out."""
    rows = tuple(
        (
            *_head_entries(score),
            count(len(score.tasks)),
            count(score.scored),
            share(score.spread.clustered_se),
            share(score.spread.icc),
            percent(score.spread.flips),
        )
        for score in scores
        if score.spread is not None and score.nested_in is None
    )
    columns = (*_HEAD, *number_columns("tasks", "scored", "standard error of pass^1", "ICC", "tasks that flip"))
    return Table("Standard error, correlation and flips of pass^1", columns, rows, (_SPREAD_NOTE,), _EMPTY)


def source_table(scores: Sequence[CellScore]) -> Table:
    """Return where each cell's figures come from."""
    rows = tuple(
        (
            *_head_entries(score),
            count(score.cell.num_trials),
            score.cell.setting_id,
            score.cell.setting.user.model,
            _benchmark(score.cell.setting),
            score.cell.plan,
            score.cell.short_path,
        )
        for score in scores
    )
    columns = (*_HEAD, Column("trials"), *text_columns("setting", "user model", "benchmark", "plan", "folder"))
    return Table("Settings and folders", columns, rows, (_SOURCES_NOTE,), _EMPTY)


def _benchmark(setting: Setting) -> str:
    return f"{setting.source} {setting.source_version}, {setting.protocol}, {setting.reward_basis}"


def _head_entries(score: CellScore) -> tuple[Entry, ...]:
    cell = score.cell
    return cell.setting.env, cell.setting.strategy.value, (cell.model, *cell.marks)


def _basis_entries(score: CellScore) -> tuple[Entry, ...]:
    cell = score.cell
    finished = f"{count(len(cell.rows))}/{count(cell.planned)}"
    baseline = score.null_baseline
    return (
        (count(cell.num_trials), f"nested in {score.nested_in}" if score.nested_in else ""),
        (finished, percent(len(cell.rows) / cell.planned if cell.planned else None)),
        f"{count(len(score.tasks))}/{count(len(cell.tasks))}",
        share(baseline.value) if baseline.value is not None else ("not known", baseline.reason),
    )


def _estimate_entry(score: CellScore, estimates: Sequence[Estimate], k: int) -> tuple[str, ...]:
    if k > len(estimates):
        return ("–" if k <= score.cell.num_trials else "",)
    value, interval = estimates[k - 1].value, estimates[k - 1].interval
    mark = " †" if interval.method == "wilson" else ""
    return share(value), f"{share(interval.low)} to {share(interval.high)}{mark}"


def _marks(scores: Sequence[CellScore], of: Callable[[CellScore], Sequence[Estimate]]) -> list[str]:
    """Return the notes that something in the table needs."""
    notes = []
    if any(each.interval.method == "wilson" for score in scores for each in of(score)):
        notes.append("† fewer than ten tasks differ from the rest: Wilson's interval over tasks, no bootstrap.")
    if any(len(of(score)) < score.cell.num_trials for score in scores):
        notes.append("– : some task of the cell has fewer scored trials than k.")
    if any(score.nested_in for score in scores):
        notes.append(_NESTED_NOTE)
    return notes


def pass_summary(scores: Sequence[CellScore], workspace: str) -> Summary:
    """Return which setting scores best and how much of the plan that rests on."""
    widest = [score for score in scores if score.nested_in is None]
    if not widest:
        return Summary(
            f"There are no results under {workspace}/results.",
            "Next: run a cell (`tautools run --help` shows how) or a sweep (`tautools sweep run NAME`).",
        )
    simulated = any(score.cell.simulated for score in scores)
    return Summary(_best_sentence(widest), _coverage_sentence(widest, len(scores)), simulated)


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
    return (
        f"{count(done)} of {plural(planned, 'planned conversation')} {'is' if done == 1 else 'are'} finished{nested}, "
        f"{percent(done / planned if planned else None)}, and {rest}; {faults}."
    )
