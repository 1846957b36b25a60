"""Work on many cells: each one's notebook in a process of its own, several settings at a time.

Cells of one setting run one after the other, fewest trials first, so that a nested cell finds the work that is done
already. A failed cell does not stop the others. Whatever ends the run, also an error or a signal, ends the notebooks
first, in good order within the sweep's `grace_s`.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tautools.errors import ShellError
from tautools.run.ledger import Ledger
from tautools.shell import Process, stop_group
from tautools.sweep.status import SweepEvent, read_attempt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tautools.sweep.notebook import NotebookLauncher
    from tautools.sweep.plan import PlannedCell, SweepPlan


class Interrupts:
    """Turns SIGINT, SIGTERM, SIGHUP and a stop event into KeyboardInterrupt, at places that can bear it.

    Parameters
    ----------
    stop : threading.Event, optional
        Set by another thread that wants the work to end; looked at by `asked`.
    """

    def __init__(self, stop: threading.Event | None = None) -> None:
        self._stop = stop or threading.Event()
        self._shields = 0
        self._kept = False

    @property
    def asked(self) -> bool:
        """Whether somebody wants the work to end."""
        return self._kept or self._stop.is_set()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Take over the signals while the block runs; outside the main thread, where none arrive, do nothing."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                # None: a handler that was not set from Python and cannot be put back from here.
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    @contextlib.contextmanager
    def shielded(self) -> Iterator[None]:
        """Keep signals back while the block runs; one that came acts at its end, unless an error ends it."""
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

    def _on_signal(self, _number: int, _frame: Any) -> None:
        if self._shields:
            self._kept = True
            return
        raise KeyboardInterrupt


TICK_S = 1.0
"""How often progress is told [s]."""

AFTER_GRACE_S = 20.0
"""What a notebook gets, beyond the grace of its conversations, to save itself and end its kernel [s]."""


@dataclass
class _RunningCell:
    """A setting that is being worked on: the cell at work and those that come after it."""

    cell: PlannedCell
    process: Process
    rest: deque[PlannedCell] = field(repr=False)


class Driver:
    """Executes the notebooks of pending cells.

    Parameters
    ----------
    plan : SweepPlan
        The cells.
    launcher : Launcher
        Starts a cell's notebook.
    parallel : int
        Settings at a time.
    tell : callable
        Told every `SweepEvent`, in this thread.
    interrupts : Interrupts
        Says when somebody wants the run to end.
    """

    def __init__(
        self,
        plan: SweepPlan,
        launcher: NotebookLauncher,
        *,
        parallel: int,
        tell: Callable[[SweepEvent], None],
        interrupts: Interrupts,
    ) -> None:
        self._launcher = launcher
        self._parallel = parallel
        self._tell = tell
        self._interrupts = interrupts
        self._grace_s = plan.sweep.grace_s
        self._progress = _Progress(plan)
        self._ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._active: dict[int, _RunningCell] = {}
        self.executed = 0

    def run(self, groups: Sequence[Sequence[PlannedCell]]) -> None:
        """Work on groups of cells until all are tried, or somebody wants it to end (KeyboardInterrupt)."""
        waiting = deque(deque(group) for group in groups)
        try:
            with self._interrupts.shielded():
                while waiting or self._active:
                    while waiting and len(self._active) < self._parallel:
                        self._start_next(waiting.popleft())
                    if self._active:
                        self._wait()
        finally:
            self._end_all()

    def _start_next(self, cells: deque[PlannedCell]) -> None:
        """Start the first cell that still owes something and is not being worked on by another process."""
        while cells:
            cell = cells.popleft()
            attempt = read_attempt(self._launcher.state_path(cell))
            if not self._progress.owes(cell):
                self.say("cell_ended", f"{cell.cell}: done already", cell)
            elif attempt is not None and attempt.running:
                self.say("cell_ended", f"{cell.cell}: process {attempt.pid} on {attempt.host} works on it", cell)
            else:
                self.say("cell_started", f"{cell.cell}: started", cell)
                process = self._launcher.start(cell, partial(self._on_exit, cell.cell.index))
                self._active[cell.cell.index] = _RunningCell(cell, process, cells)
                self.executed += 1
                return

    def _on_exit(self, index: int, code: int) -> None:
        """Take note that a process ended; called from the thread that saw it."""
        self._ended.put((index, code))

    def _wait(self) -> None:
        """Wait for a notebook to end, at most a tick, and tell how far things are."""
        if self._interrupts.asked:
            raise KeyboardInterrupt
        try:
            index, code = self._ended.get(timeout=TICK_S)
        except queue.Empty:
            self.say("progress", "")
            return
        working = self._active.pop(index)
        self.say("cell_ended", self._ending(working.cell, code), working.cell)
        self._start_next(working.rest)

    def _ending(self, cell: PlannedCell, code: int) -> str:
        if not self._progress.owes(cell):
            return f"{cell.cell}: done"
        attempt = read_attempt(self._launcher.state_path(cell))
        cause = attempt.cause if attempt is not None and attempt.finished_at is not None else ""
        cause = cause or f"its process ended with status {code}"
        return f"{cell.cell}: not finished: {cause}"

    def say(self, kind: str, message: str, cell: PlannedCell | None = None) -> None:
        """Tell that something happened, with how far the sweep is by now."""
        self._tell(self._progress.event(kind, message, None if cell is None else cell.cell.index))

    def _end_all(self) -> None:
        """End every notebook that still runs; asked again (Ctrl-C twice), end them at once."""
        if not self._active:
            return
        grace = f"conversations get {self._grace_s:g} s to finish"
        self.say("stopping", f"Stopping {len(self._active)} notebooks; {grace}.")
        try:
            self._signal_all(self._grace_s + AFTER_GRACE_S)
        except KeyboardInterrupt:
            self._signal_all(0.0)
            raise
        finally:
            self._active.clear()

    def _signal_all(self, term_s: float) -> None:
        processes = [working.process for working in self._active.values()]
        pool = ThreadPoolExecutor(max_workers=len(processes))
        try:
            for done in [pool.submit(_stop_process, process, term_s) for process in processes]:
                done.result()
        finally:
            pool.shutdown(wait=False)


def _stop_process(process: Process, term_s: float) -> None:
    with contextlib.suppress(ShellError):
        stop_group(process.pid, process.started_at, term_s=term_s, again_s=term_s + 1.0)


class _Progress:
    """Counts finished conversations from the ledgers, each line of which is read once."""

    def __init__(self, plan: SweepPlan) -> None:
        self._cells = plan.cells
        self._ledgers = {cell.prepared.setting.id: Ledger(cell.prepared.folder) for cell in plan.cells}
        self._keys = {cell.cell.index: cell.keys for cell in plan.cells}
        self._all = frozenset().union(*self._keys.values())
        self._done_before = plan.done
        self._began = time.monotonic()

    def owes(self, cell: PlannedCell) -> bool:
        """Whether a cell owes anything now."""
        ledger = self._ledgers[cell.prepared.setting.id].refresh()
        return not self._keys[cell.cell.index] <= ledger.rows().keys()

    def event(self, kind: str, message: str, cell: int | None) -> SweepEvent:
        """Return an event that says how far the sweep is."""
        finished = set().union(*(ledger.refresh().rows().keys() for ledger in self._ledgers.values()))
        done = len(self._all & finished)
        here = done - self._done_before
        pace = (time.monotonic() - self._began) / here if here > 0 else None
        return SweepEvent(
            kind=kind,
            message=message,
            cell=cell,
            done=done,
            planned=len(self._all),
            cells_done=sum(keys <= finished for keys in self._keys.values()),
            cells=len(self._cells),
            eta_s=None if pace is None else pace * (len(self._all) - done),
        )
