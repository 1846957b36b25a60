"""The report on scores and its figures: what `30_pass_k.ipynb` shows, one property a cell."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.report.base import Report
from tautools.report.cells import find_cells, widest_cells
from tautools.report.figures import empty_figure, finish_figure, new_figure, series_style
from tautools.report.formatting import share
from tautools.report.frames import conversation_frame
from tautools.report.pass_tables import (
    cause_table,
    causes_of,
    judging_notes,
    outcome_table,
    pass_at_table,
    pass_hat_table,
    pass_summary,
    source_table,
    spread_table,
)
from tautools.report.scores import NullBaselines, score_cell, task_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from tautools.report.figures import ReportFigure, SeriesStyle
    from tautools.report.formatting import Summary, Table
    from tautools.report.scores import CellScore, Estimate

_BASELINE_STYLE: dict[str, Any] = {"color": "#777777", "linestyle": (0, (1, 2))}


@dataclass(frozen=True)
class PassReport(Report):
    """Scores of cells, ready to be shown and saved."""

    scores: tuple[CellScore, ...]

    name = "pass_k"
    file_name = "pass_k.json"

    @property
    def simulated(self) -> bool:
        """Whether a simulated model had a part in any cell."""
        return any(each.cell.simulated for each in self.scores)

    @property
    def summary(self) -> Summary:
        """Two sentences: which setting scores best, and what the figures rest on."""
        return pass_summary(self.scores, str(self.workspace))

    @property
    def pass_hat_k(self) -> Table:
        """pass^k for every cell, both conventions, with coverage and null baseline."""
        return pass_hat_table(self.scores, self.awaiting_judge)

    @cached_property
    def awaiting_judge(self) -> list[str]:
        """What tasks assert in natural language and nobody judged, a sentence for each env."""
        return judging_notes([each.cell for each in self.scores if each.nested_in is None])

    @property
    def pass_at_k(self) -> Table:
        """pass@k for every cell, with coverage and null baseline."""
        return pass_at_table(self.scores)

    @property
    def outcomes(self) -> Table:
        """How conversations ended, what is pending, what was lost."""
        return outcome_table(self.scores)

    @cached_property
    def causes(self) -> Table:
        """Why conversations did not pass."""
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
        """pass^k against k, with its intervals and the null baseline."""
        return _draw(self.scores, lambda score: score.pass_hat, "pass_hat_k", "pass^k", "all of k trials pass")

    @cached_property
    def pass_at_figure(self) -> ReportFigure:
        """pass@k against k, with its intervals and the null baseline."""
        return _draw(self.scores, lambda score: score.pass_at, "pass_at_k", "pass@k", "at least one of k trials passes")

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
        return {"awaiting_judge": self.awaiting_judge, "cells": [_cell_json(each) for each in self.scores]}


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
    cells = find_cells(Path(workspace), sweep or None)
    widest = {cell.setting_id: cell.num_trials for cell in widest_cells(cells)}
    plain = {
        cell.setting_id: f"{cell.model} under {cell.setting.strategy.value} on {cell.setting.env}" for cell in cells
    }
    names = list(plain.values())
    # Settings that differ in anything else get their id behind the name.
    labels = {key: name if names.count(name) == 1 else f"{name} [{key[:8]}]" for key, name in plain.items()}
    baselines = NullBaselines()
    scores = (
        score_cell(
            cell,
            label=labels[cell.setting_id],
            nested_in=widest[cell.setting_id] if cell.num_trials < widest[cell.setting_id] else None,
            baseline=baselines.of(cell.results, list(task_counts(cell)) or cell.tasks),
        )
        for cell in cells
    )
    return PassReport(Path(workspace), sweep, tuple(scores))


def _draw(
    scores: Sequence[CellScore],
    of: Callable[[CellScore], Sequence[Estimate]],
    file_name: str,
    metric: str,
    meaning: str,
) -> ReportFigure:
    """Draw one panel for each env and strategy, one line for each model."""
    shown = [score for score in scores if score.nested_in is None and of(score)]
    if not shown:
        return empty_figure(file_name, f"No figure of {metric}: n = 0.")
    envs = list(dict.fromkeys(_panel_of(score)[0] for score in shown))
    strategies = list(dict.fromkeys(_panel_of(score)[1] for score in shown))
    series = {score.label: _series_name(score, shown) for score in shown}
    styles = {name: series_style(index) for index, name in enumerate(dict.fromkeys(series.values()))}
    figure, axes = new_figure(max(6.4, 3.3 * len(strategies)), 2.6 * len(envs) + 1.0, len(envs), len(strategies))
    most = max(len(of(score)) for score in shown)
    for row, env in zip(axes, envs, strict=True):
        for axis, strategy in zip(row, strategies, strict=True):
            here = [score for score in shown if _panel_of(score) == (env, strategy)]
            _draw_panel(axis, [(score, of(score), styles[series[score.label]]) for score in here])
            axis.set(title=f"{env}, {strategy}", xticks=range(1, most + 1), xlim=(0.5, most + 0.5))
            axis.title.set_fontsize(10)
        row[0].set_ylabel(f"{metric} (share of tasks)")
    for axis in axes[-1]:
        axis.set_xlabel("k (trials)")
    handles = [axes[0][0].plot([], [], **style._asdict(), label=name)[0] for name, style in styles.items()]
    handles += axes[0][0].plot([], [], **_BASELINE_STYLE, label="do nothing")
    figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    values = (f"{score.label}: {', '.join(share(each.value) for each in of(score))}" for score in shown[:8])
    more = f"; and {len(shown) - 8} more settings" if len(shown) > 8 else ""
    alt = f"{metric} for k = 1, 2, … with 95 % intervals. {'; '.join(values)}{more}."
    simulated = any(score.cell.simulated for score in shown)
    return finish_figure(figure, file_name, alt, title=f"{metric}: {meaning}", simulated=simulated)


def _draw_panel(axis: Axes, lines: Sequence[tuple[CellScore, Sequence[Estimate], SeriesStyle]]) -> None:
    for index, (_, estimates, style) in enumerate(lines):
        below = [each.value - each.interval.low for each in estimates]
        above = [each.interval.high - each.value for each in estimates]
        # Lines of several models lie side by side, so that no interval hides another.
        shift = (index - (len(lines) - 1) / 2) * 0.08
        ks = [each.k + shift for each in estimates]
        values = [each.value for each in estimates]
        axis.errorbar(ks, values, yerr=[below, above], **style._asdict(), capsize=3, linewidth=1.6, markersize=6)
    for baseline in {score.null_baseline.value for score, _, _ in lines}:
        if baseline is not None:
            axis.axhline(baseline, **_BASELINE_STYLE, linewidth=1.5)
    if not lines:
        axis.text(0.5, 0.5, "n = 0", transform=axis.transAxes, ha="center", color="#555555")
    axis.set_ylim(-0.03, 1.03)


def _series_name(score: CellScore, shown: Sequence[CellScore]) -> str:
    """Return the model's name, with the setting's id where one panel has two settings of one model."""
    same = {s.cell.setting_id for s in shown if s.cell.model == score.cell.model and _panel_of(s) == _panel_of(score)}
    return f"{score.cell.model} [{score.cell.setting_id[:8]}]" if len(same) > 1 else score.cell.model


def _panel_of(score: CellScore) -> tuple[str, str]:
    return score.cell.setting.env, score.cell.setting.strategy.value


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
        **{name: getattr(score, name) for name in ("nested_in", "scored", "v1_trials", "infra_faults")},
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
