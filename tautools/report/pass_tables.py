"""The summary and the tables of the report on scores, with the causes of conversations that did not pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.records import Outcome
from tautools.report.formatting import Column, Summary, Table, count, percent, plural, share
from tautools.run import read_setting
from tautools.run.failures import count_missed, failures_of
from tautools.run.judging import folder_judging_note

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.records import Setting
    from tautools.report.cells import ReportCell
    from tautools.report.scores import CellScore, Estimate


def unjudged_assertions(cells: Sequence[ReportCell]) -> list[str]:
    """Return one sentence for each env, and cells of it that differ, in which something was not judged."""
    found: list[str] = []
    for cell in cells:
        folder = read_setting(cell.folder)
        said = folder_judging_note(folder, cell.tasks) if folder is not None else ""
        if said and f"{cell.setting.env}: {said}." not in found:
            found.append(f"{cell.setting.env}: {said}.")
    return found


_CAUSES = ("database", "information", "environment", "actions", "end")
_CAUSES_NOTE = (
    "A conversation may be lost by several: the database is not as the reference leaves it, information was not said, "
    "an assertion about the environment does not hold, a required action was not made, or a limit ended it. The last "
    "column names the action that most did not make; reading actions are left out. `tautools failures` tells each "
    "conversation, `tautools show` one in full."
)
_READ_PREFIXES = ("get_", "find_", "search_", "list_", "calculate", "check_", "think")
_NO_CONVERSATION = "n = 0: no conversation is finished."


@dataclass(frozen=True, slots=True)
class CellCauses:
    """Why conversations of one cell did not pass."""

    failed: int
    by_cause: Counter[str]
    action: tuple[str, str, int] | None = None
    """The reference action that most did not make, how, and how many; None when they made all."""
    why_not: str = ""
    """Why it cannot be told."""


def causes_of(cell: ReportCell) -> CellCauses:
    """Count why the conversations of a cell did not pass."""
    failed = sum(row.outcome.scored and row.reward != 1 for row in cell.rows)
    folder = read_setting(cell.folder)
    if folder is None or not failed:
        return CellCauses(failed, Counter())
    mine = {(row.task_id, row.trial) for row in cell.rows}
    try:
        found = [each for each in failures_of(folder) if (each.row.task_id, each.row.trial) in mine]
    except TautoolsError as error:  # the results can be read without the benchmark they came from
        return CellCauses(failed, Counter(), why_not=error.problem)
    missed = {key: number for key, number in count_missed(found).items() if not key[0].startswith(_READ_PREFIXES)}
    most = max(missed.items(), key=lambda item: (item[1], item[0]), default=None)
    return CellCauses(
        failed,
        Counter(cause for each in found for cause in each.causes),
        None if most is None else (*most[0], most[1]),
    )


def cause_table(scores: Sequence[CellScore], causes: Sequence[CellCauses]) -> Table:
    """Return why conversations did not pass, a row a cell; nested cells are left out."""
    rows = tuple(
        (
            score.cell.setting.env,
            score.cell.setting.strategy.value,
            (score.cell.model, *score.cell.marks),
            count(score.scored),
            count(each.failed),
            *(("–",) if each.why_not else (count(each.by_cause[cause]),) for cause in _CAUSES),
            _missed_action(each),
        )
        for score, each in zip(scores, causes, strict=True)
        if score.nested_in is None
    )
    return Table(
        "What was lost by what",
        (
            *(Column(name, number=False) for name in ("env", "strategy", "model")),
            *(Column(name) for name in ("scored", "not passed", *_CAUSES)),
            Column("action most often not made", number=False),
        ),
        rows,
        (_CAUSES_NOTE,),
        _NO_CONVERSATION,
    )


def _missed_action(each: CellCauses) -> tuple[str, ...]:
    if each.why_not:
        return "not known", each.why_not
    if each.action is None:
        return ("",)
    name, fate, number = each.action
    return name, f"{fate} in {number}"


_NESTED_NOTE = (
    "Cells that differ only in num_trials are views on one pool of trials: they are nested in the largest one, never "
    "independent of it."
)
_CONVENTIONS_NOTE = (
    "Upper figure: what is pending and user_errors left out, each task with its own number of trials, k up to the "
    "smallest. Below it the 95 % interval over tasks, then `v1`: the same by tau-bench v1's convention, every fault "
    "and every missing trial a failure."
)
_BASELINE_NOTE = "do nothing: what an agent that does nothing scores on the tasks scored, the same for every k."
_OUTCOMES_NOTE = (
    "planned = the outcomes + pending. A user_error stands here after its repeats and carries no reward. infra faults "
    "and user model repeats are attempts that ended without a result and are pending again."
)
_ALWAYS = {Outcome.PASSED, Outcome.FAILED}
_SPREAD_NOTE = (
    "ICC is the share of the variance that lies between tasks; a task with several trials flips when some of "
    "them passed and others did not. A dash: too few tasks or trials to tell."
)
_SOURCES_NOTE = (
    "Every figure of a cell is computed from the rows of ledger/*.jsonl in its folder with a trial below trials."
)
_HEAD_COLUMNS = (Column("env", number=False), Column("strategy", number=False), Column("model", number=False))
_NOTHING_FINISHED = "n = 0: no conversation is finished."


def pass_hat_table(scores: Sequence[CellScore], notes: Sequence[str] = ()) -> Table:
    """Return pass^k for every cell: value, interval, and v1's convention below it; `notes` stand below the table."""
    most = max((score.cell.num_trials for score in scores), default=0)
    rows = tuple(
        (*_head_entries(score), *_basis_entries(score), *(_pass_hat_entry(score, k) for k in range(1, most + 1)))
        for score in scores
    )
    return Table(
        "pass^k: all of k trials pass",
        (*_HEAD_COLUMNS, *_BASIS_COLUMNS, *(Column(f"pass^{k}") for k in range(1, most + 1))),
        rows,
        (
            _CONVENTIONS_NOTE,
            _BASELINE_NOTE,
            *_notes_needed(scores, lambda score: score.pass_hat),
            *notes,
        ),
        _NOTHING_FINISHED,
    )


