"""The demonstration: simulated servers, a small sweep of real tau2 tasks, two reports. All figures are SIMULATED.

Running it again finds everything done: no server is started, no model is called, and the reports are those of before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.files import ensure_folder
from tautools.params import load_sweep
from tautools.sweep import SweepEvent, SweepResult, run_sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SWEEP", "Demo", "run_demo"]

SWEEP = "demo"
"""The sweep file that is run."""

PAGES = ("pass_k.html", "latency.html")


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demonstration came to."""

    result: SweepResult
    pages: tuple[Path, ...]
    """The two reports; none when the sweep is not finished."""
    built: bool
    """Whether the reports were built by this run."""


def run_demo(workspace: Path, *, on_event: Callable[[SweepEvent], None] | None = None) -> Demo:
    """Make the workspace, run the sweep, build the reports.

    Parameters
    ----------
    workspace : Path
        Made when it is not there.
    on_event : callable, optional
        Told what happens in the sweep.

    Raises
    ------
    TautoolsError
        When the workspace cannot be written, a server does not start, or a report cannot be built.
    """
    workspace = ensure_folder(workspace.expanduser().absolute())
    result = run_sweep(load_sweep(SWEEP, workspace=workspace), workspace=workspace, on_event=on_event)
    if not result.finished:
        return Demo(result, (), built=False)
    known = () if result.executed else _pages_of_before(workspace)
    return Demo(result, known or _build(workspace), built=not known)


def _pages_of_before(workspace: Path) -> tuple[Path, ...]:
    """Return the newest complete pair of reports, or nothing."""
    for folder in sorted((workspace / "reports" / SWEEP).glob("*"), reverse=True):
        pages = tuple(folder / name for name in PAGES)
        if all(page.is_file() for page in pages) and (folder / "report.html").is_file():
            return pages
    return ()


def _build(workspace: Path) -> tuple[Path, ...]:
    from tautools.report import build_reports

    return build_reports(workspace=workspace, sweep=SWEEP).pages
