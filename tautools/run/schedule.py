"""Which conversation runs when: longest expected first over all trials, no barrier between trials.

A conversation lost to the infrastructure is tried again at the end, a bounded number of times, and stays owed after
that; it never becomes a score. A dead server ends the run early, with its cause. Near the time limit of the run's own
Slurm job nothing is begun that would be cut off. What another process holds is waited for, and taken over when that
process dies.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tautools.errors import BenchError, FilesError, ModelCallError, NobodyThereError, PersonaError
from tautools.records import UserStrategy
from tautools.run.count import DeadServerWatch
from tautools.run.expect import Expectation
from tautools.run.hold import NotHeld
from tautools.run.jobtime import JobTime
from tautools.run.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.llm.types import Door
    from tautools.records import CallRecord, CommitRow
    from tautools.run.hold import Held, Holder
    from tautools.run.ledger import Key
    from tautools.run.plan import Cell, Pair
    from tautools.run.stop import Stop
    from tautools.run.tell import Teller

__all__ = ["Scheduler"]

log = logging.getLogger("tautools.run")

REPEATS_AFTER_FAULT = 2
"""How often one run tries a conversation again that was lost to the infrastructure."""

HOPELESS_LIMIT = 5
"""Conversations in a row lost to a fault that the next one will meet too, after which a run ends."""

ELSEWHERE_POLL_S = 1.0
TOUCH_S = 20.0
"""How often claims are touched [s]; a sixth of the time after which they are taken for abandoned."""


class Job(NamedTuple):
    """One conversation to hold; jobs sort by what comes first."""

    attempt: int
    minus_expected_s: float
    order: int
    pair: Pair


class Scheduler:
    """Runs the owed conversations of one cell.

    Parameters
    ----------
    cell : Cell
        The plan.
    holder : Holder
        Holds one conversation.
    rows : mapping of key to CommitRow
        What is finished now, in the whole setting.
    teller, stop
        Who is told, and who asks to stop.
    """

    def __init__(
        self, cell: Cell, holder: Holder, *, rows: Mapping[Key, CommitRow], teller: Teller, stop: Stop
    ) -> None:
        self.faults: Counter[str] = Counter()
        self.cause = ""
        """Why the run ended before its work was done, when it did."""
        self.last_fault = ""
        self.broken: FilesError | PersonaError | None = None
        """The disk no longer takes results, or what would be recorded is not what the setting says."""
        self._holder = holder
        # A person holds one conversation at a time.
        self._concurrency = 1 if cell.approach.user_strategy is UserStrategy.HUMAN else cell.run.concurrency
        self._grace_s = cell.run.grace_s
        self._teller = teller
        self._stop = stop
        self._tally = Tally(cell, rows.values())
        self._expect = Expectation(cell.tasks, rows.values())
        self._watch = DeadServerWatch(hopeless_limit=HOPELESS_LIMIT, limit=2 * max(HOPELESS_LIMIT, self._concurrency))
        owed = [pair for pair in cell.planned if cell.key(pair) not in rows]
        self._queue = [Job(0, -self._expect.seconds(pair[0]), order, pair) for order, pair in enumerate(owed)]
        heapq.heapify(self._queue)
        self._elsewhere: list[Job] = []
        self._asked_elsewhere_at = 0.0
        self._running: dict[asyncio.Task[Held], Job] = {}
        self._started_at = time.monotonic()
        self._job_time = JobTime()

    def on_call(self, record: CallRecord) -> None:
        """Take one model call, finished or failed."""
        self._watch.call(record)
        self._holder.on_call(record)

    async def run(self, door: Door) -> None:
        """Hold what is owed, until it is done, the run is stopped, or going on makes no sense."""
        beat = asyncio.create_task(self._touch_claims())
        try:
            while not self._stop.asked and not self.cause:
                self._start_some(door)
                if not self._running and not self._elsewhere:
                    return
                await self._wait(ELSEWHERE_POLL_S if self._elsewhere else None)
            await self._wind_down()
        finally:
            beat.cancel()
            for task in self._running:
                task.cancel()
            await asyncio.gather(beat, *self._running, return_exceptions=True)
            await self._holder.close()

    def _start_some(self, door: Door) -> None:
        now = time.monotonic()
        if self._elsewhere and now - self._asked_elsewhere_at >= ELSEWHERE_POLL_S:
            for job in self._elsewhere:
                heapq.heappush(self._queue, job)
            self._elsewhere.clear()
            self._asked_elsewhere_at = now
        while self._queue and len(self._running) < self._concurrency:
            found = self._next()
            if found is None:
                if not self._running:
                    self.cause = "Its job ends before another conversation could: run it again in a new one to go on."
                return
            self._running[asyncio.create_task(self._holder.hold(found.pair, door))] = found

    def _next(self) -> Job | None:
        """Take the next job that can end before this process's own Slurm job does; None when there is none."""
        for job in [self._queue[0]] if self._fits(self._queue[0]) else sorted(self._queue):
            if self._fits(job):
                self._queue.remove(job)
                heapq.heapify(self._queue)
                return job
        return None

    def _fits(self, job: Job) -> bool:
        return self._job_time.allows(self._expect.seconds(job.pair[0]))

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait for a conversation to end, a request to stop, or the time."""
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({stopping, *self._running}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for task in [task for task in self._running if task.done()]:
            self._ended(task, self._running.pop(task))

    def _ended(self, task: asyncio.Task[Held], job: Job) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._held(job, task.result())
        elif isinstance(error, FilesError | PersonaError):
            self.broken, self.cause = error, error.problem
        elif isinstance(error, NobodyThereError):
            self.cause = str(error)
        elif isinstance(error, Exception):
            self._faulted(job, error)
        else:
            raise error

    def _held(self, job: Job, held: Held) -> None:
        if held is NotHeld.ELSEWHERE:
            self._elsewhere.append(job)
        elif held is NotHeld.USER_ERROR:
            heapq.heappush(self._queue, job)
        elif not isinstance(held, NotHeld):
            self._tally.finished(held)
            self._expect.learn(held)
            self._teller.finished(
                held,
                **self._tally.progress(),
                running=len(self._running),
                elapsed_s=time.monotonic() - self._started_at,
                eta_s=self._expect.eta_s(self._tally.owed, self._concurrency),
            )

    def _faulted(self, job: Job, error: Exception) -> None:
        fault = _fault_of(error)
        self.faults[fault] += 1
        self.last_fault = str(error)
        again = job.attempt < REPEATS_AFTER_FAULT
        if again:
            heapq.heappush(self._queue, job._replace(attempt=job.attempt + 1))
        log.warning(
            "FAULT %s task=%s trial=%d: %s", fault, *job.pair, error, exc_info=error if fault == "internal" else None
        )
        self._teller.tell("fault", str(error), at=job.pair, fault=fault, attempt=job.attempt, again=again)
        stop_for = self._watch.faulted(job.pair, fault)
        if stop_for and not self.cause:
            self.cause = f"{stop_for}.\n{error}"

    async def _wind_down(self) -> None:
        """Let what runs finish within the grace, unless asked to stop once more."""
        if self._stop.asked:
            self._teller.tell("interrupted", "Asked to stop.", running=len(self._running), grace_s=self._grace_s)
        deadline = time.monotonic() + (0.0 if self.broken else self._grace_s)
        while self._running and self._stop.requests < 2:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            await self._wait(left_s)

    async def _touch_claims(self) -> None:
        while True:
            await asyncio.sleep(TOUCH_S)
            await self._holder.touch_claims()


def _fault_of(error: Exception) -> str:
    """Return how a conversation was lost: by a model's server, by the benchmark's own process, or by us."""
    if isinstance(error, ModelCallError):
        return error.fault.value
    return "bench" if isinstance(error, BenchError) else "internal"
