"""Run a sweep: plan, servers up, each cell's notebook in a process of its own, servers down. Again, it resumes.

Several settings are worked on at a time. Cells of one setting run one after the other, fewest trials first, so that a
nested cell finds the work that is done already. A failed cell does not stop the others. Whatever ends the run, also an
error or a signal, ends the notebooks first, in good order within the sweep's `grace_s`.

`start_sweep` does the same in a process of its own, so that a notebook's kernel stays free and a closed browser stops
nothing: the command line's own `tautools sweep run`, noted in `claims/<sweep>/runner.json` for any panel to find.
"""

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tautools.errors import ShellError, SweepError
from tautools.files import ensure_folder
from tautools.params.models import SweepParams
from tautools.run.ledger import passed_and_scored
from tautools.run.scheduler import catching_signals
from tautools.run.waiting import read_waiting
from tautools.shell import Process, start_detached, stop_group
from tautools.sweep.cells import expand, runs_folder, select_cells
from tautools.sweep.notebook import NotebookLauncher, run_cell_notebook
from tautools.sweep.plan import PlannedCell, SweepPlan, by_setting, plan_sweep, refreshed
from tautools.sweep.servers import check_endpoints, serving
from tautools.sweep.status import CellAttempt, NotedProcess, SweepEvent, SweepResult, read_note, status_of, write_note

_log = logging.getLogger(__name__)

TICK_S = 1.0
"""How often progress is reported [s]."""

AFTER_GRACE_S = 20.0
"""What a notebook gets, beyond the grace of its conversations, to save itself and end its kernel [s]."""


class Interrupts:
    """Turns SIGINT, SIGTERM, SIGHUP and a stop event into KeyboardInterrupt, at places where that does no harm.

    Between the start of a process and the line that remembers it an interrupt would leave an orphan, so such places are
    shielded: the signal is kept and acts when the shield ends. `stop` is set by who wants the work to end.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._shields = 0
        self._kept = False

    @property
    def asked(self) -> bool:
        """Whether the work should end."""
        return self._kept or self._stop.is_set()

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Delay signals while the block runs; one that came acts at its end, unless an error ends it."""
        self._shields += 1
        try:
            yield
        except BaseException:
            self._kept = False
            raise
        finally:
            self._shields -= 1
        if self._kept and not self._shields:
            self._kept = False
            raise KeyboardInterrupt

    def on_signal(self) -> None:
        """Act now, or at the end of the shield."""
        if not self._shields:
            raise KeyboardInterrupt
        self._kept = True


@dataclass
class _RunningCell:
    """A setting in work: the running cell and those that come after it."""

    cell: PlannedCell
    process: Process
    rest: deque[PlannedCell] = field(repr=False)


