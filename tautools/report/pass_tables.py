"""The tables of the report on scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.records import Outcome
from tautools.report.numbers import count, percent, share
from tautools.report.table import Column, Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.records import Setting
    from tautools.report.scores import CellScore, Estimate

__all__ = ["outcome_table", "pass_at_table", "pass_hat_table", "source_table", "spread_table"]

_NESTED = (
    "Cells that differ only in num_trials are views on one pool of trials: they are nested in the largest one, never "
    "independent of it."
)
_CONVENTIONS = (
    "Upper figure: what is owed and user_errors left out, each task with its own number of trials, k up to the "
    "smallest. Below it the 95 % interval over tasks, then `v1`: the same by tau-bench v1's convention, every fault "
    "and every missing trial a failure."
)
_FLOOR = "do nothing: what an agent that does nothing scores on the tasks scored, the same for every k."
_OUTCOMES = (
    "planned = the outcomes + owed. A user_error stands here after its repeats and carries no reward. infra faults and "
    "user model repeats are attempts that ended without a result and are owed again."
)
_ALWAYS = {Outcome.PASSED, Outcome.FAILED}
_SPREAD = (
    "ICC is the share of the variance that lies between tasks; a task with several trials flips when some of "
    "them passed and others did not. A dash: too few tasks or trials to tell."
)
_SOURCES = "Every figure of a cell is computed from the rows of ledger/*.jsonl in its folder with a trial below trials."
_HEAD = (Column("env", number=False), Column("strategy", number=False), Column("model", number=False))
_EMPTY = "n = 0: no conversation is finished."


def pass_hat_table(scores: Sequence[CellScore], notes: Sequence[str] = ()) -> Table:
    """Return pass^k for every cell: value, interval, and v1's convention below it; `notes` stand below the table."""
    most = max((score.cell.num_trials for score in scores), default=0)
    rows = tuple(
        (*_head(score), *_basis(score), *(_pass_hat_entry(score, k) for k in range(1, most + 1))) for score in scores
    )
    return Table(
        "pass^k: all of k trials pass",
        (*_HEAD, *_BASIS, *(Column(f"pass^{k}") for k in range(1, most + 1))),
        rows,
        (
            _CONVENTIONS,
            _FLOOR,
            *_marks(scores, lambda score: score.pass_hat),
            *notes,
        ),
        _EMPTY,
    )


def pass_at_table(scores: Sequence[CellScore]) -> Table:
    """Return pass@k for every cell: value and interval."""
    most = max((score.cell.num_trials for score in scores), default=0)
    rows = tuple(
        (*_head(score), *_basis(score), *(_entry(score, score.pass_at, k) for k in range(1, most + 1)))
        for score in scores
    )
    return Table(
        "pass@k: at least one of k trials passes",
        (*_HEAD, *_BASIS, *(Column(f"pass@{k}") for k in range(1, most + 1))),
        rows,
        ("Below each figure its 95 % interval over tasks.", _FLOOR, *_marks(scores, lambda score: score.pass_at)),
        _EMPTY,
    )


def outcome_table(scores: Sequence[CellScore]) -> Table:
    """Return how conversations ended, what is owed and what was lost on the way."""
    kinds = [kind for kind in Outcome if kind in _ALWAYS or any(score.outcomes.get(kind) for score in scores)]
    never = [kind.value for kind in Outcome if kind not in kinds and kind is not Outcome.INFRA]
    rows = tuple(
        (
            *_head(score),
            count(score.cell.num_trials),
            count(score.cell.planned),
            *(count(score.outcomes.get(kind, 0)) for kind in kinds),
            count(score.cell.owed),
            count(score.infra_faults),
            count(score.user_errors),
        )
        for score in scores
    )
    names = [kind.value for kind in kinds]
    return Table(
        "Outcomes, what is owed, what was lost",
        (
            *_HEAD,
            *(Column(name) for name in ("trials", "planned", *names, "owed", "infra faults", "user model repeats")),
        ),
        rows,
        (_OUTCOMES, *([f"Never occurred: {', '.join(never)}."] if never else [])),
        _EMPTY,
    )


def spread_table(scores: Sequence[CellScore]) -> Table:
    """Return how trials of one task hang together; nested cells are left out."""
    rows = tuple(
        (
            *_head(score),
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
        (*_HEAD, *(Column(name) for name in names)),
        rows,
        (_SPREAD,),
        _EMPTY,
    )


def source_table(scores: Sequence[CellScore]) -> Table:
    """Return where each cell's figures come from."""
    rows = tuple(
        (
            *_head(score),
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
        (*_HEAD, Column("trials"), *(Column(name, number=False) for name in names)),
        rows,
        (_SOURCES,),
        _EMPTY,
    )


_BASIS = (Column("trials"), Column("finished"), Column("tasks scored"), Column("do nothing"))


def _head(score: CellScore) -> tuple[str | tuple[str, ...], ...]:
    cell = score.cell
    return cell.setting.env, cell.setting.strategy.value, (cell.model, *cell.marks)


def _benchmark(setting: Setting) -> str:
    return f"{setting.source} {setting.source_version}, {setting.protocol}, {setting.reward_basis}"


def _basis(score: CellScore) -> tuple[str | tuple[str, ...], ...]:
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


def _marks(scores: Sequence[CellScore], of: Callable[[CellScore], Sequence[Estimate]]) -> tuple[str, ...]:
    """Return the notes that something in the table needs."""
    notes = []
    if any(found.interval.method == "wilson" for score in scores for found in of(score)):
        notes.append("† fewer than ten tasks stand apart from the rest: Wilson's interval over tasks, no bootstrap.")
    if any(len(of(score)) < score.cell.num_trials for score in scores):
        notes.append("– : some task of the cell has fewer scored trials than k.")
    if any(score.nested_in for score in scores):
        notes.append(_NESTED)
    return tuple(notes)
