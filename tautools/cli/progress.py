"""Progress of servers that start, as bars on a terminal and as plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.progress import TaskID

    from tautools.records import Rung
    from tautools.server import Server, Snapshot

__all__ = ["watch_starts"]


def watch_starts(
    servers: Sequence[Server], *, timeout_s: float | None = None, quiet: bool = False
) -> dict[str, TautoolsError]:
    """Wait for all servers side by side, show how far each is, and return what went wrong, by name.

    Parameters
    ----------
    servers : sequence of Server
        Just launched.
    timeout_s : float, optional
        Most seconds to wait for each; by default only a lack of progress ends the wait.
    quiet : bool
        Show nothing.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, quiet=quiet)
    columns = (
        TextColumn("{task.fields[name]}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    bars = Progress(*columns, console=console, disable=quiet or not console.is_terminal)

    def show(server: Server, task: TaskID, text: str, percent: float) -> None:
        bars.update(task, description=text, completed=percent)
        if not console.is_terminal:
            console.print(f"{server.name}: {text}", highlight=False)

    failures: dict[str, BaseException] = {}

    def wait(server: Server, tell: Callable[[str, float], None]) -> None:
        try:
            _wait(server, timeout_s, tell)
        except BaseException as error:  # noqa: BLE001 - raised again where the threads are waited for
            failures[server.name] = error
            tell(f"{type(error).__name__}: {getattr(error, 'problem', error)}", 100)

    with bars:
        threads = []
        for server in servers:
            tell = partial(show, server, bars.add_task("starting", total=100, name=server.name))
            # Daemons, so that Ctrl-C ends the wait and not only the waiting for it; the servers go on starting.
            threads.append(threading.Thread(target=wait, args=(server, tell), daemon=True))
            threads[-1].start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
    return _told(failures)


def _told(failures: dict[str, BaseException]) -> dict[str, TautoolsError]:
    told: dict[str, TautoolsError] = {}
    for name, error in failures.items():
        if not isinstance(error, TautoolsError):
            raise error
        told[name] = error
    return told


def _wait(server: Server, timeout_s: float | None, show: Callable[[str, float], None]) -> None:
    def on_progress(snapshot: Snapshot) -> None:
        show(str(snapshot), snapshot.percent or 0)

    def on_rung(rung: Rung) -> None:
        word = {True: "ok", False: "failed", None: "does not apply"}[rung.passed]
        show(f"verifying: {rung.name} {word}", 99)

    server.wait_ready(timeout_s, on_progress=on_progress, on_rung=on_rung)
    show("ready", 100)