class Driver:
    """Executes the notebooks of pending cells, and reports in the thread of `run`."""

    def __init__(
        self, plan: SweepPlan, launcher: NotebookLauncher, progress: "SweepProgress", interrupts: Interrupts
    ) -> None:
        self.executed = 0
        self._sweep = plan.sweep
        self._waiting = deque(deque(group) for group in by_setting(plan.pending_cells))
        self._launcher = launcher
        self._emit = progress.emit
        self._interrupts = interrupts
        self._progress = progress
        self._ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._active: dict[int, _RunningCell] = {}

    def run(self) -> None:
        """Work on the cells until all are tried, or the run should end (KeyboardInterrupt)."""
        try:
            with self._interrupts.shielded():
                while self._waiting or self._active:
                    while self._waiting and len(self._active) < self._sweep.parallel_settings:
                        self._start_next(self._waiting.popleft())
                    if self._active:
                        self._wait()
        finally:
            self._end_all()

    def _start_next(self, cells: deque[PlannedCell]) -> None:
        """Start the first cell that is still pending and that no other process works on."""
        while cells:
            cell = cells.popleft()
            attempt = read_note(self._launcher.attempt_path(cell), CellAttempt)
            if not self._progress.now(cell).pending:
                self._emit("cell_ended", f"{cell}: done already", cell)
            elif attempt is not None and attempt.running:
                self._emit("cell_ended", f"{cell}: process {attempt.pid} on {attempt.host} works on it", cell)
            else:
                self._emit("cell_started", f"{cell}: started", cell)
                # The exit status comes from the thread that saw the process end.
                process = self._launcher.start(cell, partial(self._on_exit, cell.index))
                self._active[cell.index] = _RunningCell(cell, process, cells)
                self.executed += 1
                return

    def _on_exit(self, index: int, code: int) -> None:
        self._ended.put((index, code))

    def _wait(self) -> None:
        """Wait for a notebook to end, at most a tick, and report progress."""
        if self._interrupts.asked:
            raise KeyboardInterrupt
        try:
            index, code = self._ended.get(timeout=TICK_S)
        except queue.Empty:
            self._emit("progress", "")
            return
        ended = self._active.pop(index)
        self._emit("cell_ended", self._ending(ended.cell, code), ended.cell)
        self._start_next(ended.rest)

    def _ending(self, cell: PlannedCell, code: int) -> str:
        now = self._progress.now(cell)
        if not now.pending:
            passed, scored = passed_and_scored(now.prepared.done.values())
            return f"{cell}: done, {passed} of {scored} passed"
        attempt = read_note(self._launcher.attempt_path(cell), CellAttempt)
        cause = attempt.cause if attempt is not None and attempt.finished_at is not None else ""
        return f"{cell}: not finished: {cause or f'its process ended with status {code}'}"

    def _end_all(self) -> None:
        """End every notebook that still runs; on a second request (Ctrl-C twice), end them at once."""
        if not self._active:
            return
        grace_s = self._sweep.grace_s
        self._emit("stopping", f"Stopping {len(self._active)} notebooks; conversations get {grace_s:g} s to finish.")
        try:
            self._signal_all(grace_s + AFTER_GRACE_S)
        except KeyboardInterrupt:
            self._signal_all(0.0)
            raise
        finally:
            self._active.clear()

    def _signal_all(self, term_s: float) -> None:
        pool = ThreadPoolExecutor(max_workers=len(self._active))
        stop = partial(stop_group, term_s=term_s, again_s=term_s + 1.0)
        try:
            for each in [pool.submit(stop, one.process.pid, one.process.started_at) for one in self._active.values()]:
                with contextlib.suppress(ShellError):
                    each.result()
        finally:
            pool.shutdown(wait=False)


