"""Restart a server away from a node whose cards were held by others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tautools.errors import ServerError
from tautools.params.models import ServerParams, SiteParams
from tautools.servers.start import Restart, restart
from tautools.servers.state import log_lines

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.records import ServerRecord
    from tautools.servers.server import Server


_HELD_CARDS = re.compile(r"ERROR: \d+ idle cards are needed on .* submit again with --exclude=(\S+)")
"""What the job itself says before the engine starts; see `cards_job`."""
_NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\[\],-]*")


def held_node(record: ServerRecord) -> str | None:
    """Return the node whose cards were held by others, by the job's log; None when it tells of none."""
    if record.backend != "slurm":
        return None
    found = [match[1] for line in log_lines(record) if (match := _HELD_CARDS.search(line))]
    return found[-1] if found else None


def exclude_node(plan: Restart, node: str = "") -> Restart:
    """Return the relaunch with a node left out, beside those that were left out before.

    Parameters
    ----------
    plan : Relaunch
        Of a server that is a job of Slurm.
    node : str
        A node, or several as Slurm writes them; empty: the one whose cards were held, by the failed job's log.

    Raises
    ------
    ServerError
        When the server is no job, or its log names no node and none is given, or it cannot be a node's name.
    """
    record = plan.record
    if record.backend != "slurm":
        raise ServerError(
            f"Server {record.name!r} is no job of Slurm, so it has no node to leave out.",
            next_step=f"Start it again with `tautools server relaunch {record.name}`.",
        )
    node = node or held_node(record) or ""
    if not _NODE_NAME.fullmatch(node):
        raise ServerError(
            f"{node!r} cannot be the name of a node."
            if node
            else f"The log of server {record.name!r} names no node whose cards are held.",
            next_step=f"Name it: `tautools server relaunch {record.name} --exclude NODE`.",
        )
    old = SiteParams.model_validate(record.site).exclude
    new = [*old, *([] if node in old else [node])]
    site = dict(record.site) | {"exclude": new}
    told = f"site.exclude: {','.join(old) or 'not set'} -> {','.join(new)}"
    return Restart(
        record.model_copy(update={"site": site}),
        plan.params,
        [*plan.changes, *([told] if new != old else [])],
        plan.diagnosis,
    )


def resubmit(record: ServerRecord, node: str, *, workspace: Path) -> Server:
    """Submit a server again whose job ended on a node with held cards, with that node left out."""
    plan = Restart(record, ServerParams.model_validate(record.spec), [], None)
    return restart(exclude_node(plan, node), workspace=workspace)
