"""Builds the reports of a sweep: runs the two notebooks through papermill and turns them into pages.

The notebooks compute, show and save; what stands in the pages, in the Markdown and in the JSON files are the figures of
that one computation.
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

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


CELL_TIMEOUT_S = 1800
"""Longest time that one cell may take; a bound also wakes a kernel client that missed a reply."""


def execute_notebook(notebook: Path, out: Path, *, parameters: Mapping[str, str], folder: Path) -> None:
    """Execute `notebook` in `folder` and keep it, with its results, as `out`.

    Parameters
    ----------
    notebook : Path
        The notebook; it is only read.
    out : Path
        Where the executed one goes.
    parameters : mapping of str to str
        Values for the names in its cell tagged `parameters`.
    folder : Path
        Working folder of its kernel.

    Raises
    ------
    RunError
        When a cell fails, the kernel dies or a cell takes longer than half an hour.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    try:
        papermill.execute_notebook(
            str(notebook),
            str(out).replace("{", "{{").replace("}", "}}"),  # papermill reads braces in a path as parameters
            parameters=dict(parameters),
            kernel_name="python3",
            config=Config({"KernelManager": {"transport_encryption": "required"}}),
            cwd=str(folder.resolve()),
            progress_bar=False,
            log_output=False,
            start_timeout=180,
            execution_timeout=CELL_TIMEOUT_S,
            coalesce_streams=True,
            store_widget_state=False,
        )
    except PapermillExecutionError as error:
        raise _notebook_error(notebook, out, f"{error.ename}: {error.evalue}") from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise _notebook_error(notebook, out, str(error)) from error


def _notebook_error(notebook: Path, out: Path, evidence: str) -> RunError:
    return RunError(
        f"{notebook.name} did not run to its end.",
        evidence=evidence,
        next_step=f"Open {out} to see the cell that failed.",
    )


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
        names = [self.front, *self.pages, self.markdown, *self.data, *self.notebooks, *self.figures]
        return "\n".join([f"Reports{mark} in {self.folder}", *(f"  {path.name}" for path in names)])


def build_reports(*, workspace: Path, sweep: str | None = None, out: Path | None = None) -> ReportPaths:
    """Build both reports.

    Parameters
    ----------
    workspace : Path
        The folder that holds `results/`.
    sweep : str, optional
        Name or path of a sweep file; everything under `results/` when not given.
    out : Path, optional
        Folder to write into; `reports/<sweep>/<time>/` of the workspace when not given.

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
    name = _folder_name(sweep)
    folder = ensure_folder(out or workspace / "reports" / name / stamp).resolve()
    foot = f"Made by tautools {tautools.__version__} at {time.strftime('%Y-%m-%d %H:%M:%S %z')}, from {workspace}."
    for notebook, page, _, heading in _PARTS:
        parameters = {"workspace": str(workspace.resolve()), "sweep": sweep or "", "out": str(folder)}
        execute_notebook(shipped("notebooks") / notebook, folder / notebook, parameters=parameters, folder=workspace)
        write_atomic(folder / page, notebook_page(folder / notebook, title=f"{heading}: {name}", foot=foot))
    data = [json.loads((folder / part[2]).read_bytes()) for part in _PARTS]
    write_atomic(folder / f"experiment_report_{stamp}.md", _markdown(name, data, folder, foot))
    write_atomic(folder / "report.html", _front_page(name, data, foot))
    return _report_paths(folder, stamp, data)


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


def _folder_name(sweep: str | None) -> str:
    """Return a sweep's name as a folder: a path to a sweep file gives the file's name."""
    if not sweep:
        return "all"
    return sweep.rstrip("/").rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml")


def _markdown(name: str, data: list[dict[str, Any]], folder: Path, foot: str) -> str:
    pictures = sorted(path.name for path in folder.glob("*.png"))
    latency = [each for each in pictures if each.startswith("latency_")]
    scores = [each for each in pictures if each not in latency]
    parts = [(part[3], found, shown) for part, found, shown in zip(_PARTS, data, (scores, latency), strict=True)]
    return experiment_report(f"Experiment report: {name}", parts, foot=foot)


def _front_page(name: str, data: list[dict[str, Any]], foot: str) -> str:
    parts = [(part[3], part[1], summary_of(found)) for part, found in zip(_PARTS, data, strict=True)]
    return front_page(f"Reports: {name}", parts, foot=foot)


def _report_paths(folder: Path, stamp: str, data: list[dict[str, Any]]) -> ReportPaths:
    return ReportPaths(
        folder=folder,
        front=folder / "report.html",
        pages=tuple(folder / part[1] for part in _PARTS),
        notebooks=tuple(folder / part[0] for part in _PARTS),
        markdown=folder / f"experiment_report_{stamp}.md",
        data=tuple(folder / part[2] for part in _PARTS),
        figures=tuple(sorted(folder.glob("*.png"))),
        simulated=any(found["simulated"] for found in data),
    )
