"""Builds the reports of a sweep: runs the two notebooks through papermill and turns them into pages.

The notebooks compute, show and save; the pages, the Markdown and the JSON files all show the figures of that one
computation.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tautools
from tautools.errors import RecordError, RunError
from tautools.files import ensure_folder, write_atomic
from tautools.params import shipped
from tautools.report.cells import find_cells
from tautools.report.pages import experiment_report, front_page, notebook_page, summary_of
from tautools.sweep.notebook import execute_notebook

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

CELL_TIMEOUT_S = 1800
"""Longest time that one cell may take [s]."""

_PARTS = (
    ("30_pass_k.ipynb", "pass_k.html", "pass_k.json", "Scores: pass^k and pass@k"),
    ("31_latency.ipynb", "latency.html", "profile_analysis.json", "Latency"),
)


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where the reports of one sweep were written."""

    folder: Path
    front: Path
    """The page that leads to the others."""
    pages: tuple[Path, ...]
    notebooks: tuple[Path, ...]
    markdown: Path
    data: tuple[Path, ...]
    figures: tuple[Path, ...]
    simulated: bool

    def __str__(self) -> str:
        mark = " (SIMULATED models)" if self.simulated else ""
        paths = [self.front, *self.pages, self.markdown, *self.data, *self.notebooks, *self.figures]
        return "\n".join([f"Reports{mark} in {self.folder}", *(f"  {path.name}" for path in paths)])


def build_reports(
    *,
    workspace: Path,
    sweep: str | None = None,
    out: Path | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> ReportPaths:
    """Build both reports.

    Parameters
    ----------
    workspace : Path
        The folder that holds `results/`.
    sweep : str, optional
        Name or path of a sweep file; everything under `results/` when not given.
    out : Path, optional
        Folder to write into; `reports/<sweep>/<time>/` of the workspace when not given.
    on_progress : callable, optional
        Receives one line for each notebook cell that was executed.

    Raises
    ------
    RecordError
        When there is nothing to report, before anything is made.
    ParamsError, BenchError, RunError
        A sweep that does not exist or cannot be planned; results that cannot be read.
    FilesError, RunError
        When the folder cannot be written, or a notebook does not run to its end.
    """
    _check_results(workspace, sweep)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    # A path to a sweep file gives the file's name.
    name = sweep.rstrip("/").rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml") if sweep else "all"
    folder = ensure_folder(out or workspace / "reports" / name / stamp).resolve()
    foot = f"Made by tautools {tautools.__version__} at {time.strftime('%Y-%m-%d %H:%M:%S %z')}, from {workspace}."
    parameters = {"workspace": str(workspace.resolve()), "sweep": sweep or "", "out": str(folder)}
    data = []
    for notebook, page, data_file, heading in _PARTS:
        source = shipped("notebooks") / notebook
        execute_report(source, folder / notebook, parameters=parameters, folder=workspace, on_progress=on_progress)
        write_atomic(folder / page, notebook_page(folder / notebook, title=f"{heading}: {name}", foot=foot))
        data.append(json.loads((folder / data_file).read_bytes()))
    figures = tuple(sorted(folder.glob("*.png")))
    markdown = folder / f"experiment_report_{stamp}.md"
    write_atomic(markdown, _markdown(name, data, [figure.name for figure in figures], foot))
    parts = [(heading, page, summary_of(each)) for (_, page, _, heading), each in zip(_PARTS, data, strict=True)]
    write_atomic(folder / "report.html", front_page(f"Reports: {name}", parts, foot=foot))
    return ReportPaths(
        folder=folder,
        front=folder / "report.html",
        pages=tuple(folder / page for _, page, _, _ in _PARTS),
        notebooks=tuple(folder / notebook for notebook, _, _, _ in _PARTS),
        markdown=markdown,
        data=tuple(folder / data_file for _, _, data_file, _ in _PARTS),
        figures=figures,
        simulated=any(each["simulated"] for each in data),
    )


def _check_results(workspace: Path, sweep: str | None) -> None:
    cells = find_cells(workspace, sweep)
    if any(cell.rows for cell in cells):
        return
    if cells:
        of = f"of sweep {sweep}" if sweep else f"under {workspace / 'results'}"
        raise RecordError(
            f"No conversation {of} is finished yet.",
            evidence=f"{sum(cell.planned for cell in cells)} conversations are pending.",
            next_step=f"Run it with `tautools sweep run {sweep}`." if sweep else "Run it again with `tautools run`.",
        )
    raise RecordError(
        f"There are no results under {workspace / 'results'}.",
        next_step="Run a cell (`tautools run --help` shows how) or a sweep (`tautools sweep run NAME`), "
        "or name the right workspace with --workspace.",
    )


def _markdown(name: str, data: list[dict[str, Any]], figures: list[str], foot: str) -> str:
    latency = [figure for figure in figures if figure.startswith("latency_")]
    scores = [figure for figure in figures if figure not in latency]
    parts = [(part[3], each, shown) for part, each, shown in zip(_PARTS, data, (scores, latency), strict=True)]
    return experiment_report(f"Experiment report: {name}", parts, foot=foot)


def execute_report(
    notebook: Path,
    out: Path,
    *,
    parameters: Mapping[str, str],
    folder: Path,
    on_progress: Callable[[str], None] | None = None,
) -> None:
    """Execute a report's notebook in `folder` and keep it, with its results, as `out`; raises as `build_reports`."""
    from traitlets.config import Config

    def executed(cell_index: int = 0, **_: Any) -> None:
        if on_progress is not None:
            on_progress(f"{notebook.name}: cell {cell_index} executed")

    cause = execute_notebook(
        notebook,
        out,
        parameters,
        timeout_s=CELL_TIMEOUT_S,
        kernel_name="python3",
        # Only the owner can read the kernel's sockets.
        config=Config({"KernelManager": {"transport_encryption": "required"}}),
        cwd=str(folder.resolve()),
        on_cell_executed=executed,
    )
    if cause:
        raise RunError(
            f"{notebook.name} did not run to its end.",
            evidence=cause,
            next_step=f"Open {out} to see the cell that failed.",
        )
