"""Run a sweep: plan, servers up, notebooks, servers down, result. Running it again resumes it."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from tautools.sweep.cells import runs_folder
from tautools.sweep.drive import Driver, Interrupts
from tautools.sweep.notebook import NotebookLauncher, run_cell_notebook
from tautools.sweep.plan import plan_sweep, refreshed
from tautools.sweep.servers import check_endpoints, serving
from tautools.sweep.status import SweepEvent, SweepResult, status_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tautools.params.models import SweepParams

_log = logging.getLogger(__name__)


def run_sweep(
    sweep: SweepParams,
    *,
    workspace: Path,
    only: Sequence[int] | None = None,
    on_event: Callable[[SweepEvent], None] | None = None,
    stop: threading.Event | None = None,
    notebook: Path | None = None,
) -> SweepResult:
    """Start the servers a sweep needs, execute its pending cells, stop what was started.

    Finished cells are left alone: when all are finished, no server and no kernel is started. SIGINT, SIGTERM and `stop`
    end it in good order: running conversations finish within `grace_s` or stay pending.

    Parameters
    ----------
    sweep : SweepParams
        The sweep.
    workspace : Path
        Where everything goes.
    only : sequence of int, optional
        Indices of the cells to work on; all when not given.
    on_event : callable, optional
        Receives what happens, in the caller's thread.
    stop : threading.Event, optional
        Set it from another thread to end the run.
    notebook : Path, optional
        The notebook to execute for each cell; the shipped one when not given.

    Raises
    ------
    TautoolsError
        Bad input, before anything is started; or a server that cannot be started or verified.
    """
    workspace = workspace.expanduser().resolve()
    began = time.monotonic()

    def emit(event: SweepEvent) -> None:
        if event.message:
            _log.info("%s", event.message)
        if on_event is not None:
            on_event(event)

    plan = plan_sweep(sweep, workspace=workspace, only=only)
    pending = [cell.cell for cell in plan.pending_cells]
    emit(
        SweepEvent(
            "plan",
            str(plan),
            done=plan.done,
            planned=plan.conversations,
            cells_done=len(plan.cells) - len(pending),
            cells=len(plan.cells),
            eta_s=plan.estimate_s,
        )
    )
    executed, interrupted = 0, False
    if pending:
        check_endpoints(pending, workspace=workspace)
        launcher = NotebookLauncher(sweep, workspace=workspace, notebook=notebook or run_cell_notebook())
        interrupts = Interrupts(stop)
        driver = Driver(plan, launcher, emit=emit, interrupts=interrupts)
        report = partial(driver.emit, "server")
        try:
            with (
                interrupts.installed(),
                serving(pending, workspace=workspace, site=sweep.site, report=report, shield=interrupts.shielded),
            ):
                driver.run()
        except KeyboardInterrupt:
            interrupted = True
        executed = driver.executed
    return SweepResult(
        sweep=sweep.name,
        cells=status_of(refreshed(plan.cells), runs_folder(workspace, sweep.name)),
        executed=executed,
        interrupted=interrupted,
        took_s=time.monotonic() - began,
    )
