"""The report on scores: what `30_pass_k.ipynb` shows, one property a cell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.report.causes import cause_table, causes_of
from tautools.report.cells import find_cells, pools
from tautools.report.draw_scores import draw_pass_at, draw_pass_hat
from tautools.report.floor import Floors
from tautools.report.frames import conversation_frame
from tautools.report.judged import unjudged_of
from tautools.report.pass_tables import outcome_table, pass_at_table, pass_hat_table, source_table, spread_table
from tautools.report.pass_words import pass_opening
from tautools.report.saving import save
from tautools.report.scores import score, scored_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from tautools.report.cells import ReportCell
    from tautools.report.opening import Opening
    from tautools.report.picture import Picture
    from tautools.report.saving import Saved
    from tautools.report.scores import CellScore
    from tautools.report.table import Table

__all__ = ["PassReport", "pass_report"]


@dataclass(frozen=True)
class PassReport:
    """Scores of cells, ready to be shown and saved."""

    workspace: Path
    sweep: str
    scores: tuple[CellScore, ...]

    @property
    def opening(self) -> Opening:
        """Two sentences: which setting scores best, and what the figures rest on."""
        return pass_opening(self.scores, str(self.workspace))

    @property
    def pass_hat_k(self) -> Table:
        """pass^k for every cell, both conventions, with coverage and floor."""
        return pass_hat_table(self.scores, self.unjudged)

    @cached_property
    def unjudged(self) -> list[str]:
        """What tasks assert in natural language and nobody judged, a sentence for each env."""
        return unjudged_of([each.cell for each in self.scores if each.nested_in is None])

    @property
    def pass_at_k(self) -> Table:
        """pass@k for every cell, with coverage and floor."""
        return pass_at_table(self.scores)

    @property
    def outcomes(self) -> Table:
        """How conversations ended, what is owed, what was lost."""
        return outcome_table(self.scores)

    @cached_property
    def causes(self) -> Table:
        """What conversations that did not pass were lost by."""
        return cause_table(self.scores, [causes_of(each.cell) for each in self.scores])

    @property
    def steadiness(self) -> Table:
        """Standard error over tasks, intraclass correlation, tasks that flip."""
        return spread_table(self.scores)

    @property
    def sources(self) -> Table:
        """Where each cell's figures come from."""
        return source_table(self.scores)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, in the order of the report."""
        return self.pass_hat_k, self.pass_at_k, self.outcomes, self.causes, self.steadiness, self.sources

    @cached_property
    def pass_hat_figure(self) -> Picture:
        """pass^k against k."""
        return draw_pass_hat(self.scores)

    @cached_property
    def pass_at_figure(self) -> Picture:
        """pass@k against k."""
        return draw_pass_at(self.scores)

    @property
    def conversations(self) -> pd.DataFrame:
        """Every finished conversation once, for questions of your own."""
        return conversation_frame([each.cell for each in self.scores])

    def to_json(self) -> dict[str, Any]:
        """Return every figure with the rows it was computed from."""
        return {
            "report": "pass_k",
            "workspace": str(self.workspace),
            "sweep": self.sweep,
            "simulated": any(each.cell.simulated for each in self.scores),
            "opening": [self.opening.first, self.opening.second],
            "unjudged": self.unjudged,
            "cells": [_cell_json(each) for each in self.scores],
            "tables": [table.to_markdown() for table in self.tables],
        }

    def save(self, out: str | Path = "") -> Saved:
        """Write `pass_k.json` and the figures into `out`; nothing when it is empty."""
        return save(out, "pass_k.json", self.to_json(), (self.pass_hat_figure, self.pass_at_figure))


def pass_report(*, workspace: str | Path = ".", sweep: str = "") -> PassReport:
    """Read the results of a workspace and compute their scores; no results make an empty report.

    Parameters
    ----------
    workspace : str or Path
        The folder that holds `results/`.
    sweep : str
        Name or path of a sweep file; empty for everything under `results/`.

    Raises
    ------
    ParamsError, BenchError, RunError
        A sweep that does not exist or cannot be planned; results that cannot be read.
    """
    place = Path(workspace)
    cells = find_cells(place, sweep or None)
    widest = {cell.setting_id: cell.num_trials for cell in pools(cells)}
    labels = _labels(cells)
    floors = Floors()
    scores = (
        score(
            cell,
            label=labels[cell.setting_id],
            nested_in=widest[cell.setting_id] if cell.num_trials < widest[cell.setting_id] else None,
            floor=floors.of(cell.setting, scored_tasks(cell) or cell.tasks, cell.folder),
        )
        for cell in cells
    )
    return PassReport(place, sweep, tuple(scores))


def _labels(cells: Sequence[ReportCell]) -> dict[str, str]:
    """Name each setting by what differs; settings that differ in anything else get their id behind it."""
    plain = {c.setting_id: f"{c.model} under {c.setting.strategy.value} on {c.setting.env}" for c in cells}
    names = list(plain.values())
    return {key: name if names.count(name) == 1 else f"{name} [{key[:8]}]" for key, name in plain.items()}


def _cell_json(each: CellScore) -> dict[str, Any]:
    cell = each.cell
    return {
        "env": cell.setting.env,
        "strategy": cell.setting.strategy.value,
        "agent_model": cell.setting.agent.model,
        "user_model": cell.setting.user.model,
        "persona": cell.setting.persona,
        "setting_id": cell.setting_id,
        "num_trials": cell.num_trials,
        "nested_in": each.nested_in,
        "simulated": cell.simulated,
        "planned": cell.planned,
        "finished": len(cell.rows),
        "owed": cell.owed,
        "scored": each.scored,
        "pass_hat_k": [asdict(found) for found in each.pass_hat],
        "pass_at_k": [asdict(found) for found in each.pass_at],
        "v1_pass_hat_k": list(each.v1),
        "v1_trials": each.v1_trials,
        "do_nothing_floor": asdict(each.floor),
        "outcomes": {outcome.value: number for outcome, number in each.outcomes.items()},
        "infra_faults": each.infra_faults,
        "user_errors_repeated": each.user_errors,
        "spread": None if each.spread is None else asdict(each.spread),
        "rows": {
            "files": sorted(f"{cell.folder}/ledger/{name}.jsonl" for name in {row.writer for row in cell.rows}),
            "where": f"setting_id = {cell.setting_id} and trial < {cell.num_trials}; of one key the first finished",
            "tasks": {task: counts._asdict() for task, counts in each.tasks.items()},
        },
    }
