"""Progress of a cell: counts of conversations, calls and tokens, estimated durations, and the events of a run.

`[TAU2_TASK_COMPLETE]`, `OVERALL_ETA` and `Retrying in N seconds` keep the words of the logs that users grep today.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from tautools.errors import CallFault
from tautools.records import Event, Role
from tautools.run.ledger import passed_and_scored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tautools.bench.types import Task
    from tautools.errors import ModelCallError
    from tautools.llm.types import CallTag
    from tautools.records import CallRecord, CommitRow, Setting
    from tautools.run.ledger import ResultsWriter
    from tautools.run.plan import Cell


_COUNTED_ROLES = (Role.AGENT, Role.USER, Role.EXPERT, Role.JUDGE)

HOPELESS = frozenset(
    each.value for each in (CallFault.UNREACHABLE, CallFault.AUTH, CallFault.NOT_FOUND, CallFault.REFUSED)
)
"""Faults that the next conversation will meet too: few of them in a row are enough to stop."""


class CallCounts:
    """Counts what each running conversation asks of the models."""

    def __init__(self) -> None:
        self.total = 0
        self._of: defaultdict[tuple[str, int], Counter[str]] = defaultdict(Counter)

    def add(self, record: CallRecord) -> None:
        """Count one call; only those that succeeded count for the conversation."""
        self.total += 1
        if not record.fault:
            self._of[record.task_id, record.trial].update(
                {f"{record.role.value}_calls": 1} if record.role in _COUNTED_ROLES else {},
                prompt_tokens=record.prompt_tokens or 0,
                cached_tokens=record.cached_tokens or 0,
                output_tokens=record.output_tokens or 0,
            )

    def pop(self, pair: tuple[str, int]) -> dict[str, int]:
        """Return a conversation's counts by the names of `CommitRow`, and forget them."""
        return dict(self._of.pop(pair, Counter()))


class DeadServerWatch:
    """Notices that a role's or expert's server no longer answers: many faulted conversations, no answered call between.

    `limit` conversations in a row that end in any fault are enough, or `hopeless_limit` that end in a hopeless one.
    """

    def __init__(self, *, hopeless_limit: int, limit: int) -> None:
        self._hopeless_limit, self._limit = hopeless_limit, limit
        self._hopeless: Counter[str] = Counter()
        self._any: Counter[str] = Counter()
        self._last_fault: dict[tuple[str, int], str] = {}

    def call(self, record: CallRecord) -> None:
        """Note one call."""
        part = f"{record.role.value} {record.expert}".strip()
        if record.fault:
            self._last_fault[record.task_id, record.trial] = part
        else:
            self._hopeless[part] = self._any[part] = 0

    def faulted(self, pair: tuple[str, int], fault: str) -> str:
        """Note a conversation lost to `fault`; return the cause to stop for, or an empty string."""
        part = self._last_fault.pop(pair, Role.AGENT.value)
        self._any[part] += 1
        self._hopeless[part] += fault in HOPELESS
        if self._hopeless[part] >= self._hopeless_limit or self._any[part] >= self._limit:
            lost = self._any[part]
            return f"The {part} model's server does not answer: {lost} conversations in a row ended in {fault}"
        return ""


class CellProgress:
    """Counts what of a cell is planned, done, passed, scored and pending, while it runs."""

    def __init__(self, cell: Cell) -> None:
        self._planned = len(cell.keys)
        self._left = set(cell.keys)
        self._done: list[CommitRow] = []
        for row in cell.known.values():
            self.finished(row)

    @property
    def pending(self) -> Counter[str]:
        """Task id to the number of its conversations that are not finished."""
        return Counter(task_id for _, task_id, _ in self._left)

    def finished(self, row: CommitRow) -> None:
        """Count one more finished conversation, once, if it is planned."""
        if row.key in self._left:
            self._left.remove(row.key)
            self._done.append(row)

    def counts(self) -> dict[str, int]:
        """Return the counts that events carry."""
        passed, scored = passed_and_scored(self._done)
        done = {"planned": self._planned, "done": len(self._done), "pending": len(self._left)}
        return done | {"passed": passed, "scored": scored}


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


class EventSink:
    """Turns what happens under a setting into events, stored and passed on in the run's thread, and into log lines."""

    def __init__(self, setting: Setting, writer: ResultsWriter, on_event: Callable[[Event], None]) -> None:
        self._setting, self._writer, self._on_event = setting, writer, on_event
        self._name = f"{setting.env} {setting.strategy.value} {setting.agent.model}"

    def emit(self, kind: str, message: str = "", *, at: tuple[str, int] | None = None, **data: Any) -> None:
        """Store an event and pass it on; `at` is the task and trial that it happened to, None for the whole run."""
        event = self._event(kind, message, at, data)
        self._writer.event(event)
        self._on_event(event)

    def finished(self, row: CommitRow, **data: Any) -> None:
        """Pass on that a conversation is finished; the ledger has it, so the events file does not repeat it."""
        reward = "none" if row.reward is None else f"{row.reward:g}"
        if row.writer == self._writer.name:
            took_s, eta_s, of = row.finished_at - row.started_at, data.get("eta_s"), f"{data['done']}/{data['planned']}"
            what = f"{self._name} task={row.task_id} trial={row.trial} outcome={row.outcome.value} reward={reward}"
            log.info("[TAU2_TASK_COMPLETE] %s took=%.1fs calls=%d (%s)", what, took_s, row.model_calls, of)
            eta = "unknown" if eta_s is None else clock(eta_s)
            log.info("OVERALL_ETA %s done=%s elapsed=%s", eta, of, clock(data["elapsed_s"]))
        message = f"task {row.task_id} trial {row.trial}: {row.outcome.value}, reward {reward}"
        data |= {"outcome": row.outcome.value, "reward": row.reward, "took_s": row.duration_s, "writer": row.writer}
        self._on_event(self._event("done", message, (row.task_id, row.trial), data))

    def retrying(self, tag: CallTag, delay_s: float, error: ModelCallError) -> None:
        """Emit that a model call is tried again after a while."""
        fault, role = error.fault.value, tag.role.value
        what = f"{self._name} task={tag.task_id} trial={tag.trial} {role} call: {fault} ({error.problem})"
        log.warning("Retrying in %.3g seconds: %s", delay_s, what)
        at = (tag.task_id, tag.trial)
        self.emit("retry", error.problem, at=at, fault=fault, role=role, delay_s=delay_s, status=error.status)

    def _event(self, kind: str, message: str, at: tuple[str, int] | None, data: dict[str, Any]) -> Event:
        task_id, trial = at or ("", None)
        now, setting_id = time.time(), self._setting.id
        return Event(kind=kind, at=now, setting_id=setting_id, task_id=task_id, trial=trial, message=message, data=data)


def clock(seconds: float) -> str:
    """Return a length of time as `H:MM:SS`.

    Examples
    --------
    >>> clock(3725.4)
    '1:02:05'
    """
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
