"""The report on scores and its figures: what `30_pass_k.ipynb` shows, one property a cell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.report.base import save_files
from tautools.report.cells import find_cells, pools
from tautools.report.figures import empty_figure, finish_figure, new_figure, series_style
from tautools.report.formatting import share
from tautools.report.frames import conversation_frame
from tautools.report.pass_tables import (
    cause_table,
    causes_of,
    outcome_table,
    pass_at_table,
    pass_hat_table,
    pass_summary,
    source_table,
    spread_table,
    unjudged_assertions,
)
from tautools.report.scores import NullBaselines, score, scored_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from tautools.report.base import SavedFiles
    from tautools.report.cells import ReportCell
    from tautools.report.figures import ReportFigure, SeriesStyle
    from tautools.report.formatting import Summary, Table
    from tautools.report.scores import CellScore, Estimate


def draw_pass_hat(scores: Sequence[CellScore]) -> ReportFigure:
    """Draw pass^k with its intervals and the do-nothing floor."""
    return _draw_panels(scores, lambda score: score.pass_hat, "pass_hat_k", "pass^k", "all of k trials pass")


def draw_pass_at(scores: Sequence[CellScore]) -> ReportFigure:
    """Draw pass@k with its intervals and the do-nothing floor."""
    return _draw_panels(scores, lambda score: score.pass_at, "pass_at_k", "pass@k", "at least one of k trials passes")


def _draw_panels(
    scores: Sequence[CellScore],
    of: Callable[[CellScore], Sequence[Estimate]],
    name: str,
    figure_name: str,
    meaning: str,
) -> ReportFigure:
    shown = [cell_score for cell_score in scores if cell_score.nested_in is None and of(cell_score)]
    if not shown:
        return empty_figure(name, f"No figure of {figure_name}: n = 0.")
    envs = list(dict.fromkeys(cell_score.cell.setting.env for cell_score in shown))
    strategies = list(dict.fromkeys(cell_score.cell.setting.strategy.value for cell_score in shown))
    labels = {cell_score.label: _series_name(cell_score, shown) for cell_score in shown}
    hands = {series: series_style(index) for index, series in enumerate(dict.fromkeys(labels.values()))}
    figure, axes = new_figure(max(6.4, 3.3 * len(strategies)), 2.6 * len(envs) + 1.0, len(envs), len(strategies))
    most = max(len(of(cell_score)) for cell_score in shown)
    for row, env in zip(axes, envs, strict=True):
        for field, strategy in zip(row, strategies, strict=True):
            here = [s for s in shown if (s.cell.setting.env, s.cell.setting.strategy.value) == (env, strategy)]
            _draw_panel(field, here, of, [hands[labels[cell_score.label]] for cell_score in here])
            field.set_title(f"{env}, {strategy}", fontsize=10)
            field.set_xticks(range(1, most + 1))
            field.set_xlim(0.5, most + 0.5)
        row[0].set_ylabel(f"{figure_name} (share of tasks)")
    for field in axes[-1]:
        field.set_xlabel("k (trials)")
    handles = [axes[0][0].plot([], [], **each._asdict(), label=series)[0] for series, each in hands.items()]
    handles.append(axes[0][0].plot([], [], color="#777777", linestyle=(0, (1, 2)), label="do nothing")[0])
    figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    simulated = any(cell_score.cell.simulated for cell_score in shown)
    return finish_figure(
        figure, name, _alt_text(shown, of, figure_name), title=f"{figure_name}: {meaning}", simulated=simulated
    )


def _draw_panel(
    field: Axes, here: Sequence[CellScore], of: Callable[[CellScore], Sequence[Estimate]], hands: Sequence[SeriesStyle]
) -> None:
    for index, (cell_score, drawn) in enumerate(zip(here, hands, strict=True)):
        found = of(cell_score)
        values = [each.value for each in found]
        below = [each.value - each.interval.low for each in found]
        above = [each.interval.high - each.value for each in found]
        # Lines of several models lie side by side, so that no interval hides another.
        beside = (index - (len(here) - 1) / 2) * 0.08
        places = [each.k + beside for each in found]
        field.errorbar(places, values, yerr=[below, above], **drawn._asdict(), capsize=3, linewidth=1.6, markersize=6)
    for floor in {each.floor.value for each in here if each.floor.value is not None}:
        field.axhline(floor, color="#777777", linestyle=(0, (1, 2)), linewidth=1.5)
    if not here:
        field.text(0.5, 0.5, "n = 0", transform=field.transAxes, ha="center", color="#555555")
    field.set_ylim(-0.03, 1.03)


def _series_name(score: CellScore, shown: Sequence[CellScore]) -> str:
    """Return the model's name, with the setting's id where one field has two settings of one model."""
    same = {s.cell.setting_id for s in shown if s.cell.model == score.cell.model and _panel_of(s) == _panel_of(score)}
    return f"{score.cell.model} [{score.cell.setting_id[:8]}]" if len(same) > 1 else score.cell.model


def _panel_of(score: CellScore) -> tuple[str, str]:
    return score.cell.setting.env, score.cell.setting.strategy.value


def _alt_text(shown: Sequence[CellScore], of: Callable[[CellScore], Sequence[Estimate]], figure_name: str) -> str:
    said = "; ".join(f"{score.label}: {', '.join(share(each.value) for each in of(score))}" for score in shown[:8])
    more = f"; and {len(shown) - 8} more settings" if len(shown) > 8 else ""
    return f"{figure_name} for k = 1, 2, … with 95 % intervals. {said}{more}."


@dataclass(frozen=True)
class PassReport:
    """Scores of cells, ready to be shown and saved."""

    workspace: Path
    sweep: str
    scores: tuple[CellScore, ...]

    @property
    def opening(self) -> Summary:
        """Two sentences: which setting scores best, and what the figures rest on."""
        return pass_summary(self.scores, str(self.workspace))

    @property
    def pass_hat_k(self) -> Table:
        """pass^k for every cell, both conventions, with coverage and floor."""
        return pass_hat_table(self.scores, self.awaiting_judge)

    @cached_property
    def awaiting_judge(self) -> list[str]:
        """What tasks assert in natural language and nobody judged, a sentence for each env."""
        return unjudged_assertions([each.cell for each in self.scores if each.nested_in is None])

    @property
    def pass_at_k(self) -> Table:
        """pass@k for every cell, with coverage and floor."""
        return pass_at_table(self.scores)

    @property
    def outcomes(self) -> Table:
        """How conversations ended, what is pending, what was lost."""
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
    def pass_hat_figure(self) -> ReportFigure:
        """pass^k against k."""
        return draw_pass_hat(self.scores)

    @cached_property
    def pass_at_figure(self) -> ReportFigure:
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
            "awaiting_judge": self.awaiting_judge,
            "cells": [_cell_json(each) for each in self.scores],
            "tables": [table.to_markdown() for table in self.tables],
        }

    def save(self, out: str | Path = "") -> SavedFiles:
        """Write `pass_k.json` and the figures into `out`; nothing when it is empty."""
        return save_files(out, "pass_k.json", self.to_json(), (self.pass_hat_figure, self.pass_at_figure))


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
    floors = NullBaselines()
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
        "pending": cell.pending,
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
