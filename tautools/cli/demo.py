"""`tautools demo`: servers up, a small sweep of real tau2 tasks, two reports; simulated models."""

from __future__ import annotations

from pathlib import Path

import click

from tautools.cli.errors import EXIT_INTERRUPTED, EXIT_UNFINISHED, guard

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
    from tautools.cli.sweep_progress import shown_progress
    from tautools.demo import run_demo

    click.echo(f"Demo in {workspace}. The tasks are tau2's own; the models are SIMULATED, and so is every figure.")
    with shown_progress() as on_event:
        demo = run_demo(workspace, on_event=on_event)
    click.echo(str(demo.result))
    if not demo.pages:
        click.echo("The reports are built when the sweep is finished. Next: run `tautools demo` again to go on.")
        raise SystemExit(EXIT_INTERRUPTED if demo.result.interrupted else EXIT_UNFINISHED)
    from tautools.report import how_to_open

    click.echo("Reports (SIMULATED):" if demo.built else "Reports (SIMULATED), built by an earlier run:")
    for page in demo.pages:
        click.echo(f"  {page}")
    click.echo(how_to_open(demo.pages[0].parent / "report.html"))
