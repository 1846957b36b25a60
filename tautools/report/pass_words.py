"""The two sentences that open the report on scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.report.numbers import count, percent, plural, share
from tautools.report.opening import Opening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.report.scores import CellScore

__all__ = ["pass_opening"]


def pass_opening(scores: Sequence[CellScore], workspace: str) -> Opening:
    """Say which setting scores best and how much of the plan that rests on."""
    whole = [score for score in scores if score.nested_in is None]
    simulated = any(score.cell.simulated for score in scores)
    if not whole:
        return Opening(
            f"There are no results under {workspace}/results.",
            "Next: run a cell (`tautools run --help` shows how) or a sweep (`tautools sweep run NAME`).",
        )
    return Opening(_best(whole), _coverage(whole, len(scores)), simulated)


def _best(whole: Sequence[CellScore]) -> str:
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
        f"{_place(ranked, len(whole))} {share(figure.value)} (95 % interval {share(limits.low)} to "
        f"{share(limits.high)}; {basis}); {floor}."
    )


def _place(ranked: Sequence[CellScore], settings: int) -> str:
    top = ranked[0]
    if settings == 1:
        return f"{top.label} has a pass^1 of"
    tied = sum(score.pass_hat[0].value == top.pass_hat[0].value for score in ranked) - 1
    has = f"shares the highest pass^1 with {plural(tied, 'other')}," if tied else "has the highest pass^1,"
    return f"Of {plural(settings, 'setting')}, {top.label} {has}"


def _coverage(whole: Sequence[CellScore], cells: int) -> str:
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
    owed = planned - done
    rest = f"{count(owed)} {'is' if owed == 1 else 'are'} still owed" if owed else "nothing is owed"
    return (
        f"{count(done)} of {plural(planned, 'planned conversation')} "
        f"{'is' if done == 1 else 'are'} finished{nested}, {percent(done / planned if planned else None)}, "
        f"and {rest}; {faults}."
    )
