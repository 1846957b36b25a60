"""Why conversations did not pass, counted for each cell of a report, from replays on the benchmark's own tools."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.report.numbers import count
from tautools.report.table import Column, Table
from tautools.run import read_setting
from tautools.run.failures import count_missed, failures_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.report.cells import ReportCell
    from tautools.report.scores import CellScore

__all__ = ["CellCauses", "cause_table", "causes_of"]

_CAUSES = ("database", "information", "environment", "actions", "end")
_NOTE = (
    "A conversation may be lost by several: the database is not as the reference leaves it, information was not said, "
    "an assertion about the environment does not hold, a required action was not made, or a limit ended it. The last "
    "column names the action that most did not make; reading actions are left out. `tautools failures` tells each "
    "conversation, `tautools show` one in full."
)
_READS = ("get_", "find_", "search_", "list_", "calculate", "check_", "think")
_EMPTY = "n = 0: no conversation is finished."


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
    missed = {key: number for key, number in count_missed(found).items() if not key[0].startswith(_READS)}
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
            _action(each),
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
        (_NOTE,),
        _EMPTY,
    )


def _action(each: CellCauses) -> tuple[str, ...]:
    if each.why_not:
        return "not known", each.why_not
    if each.action is None:
        return ("",)
    name, fate, number = each.action
    return name, f"{fate} in {number}"
