"""`tautools demo`: simulated servers, a small sweep of real tau2 tasks, two reports.

Running it again finds everything done: no server is started, no model is called, and the reports are those of before.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tautools.cli.commands import EXIT_INTERRUPTED, EXIT_UNFINISHED, command
from tautools.cli.options import dry_run_option
from tautools.cli.output import progress_bars, sweep_progress
from tautools.params import load_sweep

if TYPE_CHECKING:
    from tautools.sweep import SweepResult

DEMO_SWEEP = "demo"
"""The sweep file that is run; with `--full` it is `demo-full`."""

REPORTS_S = 15.0
"""What building the two reports is taken to last [s]; measured on two cores."""

_PAGES = ("pass_k.html", "latency.html")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration came to."""

    result: SweepResult
    pages: tuple[Path, ...]
    """The two reports; none when the sweep is not finished."""
    built: bool
    """Whether the reports were built by this run."""


def run_demo(workspace: Path, *, sweep: str = DEMO_SWEEP) -> DemoResult:
    """Make the workspace, run the sweep, build the reports, and show how far each of them is."""
    click.echo("Loading the benchmark's tasks.")
    from rich.progress import TextColumn, TimeElapsedColumn

    from tautools.report import build_reports
    from tautools.session import plan_init, write_workspace
    from tautools.sweep import run_sweep

    workspace = workspace.expanduser().absolute()
    write_workspace(plan_init(workspace, copy_params=False))
    with sweep_progress() as on_event:
        result = run_sweep(load_sweep(sweep, workspace=workspace), workspace=workspace, on_event=on_event)
    known = () if result.executed or not result.finished else _earlier_pages(workspace, sweep)
    if known or not result.finished:
        return DemoResult(result, known, built=False)
    click.echo(f"{result}\nBuilding two reports: about {REPORTS_S:.0f} s")
    with progress_bars(TimeElapsedColumn(), TextColumn("{task.description}"), quiet=False, transient=True) as bars:
        task = bars.add_task("")
        built = build_reports(
            workspace=workspace, sweep=sweep, on_progress=lambda line: bars.update(task, description=line)
        )
    return DemoResult(result, built.pages, built=True)


def _earlier_pages(workspace: Path, sweep: str) -> tuple[Path, ...]:
    """Return the newest complete pair of reports, or nothing."""
    for folder in sorted((workspace / "reports" / sweep).glob("*"), reverse=True):
        pages = tuple(folder / name for name in _PAGES)
        if all(page.is_file() for page in (*pages, folder / "report.html")):
            return pages
    return ()


@command(
    "tautools demo                       in ./demo; about a minute, a second run takes seconds",
    "tautools demo --full                all three strategies; about two minutes",
    "tautools demo --workspace /tmp/try  somewhere else",
    "tautools demo --dry-run             what would be started, and how many conversations",
    name="demo",
)
@click.option("--workspace", type=click.Path(file_okay=False, path_type=Path), default=Path("demo"), show_default=True,
              help="Folder to make and work in.")  # fmt: skip
@click.option("--full", is_flag=True, help="Run the sweep demo-full: three strategies in place of one.")
@dry_run_option
def demo_command(workspace: Path, *, full: bool, dry_run: bool) -> None:
    """Start simulated servers, run a small sweep of real tau2 tasks, build two reports."""
    sweep = f"{DEMO_SWEEP}-full" if full else DEMO_SWEEP
    click.echo(f"Demo in {workspace}. The tasks are tau2's own; the models are SIMULATED, and so is every figure.")
    if dry_run:
        from tautools.sweep import plan_sweep

        workspace = workspace.expanduser().absolute()
        click.echo(str(plan_sweep(load_sweep(sweep, workspace=workspace), workspace=workspace)))
        click.echo("Then two reports are built. Nothing was started and nothing was written.")
        return
    demo = run_demo(workspace, sweep=sweep)
    if not demo.built:
        click.echo(str(demo.result))
    if not demo.pages:
        click.echo("The reports are built when the sweep is finished. Next: run `tautools demo` again to go on.")
        raise SystemExit(EXIT_INTERRUPTED if demo.result.interrupted else EXIT_UNFINISHED)
    from tautools.report import how_to_open

    click.echo("Reports (SIMULATED):" if demo.built else "Reports (SIMULATED), built by an earlier run:")
    for page in demo.pages:
        click.echo(f"  {page}")
    click.echo(how_to_open(demo.pages[0].parent / "report.html"))
