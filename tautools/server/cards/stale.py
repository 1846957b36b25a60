"""Own processes that hold a card and belong to no server of the workspace: named, and stopped on request.

Two steps, because what is left over here may be somebody's work elsewhere: `stale_holders` names them, and only those
named again by pid and start time are stopped.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from tautools.errors import ParamsError
from tautools.shell import group_members, stop_process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.server.cards.holders import Holder
    from tautools.server.cards.node import Card
    from tautools.server.registry import Registry

__all__ = ["stale_holders", "stop_stale"]


def stale_holders(cards: Sequence[Card], registry: Registry) -> list[Holder]:
    """Return this user's processes on the cards that no registered server owns, each once, by pid."""
    ours = {os.getpid()}
    for record in registry.list():
        if record.pid is not None and record.pid_started_at is not None and record.host in {"", socket.gethostname()}:
            ours.update(group_members(record.pid, record.pid_started_at))
    found = {holder.pid: holder for card in cards for holder in card.holders}
    return [found[pid] for pid in sorted(found) if found[pid].mine and pid not in ours]


def stop_stale(
    confirmed: Sequence[str],
    cards: Sequence[Card],
    registry: Registry,
    *,
    term_s: float = 10.0,
    tell: Callable[[Holder], None] | None = None,
) -> list[Holder]:
    """Stop the confirmed processes, each alone, and return them.

    Parameters
    ----------
    confirmed : sequence of str
        `PID@START` of each, as `Holder.token` says.
    cards, registry
        What was read just now: who is not stale any more is not stopped.
    term_s : float
        Seconds each gets to end in good order before SIGKILL.
    tell : callable, optional
        Told each process when it has ended.

    Raises
    ------
    ParamsError
        When one of them is not such a process now; none is stopped then.
    ShellError
        When a process does not end.
    """
    stale = {holder.token: holder for holder in stale_holders(cards, registry)}
    unknown = [token for token in confirmed if token not in stale]
    if unknown:
        raise ParamsError(
            f"{unknown[0]!r} is not a stale process of yours on a card; nothing was stopped.",
            evidence=f"There are: {', '.join(stale)}." if stale else "There is none now.",
            next_step="Run `tautools server cards --stop-stale` again and confirm what it names.",
        )
    chosen = [stale[token] for token in dict.fromkeys(confirmed)]
    for holder in chosen:
        stop_process(holder.pid, holder.started_at, term_s=term_s)
        if tell is not None:
            tell(holder)
    return chosen