def pass_at_table(scores: Sequence[CellScore]) -> Table:
    """Return pass@k for every cell: value and interval."""
    most = max((score.cell.num_trials for score in scores), default=0)
    rows = tuple(
        (*_head_entries(score), *_basis_entries(score), *(_entry(score, score.pass_at, k) for k in range(1, most + 1)))
        for score in scores
    )
    return Table(
        "pass@k: at least one of k trials passes",
        (*_HEAD_COLUMNS, *_BASIS_COLUMNS, *(Column(f"pass@{k}") for k in range(1, most + 1))),
        rows,
        (
            "Below each figure its 95 % interval over tasks.",
            _BASELINE_NOTE,
            *_notes_needed(scores, lambda score: score.pass_at),
        ),
        _NOTHING_FINISHED,
    )


def outcome_table(scores: Sequence[CellScore]) -> Table:
    """Return how conversations ended, what is pending and what was lost on the way."""
    kinds = [kind for kind in Outcome if kind in _ALWAYS or any(score.outcomes.get(kind) for score in scores)]
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
    names = [kind.value for kind in kinds]
    return Table(
        "Outcomes, what is pending, what was lost",
        (
            *_HEAD_COLUMNS,
            *(Column(name) for name in ("trials", "planned", *names, "pending", "infra faults", "user model repeats")),
        ),
        rows,
        (_OUTCOMES_NOTE, *([f"Never occurred: {', '.join(never)}."] if never else [])),
        _NOTHING_FINISHED,
    )


def spread_table(scores: Sequence[CellScore]) -> Table:
    """Return how trials of one task hang together; nested cells are left out."""
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
    names = ("tasks", "scored", "standard error of pass^1", "ICC", "tasks that flip")
    return Table(
        "Standard error, correlation and flips of pass^1",
        (*_HEAD_COLUMNS, *(Column(name) for name in names)),
        rows,
        (_SPREAD_NOTE,),
        _NOTHING_FINISHED,
    )


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
            score.cell.place,
        )
        for score in scores
    )
    names = ("setting", "user model", "benchmark", "plan", "folder")
    return Table(
        "Settings and folders",
        (*_HEAD_COLUMNS, Column("trials"), *(Column(name, number=False) for name in names)),
        rows,
        (_SOURCES_NOTE,),
        _NOTHING_FINISHED,
    )


_BASIS_COLUMNS = (Column("trials"), Column("finished"), Column("tasks scored"), Column("do nothing"))


def _head_entries(score: CellScore) -> tuple[str | tuple[str, ...], ...]:
    cell = score.cell
    return cell.setting.env, cell.setting.strategy.value, (cell.model, *cell.marks)


def _benchmark(setting: Setting) -> str:
    return f"{setting.source} {setting.source_version}, {setting.protocol}, {setting.reward_basis}"


