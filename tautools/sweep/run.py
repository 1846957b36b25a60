"""Run a sweep: plan, servers up, notebooks, servers down, result. Running it again resumes it."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from tautools.sweep.drive import Driver, Interrupts
from tautools.sweep.notebook import NotebookLauncher, run_cell_notebook
from tautools.sweep.plan import by_setting, plan_sweep
from tautools.sweep.servers import check_endpoints, serving
from tautools.sweep.status import SweepEvent, SweepResult, sweep_status

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tautools.params.models import SweepParams
    from tautools.sweep.plan import SweepPlan


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
    """Bring up the servers a sweep needs, execute its pending cells, stop what was started.

    Cells with nothing pending are left alone: when all are done, no server and no kernel is started. SIGINT, SIGTERM
    and `stop` end it in good order: running conversations finish within `grace_s` or stay pending.

    Parameters
    ----------
    sweep : SweepParams
        The sweep.
    workspace : Path
        Where everything goes.
    only : sequence of int, optional
        Indices of the cells to work on; all when not given.
    on_event : callable, optional
        Told what happens, in the caller's thread.
    stop : threading.Event, optional
        Set it from another thread to end the run.
    notebook : Path, optional
        The notebook to execute for each cell; the shipped one when not given.

    Raises
    ------
    TautoolsError
        Bad input, before anything is started; or a server that cannot be started or proven.
    """
    workspace = workspace.expanduser().resolve()
    tell = _reporter(on_event)
    began = time.monotonic()
    plan = plan_sweep(sweep, workspace=workspace, only=only)
    tell(_plan_event(plan))
    executed, interrupted = 0, False
    if plan.pending_cells:
        check_endpoints([cell.cell for cell in plan.pending_cells], workspace=workspace)
        launcher = NotebookLauncher(sweep, workspace=workspace, notebook=notebook or run_cell_notebook())
        interrupts = Interrupts(stop)
        driver = Driver(plan, launcher, parallel=sweep.parallel_settings, tell=tell, interrupts=interrupts)
        try:
            with interrupts.installed():
                _run_pending(plan, driver, interrupts, workspace)
        except KeyboardInterrupt:
            interrupted = True
        executed = driver.executed
    return SweepResult(
        sweep=sweep.name,
        cells=sweep_status(sweep, workspace=workspace, only=only),
        executed=executed,
        interrupted=interrupted,
        took_s=time.monotonic() - began,
    )


def _reporter(on_event: Callable[[SweepEvent], None] | None) -> Callable[[SweepEvent], None]:
    """Return what passes an event on and logs what it says."""

    def tell(event: SweepEvent) -> None:
        if event.message:
            _log.info("%s", event.message)
        if on_event is not None:
            on_event(event)

    return tell


def _run_pending(plan: SweepPlan, driver: Driver, interrupts: Interrupts, workspace: Path) -> None:
    tell_server = partial(driver.say, "server")
    cells = [cell.cell for cell in plan.pending_cells]
    with serving(cells, workspace=workspace, site=plan.sweep.site, tell=tell_server, shield=interrupts.shielded):
        driver.run(by_setting(plan.pending_cells))


def _plan_event(plan: SweepPlan) -> SweepEvent:
    return SweepEvent(
        "plan",
        str(plan),
        done=plan.done,
        planned=plan.conversations,
        cells_done=len(plan.cells) - len(plan.pending_cells),
        cells=len(plan.cells),
        eta_s=plan.estimate_s,
    )
