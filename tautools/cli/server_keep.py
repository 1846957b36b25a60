"""`--idle-stop` and `--lease` of `tautools server up`: servers that end by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from tautools.errors import TautoolsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.server import Server
    from tautools.server.keeping import Terms

__all__ = ["keep_all", "keep_options", "terms_of"]

F = TypeVar("F", bound="Callable[..., Any]")


def keep_options(function: F) -> F:
    """Add `--idle-stop` and `--lease` as `idle_stop: float | None` and `lease: str | None`."""
    lease = click.option(
        "--lease",
        metavar="PID|kernel",
        help="Stop when this process, or the notebook kernel it is typed in, is gone and nothing uses the server.",
    )
    idle = click.option(
        "--idle-stop", type=click.FloatRange(0, min_open=True), metavar="MIN", help="Stop after minutes of no request."
    )
    return idle(lease(function))


def terms_of(idle_stop: float | None, lease: str | None) -> Terms | None:
    """Return when servers shall end, None when never; an owner that is not there is said before anything starts."""
    if idle_stop is None and lease is None:
        return None
    from tautools.server.keeping import Terms, kernel_of, owner_process

    owner = None
    if lease == "kernel":
        owner = kernel_of()
    elif lease is not None:
        if not (lease.isascii() and lease.isdecimal()):
            raise click.UsageError(f"--lease {lease!r}: give the pid of a process, or the word kernel")
        owner = owner_process(int(lease))
    idle_s = None if idle_stop is None else idle_stop * 60
    return Terms(idle_s, owner, every_s=min(15.0, max(0.5, (idle_s or 60) / 4)))


def keep_all(servers: Sequence[Server], terms: Terms | None) -> None:
    """Start a keeper for each server that has not failed; one that cannot be started is said and hinders nothing."""
    if terms is None:
        return
    from tautools.server.keeping import keep

    for server in servers:
        if server.state().state.final:
            continue
        try:
            keep(server, terms)
        except TautoolsError as error:
            click.secho(f"{server.name} will not end by itself: {error}", err=True, fg="red")
