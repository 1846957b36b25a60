"""Builds the reports of a sweep: runs the two notebooks through papermill and turns them into pages.

The notebooks compute, show and save; the pages, the Markdown and the JSON files all show the figures of that one
computation. Pages need no other file: nbconvert's `basic` template gives the notebook's inside without the scripts
that its full pages fetch; the page around it is ours and reads in light and in dark.
"""

import getpass
import json
import shlex
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import tautools
from tautools.errors import RecordError, RunError
from tautools.files import ensure_folder, packaged_text, write_atomic
from tautools.params import shipped
from tautools.report.cells import find_cells
from tautools.report.formatting import Summary
from tautools.sweep.notebook import execute_notebook

CELL_TIMEOUT_S = 1800
"""Longest time that one cell may take [s]."""


class _Part(NamedTuple):
    """One of the reports: its notebook, and what is made of it."""

    notebook: str
    page: str
    data: str
    heading: str
    figures: str


_PARTS = (
    _Part("30_pass_k.ipynb", "pass_k.html", "pass_k.json", "Scores: pass^k and pass@k", "pass_*.png"),
    _Part("31_latency.ipynb", "latency.html", "profile_analysis.json", "Latency", "latency_*.png"),
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

    Returns
    -------
    ReportPaths
        Where they are; `front` is the page to open.

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
    markdown = [f"# Experiment report: {name}", ""]
    front = [f"<h1>{escape(f'Reports: {name}')}</h1>"]
    simulated = False
    for part in _PARTS:
        executed = folder / part.notebook
        source = shipped("notebooks") / part.notebook
        execute_report(source, executed, parameters=parameters, folder=workspace, on_progress=on_progress)
        write_atomic(folder / part.page, _page(f"{part.heading}: {name}", _notebook_html(executed), foot))
        data = json.loads((folder / part.data).read_bytes())
        first, second = data["summary"]
        summary = Summary(first, second, bool(data["simulated"]))
        simulated = simulated or summary.simulated
        front += [f'<h2><a href="{part.page}">{escape(part.heading)}</a></h2>', summary._repr_html_()]
        markdown += [f"## {part.heading}", "", summary.to_markdown()]
        markdown += [f"![{figure.stem}]({figure.name})\n" for figure in sorted(folder.glob(part.figures))]
        markdown += data["tables"]
    paths = ReportPaths(
        folder=folder,
        front=folder / "report.html",
        pages=tuple(folder / part.page for part in _PARTS),
        notebooks=tuple(folder / part.notebook for part in _PARTS),
        markdown=folder / f"experiment_report_{stamp}.md",
        data=tuple(folder / part.data for part in _PARTS),
        figures=tuple(sorted(folder.glob("*.png"))),
        simulated=simulated,
    )
    write_atomic(paths.markdown, "\n".join([*markdown, foot, ""]))
    write_atomic(paths.front, _page(f"Reports: {name}", "\n".join(front), foot))
    return paths


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


def _page(title: str, body: str, foot: str) -> str:
    """Return a whole page around `body`, which is HTML already."""
    css = packaged_text("tautools.report", "page.css")
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>\n{css}</style>\n</head>\n'
        f'<body>\n{body}\n<p class="tau-foot">{escape(foot)}</p>\n</body>\n</html>\n'
    )


def _notebook_html(notebook: Path) -> str:
    """Return the inside of an executed notebook: prose and results, no code, no widget state."""
    import nbformat
    from nbconvert import HTMLExporter

    # Widget state would draw an empty field without its scripts; without it the stored table is shown.
    node = nbformat.read(notebook, as_version=4)
    node.metadata.pop("widgets", None)
    exporter = HTMLExporter(
        template_name="basic",
        exclude_input=True,
        exclude_input_prompt=True,
        exclude_output_prompt=True,
        embed_images=True,
        anchor_link_text="",
    )
    body, _ = exporter.from_notebook_node(node)
    return str(body)


def how_to_open(page: Path, *, port: int = 8000) -> str:
    """Return the ways to open a page from a remote session: copying it, JupyterLab, a tunnel to a loopback server.

    Parameters
    ----------
    page : Path
        The page.
    port : int
        Of the loopback server that the text proposes.

    Returns
    -------
    str
        Lines for a person, with commands to copy.
    """
    there = f"{getpass.getuser()}@{socket.gethostname()}"
    folder = shlex.quote(str(page.parent))
    source = shlex.quote(f"{there}:{page.parent}")
    return "\n".join(
        [
            "To open it:",
            f"  on this machine     {page.as_uri()}",
            f"  in JupyterLab       right click {page.name} in the file browser, Open in New Browser Tab",
            f"  copied to yours     scp -r {source} .",
            f"  through a tunnel    here:  python -m http.server {port} --bind 127.0.0.1 --directory {folder}",
            f"                      yours: ssh -L {port}:127.0.0.1:{port} {there}",
            f"                      then   http://127.0.0.1:{port}/{page.name}",
            "                      (while it runs, everyone who is logged in here can read that folder)",
        ]
    )
