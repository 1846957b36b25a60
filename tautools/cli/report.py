"""`tautools report`: both reports of a sweep, and how to open them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import ParamsName, json_option, workspace_option

if TYPE_CHECKING:
    from tautools.report import ReportPaths

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools report
  tautools report --sweep demo
  tautools report --sweep sol-gaudi-120 --out ~/reports/friday --json
"""


@click.command("report", epilog=_EPILOG)
@click.option(
    "--sweep",
    type=ParamsName("sweeps"),
    metavar="NAME",
    help="Sweep file by name or path; everything under results/ when not given.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="Folder to write into; reports/<sweep>/<time>/ of the workspace when not given.")  # fmt: skip
@workspace_option
@json_option
@guard
def command(sweep: str | None, out: Path | None, workspace: Path, as_json: bool) -> None:
    """Write the reports on scores and latency: HTML pages, Markdown, JSON and figures.

    Executes the notebooks 30_pass_k and 31_latency on the results of a workspace. No model is asked. Exit status 1 when
    there is nothing to report yet.
    """
    from tautools.report import build_reports, how_to_open

    paths = build_reports(workspace=workspace, sweep=sweep, out=out.expanduser() if out else None)
    if as_json:
        click.echo(json.dumps(_as_json(paths)))
        return
    click.echo(str(paths))
    click.echo(how_to_open(paths.front))


def _as_json(paths: ReportPaths) -> dict[str, object]:
    return {
        "folder": str(paths.folder),
        "front": str(paths.front),
        "pages": [str(path) for path in paths.pages],
        "notebooks": [str(path) for path in paths.notebooks],
        "markdown": str(paths.markdown),
        "data": [str(path) for path in paths.data],
        "figures": [str(path) for path in paths.figures],
        "simulated": paths.simulated,
    }
