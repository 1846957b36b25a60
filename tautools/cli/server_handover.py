"""`tautools server handover`: the next job of a server takes over its name before the time limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import workspace_option

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.server import Snapshot

__all__ = ["handover"]


@click.command(
    epilog="\b\nExamples:\n  tautools server handover qwen3-32b\n  tautools server handover qwen3-32b --lead 60 &"
)
@click.argument("name")
@click.option(
    "--lead", type=click.FloatRange(0), default=30, show_default=True, help="Minutes before the time limit to begin."
)
@workspace_option
@guard
def handover(name: str, lead: float, workspace: Path) -> None:
    """Start the successor of a server on Slurm and let it take over the name.

    It begins LEAD minutes before the time limit of the running job, is proven, gets the name, and the old job ends.
    Interrupted, it goes on where it was when it is called again.
    """
    from tautools.server.on_slurm.handover import hand_over

    def tell(seen: Snapshot) -> None:
        click.echo(f"{name}.next: {seen}", err=True)

    server = hand_over(name, workspace=workspace, lead_s=lead * 60, on_progress=tell)
    click.echo(f"{name}: {server.record.base_url}  model {server.record.model}  job {server.record.job_id}")
