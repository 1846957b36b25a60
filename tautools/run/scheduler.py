"""Which conversation runs when, and when a run ends: longest expected first over all trials, no barrier between trials.

A conversation lost to the infrastructure is tried again at the end, a bounded number of times, and stays pending after
that; it never becomes a score. A dead server ends the run early, with its cause, and so do answers that can come to
nothing. Near the time limit of the run's own
Slurm job nothing is begun that would be cut off. A conversation that another process runs is waited for, and taken over
when that process dies.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import threading
import time
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from tautools.bench.types import Task
from tautools.errors import (
    BenchError,
    CallFault,
    FilesError,
    HumanUnavailableError,
    ModelCallError,
    PersonaError,
    SlurmError,
)
from tautools.llm.types import CompletionClient
from tautools.records import CallRecord, CommitRow, Role, UserStrategy
from tautools.run.answers import HopelessWatch, hopeless_cause
from tautools.run.ledger import EventSink
from tautools.run.plan import Cell, Pair
from tautools.run.worker import Skipped, TrialResult, Worker
from tautools.slurm.client import Slurm


class Stop:
    """A request to stop, made from any thread or signal handler and awaited in the run's event loop."""

    def __init__(self) -> None:
        self.requests = 0
        """0: go on; 1: start nothing new, let what runs finish within the grace; 2 and more: end at once."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()

    @property
    def asked(self) -> bool:
        """Whether anybody asked."""
        return self.requests > 0

    def request(self) -> None:
        """Ask to stop; asking again ends at once."""
        self.requests += 1
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nothing left to stop
                self._loop.call_soon_threadsafe(self._changed.set)

    def attach(self) -> None:
        """Bind to the running event loop."""
        self._loop = asyncio.get_running_loop()
        if self.asked:
            self._changed.set()

    async def wait(self) -> None:
        """Return at the next request that was not awaited yet."""
        await self._changed.wait()
        self._changed.clear()


@contextlib.contextmanager
def catching_signals(act: Callable[[], None], *more: signal.Signals) -> Iterator[None]:
    """Act on SIGINT, SIGTERM and `more` while the block runs; no signal reaches any thread but the main one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, *more)
    before = {number: signal.signal(number, lambda *_: act()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: a handler that was not set from Python and cannot be put back from here.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


_RESERVE_S = 30.0
"""Left over at the end, for the results to be written."""

_ASK_AGAIN_S = 300.0
"""A limit may have been moved: it is asked again before work is left, and at most this often [s]."""


class JobTime:
    """The time until the limit of the Slurm job that this process runs in, which SLURM_JOB_ID in `environ` names."""

    def __init__(self, environ: Mapping[str, str] | None = None, slurm: Slurm | None = None) -> None:
        self._job_id = (os.environ if environ is None else environ).get("SLURM_JOB_ID", "")
        self._slurm = slurm
        self._ends_at = math.inf  # without a limit, or unknown
        self._asked_at = -math.inf

    def allows(self, seconds: float) -> bool:
        """Whether something that takes so long can still be begun; outside of a job it always can."""
        if self._job_id and self._asked_at == -math.inf:
            self._ask()
        if self._left_s() < seconds and time.monotonic() - self._asked_at > _ASK_AGAIN_S:
            self._ask()
        return self._left_s() >= seconds

    def _left_s(self) -> float:
        return self._ends_at - time.monotonic() - _RESERVE_S

    def _ask(self) -> None:
        self._asked_at = time.monotonic()
        with contextlib.suppress(SlurmError):
            # An answer is not worth waiting for while conversations run.
            left = (self._slurm or Slurm(timeout_s=5.0)).time_left(self._job_id)
            self._ends_at = math.inf if left is None else time.monotonic() + left


HOPELESS = frozenset(
    each.value
    for each in (CallFault.UNREACHABLE, CallFault.AUTH, CallFault.NOT_FOUND, CallFault.REFUSED, CallFault.SERVER_GONE)
)
"""Faults that the next conversation will meet too: few of them in a row are enough to stop."""


class DeadServerWatch:
    """Notices that a role's or expert's server no longer answers: many faulted conversations, no answered call between.

    `limit` conversations in a row that end in any fault are enough, or `hopeless_limit` that end in a hopeless one.
    """

    def __init__(self, *, hopeless_limit: int, limit: int) -> None:
        self._hopeless_limit, self._limit = hopeless_limit, limit
        self._lost: defaultdict[str, list[str]] = defaultdict(list)
        self._last_fault: dict[tuple[str, int], str] = {}

    def call(self, record: CallRecord) -> None:
        """Note one call."""
        part = f"{record.role.value} {record.expert}".strip()
        if record.fault:
            self._last_fault[record.task_id, record.trial] = part
        else:
            self._lost[part].clear()

    def faulted(self, pair: tuple[str, int], fault: str, part: str = "") -> str:
        """Note a conversation lost to `fault`; return the cause to stop for, or an empty string."""
        seen = self._last_fault.pop(pair, Role.AGENT.value)
        part = part.replace(":", " ") or seen
        if fault == CallFault.SERVER_GONE:  # known from the registry, or from the address itself
            return f"The {part} model's server is gone"
        lost = self._lost[part]
        lost.append(fault)
        if len(lost) < self._limit and sum(each in HOPELESS for each in lost) < self._hopeless_limit:
            return ""
        return f"The {part} model's server does not answer: {len(lost)} conversations in a row ended in {fault}"


_SMALL_TALK_STEPS = 4
"""Greeting, question, confirmation, good-bye: steps of a conversation apart from its reference actions."""


class DurationEstimate:
    """Expected length of each task's conversations [s], from those of any trial, else from its reference actions."""

    def __init__(self, tasks: Sequence[Task], rows: Iterable[CommitRow]) -> None:
        self._steps = {task.id: len(task.reference) + _SMALL_TALK_STEPS for task in tasks}
        self._took: defaultdict[str, list[float]] = defaultdict(list)
        for row in rows:
            self.learn(row)

    def learn(self, row: CommitRow) -> None:
        """Take one more finished conversation into account."""
        if row.imported is None and row.duration_s is not None:  # imported ones ran on other servers
            self._took[row.task_id].append(max(row.duration_s, 0.0))

    def seconds(self, task_id: str) -> float:
        """Return the expected length of one conversation [s]; before anything is known, in steps."""
        if task_id in self._took:
            return fmean(self._took[task_id])
        rates = [fmean(took) / self._steps[each] for each, took in self._took.items() if each in self._steps]
        return self._steps.get(task_id, _SMALL_TALK_STEPS) * (median(rates) if rates else 1.0)

    def eta_s(self, pending: Mapping[str, int], concurrency: int) -> float | None:
        """Return the seconds until `pending` (task id to conversations) is done; None while nothing is known."""
        if not pending:
            return 0.0
        if not self._took:
            return None
        each = {task_id: self.seconds(task_id) for task_id in pending}
        work = sum(each[task_id] * count for task_id, count in pending.items())
        return max(work / concurrency, *each.values())


log = logging.getLogger("tautools.run")

REPEATS_AFTER_FAULT = 2
"""How often one run tries a conversation again that was lost to the infrastructure."""

HOPELESS_LIMIT = 5
"""Conversations in a row lost to a fault that the next one will meet too, after which a run ends."""

ELSEWHERE_POLL_S = 1.0


class QueuedTrial(NamedTuple):
    """One conversation to run; what comes first sorts first."""

    attempt: int
    minus_expected_s: float
    order: int
    pair: Pair


class Scheduler:
    """Runs the pending conversations of one cell by a worker, until it is done or `stop` is asked to end it."""

    def __init__(self, cell: Cell, worker: Worker, *, sink: EventSink, stop: Stop) -> None:
        self.faults: Counter[str] = Counter()
        self.cause = ""
        """Why the run ended before its work was done, when it did."""
        self.last_fault = ""
        self.user_errors = 0
        """Conversations that ended in a user_error and are pending again."""
        self.broken: FilesError | PersonaError | None = None
        """The disk no longer takes results, or what would be recorded is not what the setting says."""
        self._cell, self._worker, self._sink, self._stop = cell, worker, sink, stop
        # A person has one conversation at a time.
        self._concurrency = 1 if cell.approach.user_strategy is UserStrategy.HUMAN else cell.run.concurrency
        self._grace_s = cell.run.grace_s
        self._expect = DurationEstimate(cell.tasks, cell.known.values())
        self._watch = DeadServerWatch(hopeless_limit=HOPELESS_LIMIT, limit=2 * max(HOPELESS_LIMIT, self._concurrency))
        self._answers = HopelessWatch()
        self._queue = sorted(
            QueuedTrial(0, -self._expect.seconds(pair[0]), order, pair) for order, pair in enumerate(cell.pending)
        )
        self._elsewhere: list[QueuedTrial] = []
        self._asked_elsewhere_at = 0.0
        self._running: dict[asyncio.Task[TrialResult], QueuedTrial] = {}
        self._started_at = time.monotonic()
        self._job_time = JobTime()

    def on_call(self, record: CallRecord) -> None:
        """Take one model call, finished or failed; one that shows that the run is hopeless ends it."""
        self._watch.call(record)
        self._worker.on_call(record)
        hopeless = self._answers.call(record) if self._cell.run.stop_hopeless and not self.cause else None
        if hopeless is not None:
            self.cause = hopeless_cause(hopeless)
            self._sink.emit("hopeless", self.cause, flag=hopeless.flag, role=hopeless.role, endpoint=hopeless.endpoint)
            for task in self._running:
                task.cancel()

    async def run(self, client: CompletionClient) -> None:
        """Run what is pending, until it is done, the run is stopped, or going on makes no sense."""
        heartbeat = asyncio.create_task(self._worker.keep_claims())
        try:
            while not self._stop.asked and not self.cause:
                self._start_some(client)
                if not self._running and not self._elsewhere:
                    return
                await self._wait(ELSEWHERE_POLL_S if self._elsewhere else None)
            await self._wind_down()
        finally:
            heartbeat.cancel()
            for task in self._running:
                task.cancel()
            await asyncio.gather(heartbeat, *self._running, return_exceptions=True)
            await self._worker.close()

    def _start_some(self, client: CompletionClient) -> None:
        now = time.monotonic()
        if self._elsewhere and now - self._asked_elsewhere_at >= ELSEWHERE_POLL_S:
            self._queue = sorted(self._queue + self._elsewhere)
            self._elsewhere.clear()
            self._asked_elsewhere_at = now
        while self._queue and len(self._running) < self._concurrency:
            # Only what can end before this process's own Slurm job does.
            expected = ((at, self._expect.seconds(trial.pair[0])) for at, trial in enumerate(self._queue))
            index = next((at for at, seconds in expected if self._job_time.allows(seconds)), None)
            if index is None:
                if not self._running:
                    self.cause = "Its job ends before another conversation could: run it again in a new one to go on."
                return
            trial = self._queue.pop(index)
            self._running[asyncio.create_task(self._worker.run_trial(trial.pair, client))] = trial

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait for a conversation to end, a request to stop, or the time."""
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({stopping, *self._running}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
        for task in [task for task in self._running if task.done()]:
            self._ended(task, self._running.pop(task))

    def _ended(self, task: asyncio.Task[TrialResult], trial: QueuedTrial) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._take(trial, task.result())
        elif isinstance(error, FilesError | PersonaError):
            self.broken, self.cause = error, error.problem
        elif isinstance(error, HumanUnavailableError):
            self.cause = str(error)
        elif isinstance(error, Exception):
            self._faulted(trial, error)
        else:
            raise error

    def _take(self, trial: QueuedTrial, result: TrialResult) -> None:
        if result is Skipped.ELSEWHERE:
            self._elsewhere.append(trial)
        elif result is Skipped.USER_ERROR:
            self.user_errors += 1
            insort(self._queue, trial)
        elif not isinstance(result, Skipped):
            self._cell.known[result.key] = result
            self._expect.learn(result)
            pending = Counter(task_id for task_id, _ in self._cell.pending)
            self._sink.finished(
                result,
                **self._cell.counts(),
                running=len(self._running),
                elapsed_s=time.monotonic() - self._started_at,
                eta_s=self._expect.eta_s(pending, self._concurrency),
            )

    def _faulted(self, trial: QueuedTrial, error: Exception) -> None:
        # Lost by a model's server, by the benchmark's own process, or by us.
        if isinstance(error, ModelCallError):
            fault = error.fault.value
        else:
            fault = "bench" if isinstance(error, BenchError) else "internal"
        self.faults[fault] += 1
        self.last_fault = str(error)
        again = trial.attempt < REPEATS_AFTER_FAULT and fault != CallFault.SERVER_GONE
        if again:
            insort(self._queue, trial._replace(attempt=trial.attempt + 1))
        trace = error if fault == "internal" else None
        log.warning("FAULT %s task=%s trial=%d: %s", fault, *trial.pair, error, exc_info=trace)
        self._sink.emit("fault", str(error), at=trial.pair, fault=fault, attempt=trial.attempt, again=again)
        stop_for = self._watch.faulted(trial.pair, fault, getattr(error, "part", ""))
        if stop_for and not self.cause:
            self.cause = f"{stop_for}.\n{error}"

    async def _wind_down(self) -> None:
        """Let what runs finish within the grace, unless asked to stop once more."""
        if self._stop.asked:
            self._sink.emit("interrupted", "Asked to stop.", running=len(self._running), grace_s=self._grace_s)
        deadline = time.monotonic() + (0.0 if self.broken else self._grace_s)
        while self._running and self._stop.requests < 2:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            await self._wait(left_s)
