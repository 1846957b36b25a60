"""`tautools demo`: servers up, a small sweep of real tau2 tasks, two reports; simulated models."""

from __future__ import annotations

from pathlib import Path

import click

from tautools.cli.errors import guard

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools demo                       in ./demo; about two minutes, a second run takes seconds
  tautools demo --workspace /tmp/try  somewhere else
"""


@click.command("demo", epilog=_EPILOG)
@click.option(
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder to make and work in.",
)
@guard
def command(workspace: Path) -> None:
    """Bring simulated servers up, run a small sweep of real tau2 tasks, build two reports."""
    from functools import partial

    from tautools.cli.sweep_progress import watch_sweep
    from tautools.demo import run_demo

    click.echo(f"Demo in {workspace}. The tasks are tau2's own; the models are SIMULATED, and so is every figure.")
    demo = run_demo(workspace, work=partial(watch_sweep, workspace=workspace.absolute()))
    click.echo(str(demo.result))
    if not demo.pages:
        click.echo("The reports are built when the sweep is finished. Next: run `tautools demo` again to go on.")
        raise SystemExit(130 if demo.result.interrupted else 3)
    from tautools.report import how_to_open

    click.echo("Reports (SIMULATED):" if demo.built else "Reports (SIMULATED), built by an earlier run:")
    for page in demo.pages:
        click.echo(f"  {page}")
    click.echo(how_to_open(demo.pages[0].parent / "report.html"))
