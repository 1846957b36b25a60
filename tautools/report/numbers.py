"""How numbers are written: the same everywhere in a report."""

from __future__ import annotations

__all__ = ["count", "measured", "percent", "plural", "share"]


def share(value: float | None) -> str:
    """Write a score in [0, 1] with three decimals; a dash when there is none."""
    return "–" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """Write a share in [0, 1] as percent; 100 % and 0 % only when they are exact."""
    if value is None:
        return "–"
    text = f"{100 * value:.1f} %"
    if text == "100.0 %" and value < 1:
        return "> 99.9 %"
    if text == "0.0 %" and value > 0:
        return "< 0.1 %"
    return text


def measured(value: float | None) -> str:
    """Write a measured quantity with three significant digits and no exponent."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    magnitude = abs(value)
    decimals = max(0, 2 - _exponent(magnitude))
    return f"{value:.{min(decimals, 6)}f}"


def count(value: int) -> str:
    """Write a count in groups of three."""
    return f"{value:,}"


def plural(number: int, noun: str) -> str:
    """Write a count with its noun, `1 task` or `2 tasks`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def _exponent(magnitude: float) -> int:
    from math import floor, log10

    return floor(log10(magnitude))
