"""Draws pass^k and pass@k against k: one field for each env and strategy, one line for each model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.report.numbers import share
from tautools.report.picture import blank, finish, hand, new_figure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from tautools.report.picture import Hand, Picture
    from tautools.report.scores import CellScore, Estimate

__all__ = ["draw_pass_at", "draw_pass_hat"]


def draw_pass_hat(scores: Sequence[CellScore]) -> Picture:
    """Draw pass^k with its intervals and the do-nothing floor."""
    return _draw(scores, lambda score: score.pass_hat, "pass_hat_k", "pass^k", "all of k trials pass")


def draw_pass_at(scores: Sequence[CellScore]) -> Picture:
    """Draw pass@k with its intervals and the do-nothing floor."""
    return _draw(scores, lambda score: score.pass_at, "pass_at_k", "pass@k", "at least one of k trials passes")


def _draw(
    scores: Sequence[CellScore],
    of: Callable[[CellScore], Sequence[Estimate]],
    name: str,
    figure_name: str,
    meaning: str,
) -> Picture:
    shown = [score for score in scores if score.nested_in is None and of(score)]
    if not shown:
        return blank(name, f"No figure of {figure_name}: n = 0.")
    envs = list(dict.fromkeys(score.cell.setting.env for score in shown))
    strategies = list(dict.fromkeys(score.cell.setting.strategy.value for score in shown))
    labels = {score.label: _series(score, shown) for score in shown}
    hands = {series: hand(index) for index, series in enumerate(dict.fromkeys(labels.values()))}
    figure, axes = new_figure(max(6.4, 3.3 * len(strategies)), 2.6 * len(envs) + 1.0, len(envs), len(strategies))
    most = max(len(of(score)) for score in shown)
    for row, env in zip(axes, envs, strict=True):
        for field, strategy in zip(row, strategies, strict=True):
            here = [s for s in shown if (s.cell.setting.env, s.cell.setting.strategy.value) == (env, strategy)]
            _field(field, here, of, [hands[labels[score.label]] for score in here])
            field.set_title(f"{env}, {strategy}", fontsize=10)
            field.set_xticks(range(1, most + 1))
            field.set_xlim(0.5, most + 0.5)
        row[0].set_ylabel(f"{figure_name} (share of tasks)")
    for field in axes[-1]:
        field.set_xlabel("k (trials)")
    handles = [axes[0][0].plot([], [], **each._asdict(), label=series)[0] for series, each in hands.items()]
    handles.append(axes[0][0].plot([], [], color="#777777", linestyle=(0, (1, 2)), label="do nothing")[0])
    figure.legend(handles=handles, loc="outside lower left", ncols=4, frameon=False, fontsize=9)
    simulated = any(score.cell.simulated for score in shown)
    return finish(figure, name, _alt(shown, of, figure_name), title=f"{figure_name}: {meaning}", simulated=simulated)


def _field(
    field: Axes, here: Sequence[CellScore], of: Callable[[CellScore], Sequence[Estimate]], hands: Sequence[Hand]
) -> None:
    for index, (score, drawn) in enumerate(zip(here, hands, strict=True)):
        found = of(score)
        values = [each.value for each in found]
        below = [each.value - each.interval.low for each in found]
        above = [each.interval.high - each.value for each in found]
        # Lines of several models lie side by side, so that no interval hides another.
        beside = (index - (len(here) - 1) / 2) * 0.08
        places = [each.k + beside for each in found]
        field.errorbar(places, values, yerr=[below, above], **drawn._asdict(), capsize=3, linewidth=1.6, markersize=6)
    for floor in {score.floor.value for score in here if score.floor.value is not None}:
        field.axhline(floor, color="#777777", linestyle=(0, (1, 2)), linewidth=1.5)
    if not here:
        field.text(0.5, 0.5, "n = 0", transform=field.transAxes, ha="center", color="#555555")
    field.set_ylim(-0.03, 1.03)


def _series(score: CellScore, shown: Sequence[CellScore]) -> str:
    """Return the model's name, with the setting's id where one field has two settings of one model."""
    same = {s.cell.setting_id for s in shown if s.cell.model == score.cell.model and _where(s) == _where(score)}
    return f"{score.cell.model} [{score.cell.setting_id[:8]}]" if len(same) > 1 else score.cell.model


def _where(score: CellScore) -> tuple[str, str]:
    return score.cell.setting.env, score.cell.setting.strategy.value


def _alt(shown: Sequence[CellScore], of: Callable[[CellScore], Sequence[Estimate]], figure_name: str) -> str:
    said = "; ".join(f"{score.label}: {', '.join(share(each.value) for each in of(score))}" for score in shown[:8])
    more = f"; and {len(shown) - 8} more settings" if len(shown) > 8 else ""
    return f"{figure_name} for k = 1, 2, … with 95 % intervals. {said}{more}."
