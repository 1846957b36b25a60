"""Which natural-language assertions the figures of a report leave out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.run import read_setting
from tautools.run.coverage import folder_judged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.report.cells import ReportCell

__all__ = ["unjudged_of"]


def unjudged_of(cells: Sequence[ReportCell]) -> list[str]:
    """Return one sentence for each env, and cells of it that differ, in which something was not judged."""
    found: list[str] = []
    for cell in cells:
        folder = read_setting(cell.folder)
        said = folder_judged(folder, cell.tasks) if folder is not None else ""
        if said and f"{cell.setting.env}: {said}." not in found:
            found.append(f"{cell.setting.env}: {said}.")
    return found
