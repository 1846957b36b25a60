"""`tautools server up --resubmit N`: jobs whose cards were held by others are submitted again, away from that node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.errors import TautoolsError
    from tautools.params.models import SiteParams
    from tautools.server import Server

__all__ = ["check_resubmit", "resubmit_option", "wait_and_resubmit"]

resubmit_option = click.option(
    "--resubmit",
    "tries",
    type=click.IntRange(0, 20),
    default=0,
    metavar="N",
    help="Submit a job up to N times more, without the node, when others hold its cards there.",
)


def check_resubmit(tries: int, site: SiteParams | None, *, no_wait: bool, one_job: bool = False) -> None:
    """Raise a usage error where nobody would be there to submit again, or several servers share the job."""
    if tries and one_job:
        raise click.UsageError("--resubmit is for a job of one server; leave out --one-job")
    if tries and no_wait:
        raise click.UsageError("--resubmit waits for the jobs; leave out --no-wait")
    if tries and (site is None or site.scheduler != "slurm"):
        raise click.UsageError("--resubmit is for a site with Slurm, such as --site sol-gaudi")


def wait_and_resubmit(
    servers: list[Server], tries: int, *, workspace: Path, timeout_s: float | None, quiet: bool
) -> dict[str, TautoolsError]:
    """Wait for all servers, submitting again those whose cards were held; return what went wrong at last, by name.

    Parameters
    ----------
    servers : list of Server
        Just launched; a server that was submitted again takes the place of its former launch.
    tries : int
        Most submissions more of each.
    workspace, timeout_s, quiet
        As of `watch_starts`.
    """
    from tautools.cli.progress import watch_starts
    from tautools.server.cards.elsewhere import held_node, resubmit

    failures = watch_starts(servers, timeout_s=timeout_s, quiet=quiet)
    for number in range(1, tries + 1):
        again = []
        for place, server in enumerate(servers):
            node = held_node(server.record) if server.name in failures else None
            if node is None:
                continue
            servers[place] = resubmit(server.record, node, workspace=workspace)
            again.append(servers[place])
            told = f"the cards of {node} are held by others; submitted again without it"
            click.echo(f"{server.name}: {told}, job {servers[place].record.job_id} ({number} of {tries})", err=True)
        if not again:
            break
        names = {server.name for server in again}
        left = {name: error for name, error in failures.items() if name not in names}
        failures = left | watch_starts(again, timeout_s=timeout_s, quiet=quiet)
    return failures