def _basis_entries(score: CellScore) -> tuple[str | tuple[str, ...], ...]:
    cell = score.cell
    done = f"{count(len(cell.rows))}/{count(cell.planned)}"
    floor = score.floor
    return (
        (count(cell.num_trials), f"nested in {score.nested_in}" if score.nested_in else ""),
        (done, percent(len(cell.rows) / cell.planned if cell.planned else None)),
        f"{count(len(score.tasks))}/{count(len(cell.tasks))}",
        share(floor.value) if floor.value is not None else ("not known", floor.why_not),
    )


def _pass_hat_entry(score: CellScore, k: int) -> tuple[str, ...]:
    v1 = f"v1 {share(score.v1[k - 1])}" if k <= len(score.v1) else ""
    return (*_entry(score, score.pass_hat, k), v1)


def _entry(score: CellScore, estimates: Sequence[Estimate], k: int) -> tuple[str, ...]:
    if k > score.cell.num_trials:
        return ("",)
    if k > len(estimates):
        return ("–",)
    found = estimates[k - 1]
    mark = " †" if found.interval.method == "wilson" else ""
    return share(found.value), f"{share(found.interval.low)} to {share(found.interval.high)}{mark}"


def _notes_needed(scores: Sequence[CellScore], of: Callable[[CellScore], Sequence[Estimate]]) -> tuple[str, ...]:
    """Return the notes that something in the table needs."""
    notes = []
    if any(found.interval.method == "wilson" for score in scores for found in of(score)):
        notes.append("† fewer than ten tasks stand apart from the rest: Wilson's interval over tasks, no bootstrap.")
    if any(len(of(score)) < score.cell.num_trials for score in scores):
        notes.append("– : some task of the cell has fewer scored trials than k.")
    if any(score.nested_in for score in scores):
        notes.append(_NESTED_NOTE)
    return tuple(notes)


def pass_summary(scores: Sequence[CellScore], workspace: str) -> Summary:
    """Say which setting scores best and how much of the plan that rests on."""
    whole = [score for score in scores if score.nested_in is None]
    simulated = any(score.cell.simulated for score in scores)
    if not whole:
        return Summary(
            f"There are no results under {workspace}/results.",
            "Next: run a cell (`tautools run --help` shows how) or a sweep (`tautools sweep run NAME`).",
        )
    return Summary(_best_sentence(whole), _coverage_sentence(whole, len(scores)), simulated)


def _best_sentence(whole: Sequence[CellScore]) -> str:
    ranked = sorted((score for score in whole if score.pass_hat), key=lambda score: -score.pass_hat[0].value)
    if not ranked:
        return f"None of {plural(len(whole), 'setting')} has a scored conversation yet, so there is no score (n = 0)."
    top = ranked[0]
    figure, limits = top.pass_hat[0], top.pass_hat[0].interval
    basis = f"{plural(len(top.tasks), 'task')}, {plural(top.scored, 'scored conversation')}"
    floor = (
        "the do-nothing floor is not known"
        if top.floor.value is None
        else f"doing nothing scores {share(top.floor.value)} on these tasks"
    )
    return (
        f"{_rank_words(ranked, len(whole))} {share(figure.value)} (95 % interval {share(limits.low)} to "
        f"{share(limits.high)}; {basis}); {floor}."
    )


def _rank_words(ranked: Sequence[CellScore], settings: int) -> str:
    top = ranked[0]
    if settings == 1:
        return f"{top.label} has a pass^1 of"
    tied = sum(score.pass_hat[0].value == top.pass_hat[0].value for score in ranked) - 1
    has = f"shares the highest pass^1 with {plural(tied, 'other')}," if tied else "has the highest pass^1,"
    return f"Of {plural(settings, 'setting')}, {top.label} {has}"


def _coverage_sentence(whole: Sequence[CellScore], cells: int) -> str:
    planned = sum(score.cell.planned for score in whole)
    done = sum(len(score.cell.rows) for score in whole)
    lost = sum(score.infra_faults for score in whole)
    nested = f" ({plural(cells, 'cell')}, nested ones counted once)" if cells > len(whole) else ""
    faults = (
        "no conversation was lost to the infrastructure"
        if not lost
        else f"{plural(lost, 'attempt')} {'was' if lost == 1 else 'were'} lost to the infrastructure, "
        "none of them scored as a failure"
    )
    pending = planned - done
    rest = f"{count(pending)} {'is' if pending == 1 else 'are'} still pending" if pending else "nothing is pending"
    return (
        f"{count(done)} of {plural(planned, 'planned conversation')} "
        f"{'is' if done == 1 else 'are'} finished{nested}, {percent(done / planned if planned else None)}, "
        f"and {rest}; {faults}."
    )
