"""The experiment's report as Markdown, from the two JSON files that hold its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tautools.report.opening import Opening

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["experiment_report", "opening_of"]


def experiment_report(
    title: str, parts: Sequence[tuple[str, Mapping[str, Any], Sequence[str]]], *, foot: str = ""
) -> str:
    """Return the whole report.

    Parameters
    ----------
    title : str
        First heading.
    parts : sequence of (heading, data, figures)
        A part's heading, what its JSON file holds, and the names of its PNG files beside the report.
    foot : str
        Last line.
    """
    lines = [f"# {title}", ""]
    for heading, data, figures in parts:
        lines += [f"## {heading}", "", opening_of(data).to_markdown()]
        lines += [f"![{name.removesuffix('.png')}]({name})\n" for name in figures]
        lines += data["tables"]
    return "\n".join([*lines, foot, ""])


def opening_of(data: Mapping[str, Any]) -> Opening:
    """Return the opening that a report's JSON file holds."""
    first, second = data["opening"]
    return Opening(first, second, bool(data["simulated"]))