class SweepProgress:
    """Counts finished conversations from the ledgers, each line of which is read once, and reports what happens."""

    def __init__(self, plan: SweepPlan, on_event: Callable[[SweepEvent], None] | None) -> None:
        self._plan, self._now, self._on_event = plan, plan, on_event
        self._began = time.monotonic()

    def now(self, cell: PlannedCell) -> PlannedCell:
        """Return a cell with what is finished by now."""
        self._now = self._now.refreshed()
        return next(each for each in self._now.cells if each.index == cell.index)

    def emit(self, kind: str, message: str, cell: PlannedCell | None = None) -> None:
        """Report that something happened, with how far the sweep is by now."""
        if message:
            _log.info("%s", message)
        if self._on_event is None:
            return
        now = self._now = self._now.refreshed()
        event = SweepEvent(
            kind=kind,
            message=message,
            cell=None if cell is None else cell.index,
            done=now.done,
            planned=now.conversations,
            cells_done=len(now.cells) - len(now.pending_cells),
            cells=len(now.cells),
            eta_s=self._eta_s(now.done),
            waiting=next(filter(None, map(read_waiting, {each.prepared.folder for each in now.pending_cells})), ""),
        )
        self._on_event(event)

    def _eta_s(self, done: int) -> float:
        """Return the seconds to the end: by the plan at first, by the pace of this run the more of it is done."""
        share = (done - self._plan.done) / max(1, self._plan.pending)
        took_s = time.monotonic() - self._began
        by_plan_s = max(self._plan.estimate_s - took_s, 0.25 * self._plan.estimate_s * (1 - share))
        by_pace_s = took_s * (1 / share - 1) if share > 0 else by_plan_s
        return (1 - share) * by_plan_s + share * by_pace_s


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
    plan = plan_sweep(sweep, workspace=workspace, only=only)
    progress = SweepProgress(plan, on_event)
    progress.emit("plan", str(plan))
    executed, interrupted = 0, False
    if pending := plan.pending_cells:
        check_endpoints(pending, workspace=workspace)
        launcher = NotebookLauncher(sweep, workspace=workspace, notebook=notebook or run_cell_notebook())
        interrupts = Interrupts(stop)
        driver = Driver(plan, launcher, progress, interrupts)
        report = partial(progress.emit, "server")
        try:
            with (
                catching_signals(interrupts.on_signal, signal.SIGHUP),
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


STOP_MARGIN_S = 30.0
"""Added to the sweep's grace before its process is killed [s]: servers take a moment to stop."""


_COLOUR_VARIABLES = {"FORCE_COLOR", "CLICOLOR_FORCE", "CLICOLOR"}


class SweepProcess(NotedProcess):
    """The process that works on a sweep."""

    log: str
    """What it prints."""
    cells: list[int] | None = None
    """Indices it was asked for; all when None."""


def find_sweep_process(sweep: str, *, workspace: Path) -> SweepProcess | None:
    """Return the last process that was started for a sweep, or None; `alive` says whether it still works."""
    return read_note(_record_path(sweep, workspace), SweepProcess)


def start_sweep(
    sweep: SweepParams, *, workspace: Path, source: str | None = None, only: Sequence[int] | None = None
) -> SweepProcess:
    """Start working on a sweep and return at once.

    Parameters
    ----------
    sweep : SweepParams
        The sweep.
    workspace : Path
        Where everything goes.
    source : str, optional
        The sweep's file or name, as the command line takes it; its name when not given.
    only : sequence of int, optional
        Indices of the cells to work on; all when not given.

    Raises
    ------
    SweepError
        When a process works on this sweep already.
    ParamsError
        When there is no cell with such an index.
    """
    select_cells(expand(sweep), only)
    known = find_sweep_process(sweep.name, workspace=workspace)
    if known is not None and known.alive:
        raise SweepError(
            f"Sweep {sweep.name} is being worked on already, by process {known.pid}.",
            evidence=f"Its log: {known.log}",
            next_step="Watch it, or stop it first.",
        )
    workspace = workspace.expanduser().resolve()
    stamp = time.strftime("%Y%m%d-%H%M%S")
    log = ensure_folder(workspace / "logs") / f"sweep-{sweep.name}_{stamp}-{os.getpid()}.out"
    argv = [sys.executable, "-m", "tautools", "sweep", "run", source or sweep.name, "--workspace", str(workspace)]
    if only is not None:
        argv += ["--cells", ",".join(str(index) for index in only)]
    # Its output goes to a file: a kernel's demand for colours is left out.
    environment = {name: value for name, value in os.environ.items() if name not in _COLOUR_VARIABLES}
    process = start_detached(argv, env=environment | {"TERM": "dumb"}, cwd=Path.cwd(), stdout=log, stderr=log)
    runner = SweepProcess(
        pid=process.pid,
        pid_started_at=process.started_at,
        started_at=time.time(),
        log=str(log),
        cells=None if only is None else list(only),
    )
    write_note(_record_path(sweep.name, workspace), runner)
    return runner


def stop_sweep(sweep: SweepParams, *, workspace: Path) -> None:
    """Ask the process that works on a sweep to stop, and wait until it has; what is unfinished stays pending.

    `SweepError`: no process works on it.
    """
    runner = find_sweep_process(sweep.name, workspace=workspace)
    if runner is None or not runner.alive:
        raise SweepError(f"Nothing is working on sweep {sweep.name}.", next_step="Run it to go on where it stopped.")
    # One SIGTERM only: a second one would cut the grace of running conversations short.
    wait_s = sweep.grace_s + STOP_MARGIN_S
    stop_group(runner.pid, runner.pid_started_at, term_s=wait_s, again_s=wait_s + 1)


def _record_path(sweep: str, workspace: Path) -> Path:
    return workspace / "claims" / sweep / "runner.json"
