"""Runs one cell, and waits for it so that a person can interrupt.

The work happens in a thread with an event loop of its own; the caller's thread only waits and passes events on. So the
same call works in a terminal, in a notebook's kernel (whose event loop may be running, and which lives on after an
interrupt) and in a thread of a sweep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from html import escape
from typing import TYPE_CHECKING

from tautools.errors import RunError, TautoolsError
from tautools.llm import ModelClient, Retry
from tautools.run.exporters.tau_bench import write_view
from tautools.run.folder import claim_folder, read_setting
from tautools.run.judging import count_awaiting_judge, judging_note
from tautools.run.ledger import Ledger, ResultsWriter, intact, read_events
from tautools.run.plan import Cell, prepare_cell
from tautools.run.progress import CellProgress, EventSink
from tautools.run.provenance import MetricsWatch, mixed, observe, store_certificates
from tautools.run.scheduler import Scheduler, Stop, catching_signals
from tautools.run.worker import Worker
from tautools.servers import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tautools.llm.types import Endpoint
    from tautools.params.models import RunParams
    from tautools.records import Event, Outcome, Setting
    from tautools.run.plan import Pair


@dataclass(frozen=True)
class CellResult:
    """What is finished and what is still pending after a run, read from the ledger."""

    setting: Setting = field(repr=False)
    folder: Path
    planned: int
    done: int
    pending: int
    outcomes: Counter[Outcome]
    """Outcomes of the planned conversations that are finished, by this run or before."""
    model_calls: int
    """Requests to models that this run made, failed ones included."""
    faults: int = 0
    """Conversations that this run lost to the infrastructure; they are pending or were repeated, and are not scored."""
    fault_kinds: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    """Rows of the ledger that repeat a conversation that counts already; they are not counted."""
    interrupted: bool = False
    """Whether somebody asked to stop."""
    cause: str = ""
    """Why work is left, when it is known."""
    mixed: list[str] = field(default_factory=list)
    """Facts observed now that differ from those when the setting was first run, such as a version."""
    awaiting_judge: str = ""
    """What tasks assert in natural language and nobody judged, in a sentence."""
    view: Path | None = None
    """`num_trials-<n>.json`."""

    @property
    def finished(self) -> bool:
        """Whether nothing is pending."""
        return self.pending == 0

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        first, *rest = self._lines()
        notes = "".join(f"<div>{escape(line)}</div>" for line in rest)
        return f"<div><b>{escape(first)}</b>{notes}</div>"

    def _lines(self) -> list[str]:
        setting = self.setting
        marked = " [SIMULATED]" if setting.simulated else ""
        lines = [
            f"{self.done} done, {self.pending} pending",
            f"{setting.env} {setting.strategy.value} {setting.agent.model}{marked}: {self._score()}",
        ]
        if self.faults:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.fault_kinds.most_common())
            lines.append(f"{self.faults} lost to the infrastructure and not scored: {kinds}")
        if self.interrupted:
            lines.append("Interrupted; run it again to go on.")
        if self.pending and self.cause:
            lines.append(self.cause)
        if self.repeats:
            lines.append(f"{self.repeats} repeated conversations in the ledger are not counted")
        if self.awaiting_judge:
            lines.append(self.awaiting_judge)
        lines.extend(f"Mixed under one setting: {difference}" for difference in self.mixed)
        lines.append(f"{self.model_calls} model calls; results in {self.folder}")
        return lines

    def _score(self) -> str:
        scored = sum(count for outcome, count in self.outcomes.items() if outcome.scored)
        if not scored:
            return "nothing scored (n = 0)"
        passed = sum(count for outcome, count in self.outcomes.items() if outcome.value == "passed")
        told = ", ".join(f"{count} {outcome.value}" for outcome, count in self.outcomes.most_common())
        return f"{passed} of {scored} passed ({told})"


def start_run(cell: Cell, stop: Stop, on_event: Callable[[Event], None], retry: Retry) -> Future[CellResult]:
    """Start a run in a thread of its own; `on_event` is called in that thread.

    Parameters
    ----------
    cell : Cell
        What to run; its pending conversations are held.
    stop : Stop
        Set from outside to end the run in good order.
    on_event : callable
        Told what happens, in the run's thread.
    retry : Retry
        How often a model call is tried, and the waits between.

    Returns
    -------
    Future
        Of the result, or of the error that ended the run.
    """
    executor = ThreadPoolExecutor(1, thread_name_prefix="tautools-run")
    try:
        return executor.submit(lambda: asyncio.run(_run(cell, stop, on_event, retry)))
    finally:
        executor.shutdown(wait=False)


def finished_result(cell: Cell) -> CellResult:
    """Return the result of a cell that owes nothing; its view is written when it is not there."""
    view = cell.folder / f"num_trials-{cell.run.num_trials}.json"
    if not view.exists():
        _write_view(cell, Ledger(cell.folder).refresh())
    _certify_persona(cell)
    return replace(_sum_up(cell, Ledger(cell.folder).refresh()), view=view)


async def _run(cell: Cell, stop: Stop, on_event: Callable[[Event], None], retry: Retry) -> CellResult:
    stop.attach()
    seen = observe(cell.cast, cell.domain)
    cell = replace(cell, folder=claim_folder(cell.workspace / "results", cell.setting, seen))
    first = read_setting(cell.folder)
    differences = mixed(first.provenance, seen) if first else []
    ledger = Ledger(cell.folder)
    with contextlib.closing(ResultsWriter(cell.folder)) as writer:
        store_certificates(cell.cast, cell.folder, writer.name, workspace=cell.workspace)
        sink = EventSink(cell.setting, writer, on_event)
        _void_damaged(cell, ledger, writer, sink)
        scheduler, holder = _make_scheduler(cell, ledger, writer, sink, stop)
        tally = CellProgress(cell, ledger.rows().values())
        pending = tally.planned - tally.done
        sink.started(**tally.progress(), pending=pending, provenance=seen, mixed=differences)
        try:
            await _run_trials(cell, scheduler, sink, retry)
        finally:
            view = _write_view(cell, ledger.refresh())
        result = replace(
            _sum_up(cell, ledger),
            model_calls=holder.counts.total,
            faults=scheduler.faults.total(),
            fault_kinds=scheduler.faults,
            interrupted=stop.asked,
            cause=scheduler.cause or scheduler.last_fault,
            mixed=differences,
            view=view,
        )
        sink.tell("stop", str(result), done=result.done, pending=result.pending, model_calls=result.model_calls)
    if scheduler.broken:
        raise scheduler.broken
    _certify_persona(cell)
    return result


def _certify_persona(cell: Cell) -> None:
    """Write a persona's certificate beside its results; a text that is not in the records is an error of the run."""
    folder = read_setting(cell.folder)
    if cell.setting.persona is None or folder is None:
        return
    from tautools.run.personas import keep_certificate

    keep_certificate(cell.workspace, folder).raise_if_ineffective()


async def _run_trials(cell: Cell, scheduler: Scheduler, sink: EventSink, retry: Retry) -> None:
    client = ModelClient(
        _EndpointSource(cell),
        cell.cast.parties,
        on_call=scheduler.on_call,
        on_retry=sink.retrying,
        retry=retry,
        keep_itl=cell.run.keep_itl,
    )
    found = [endpoint for each in cell.cast.endpoints.values() for endpoint in each]
    async with client, MetricsWatch(found, sink):
        await scheduler.run(client)


def _make_scheduler(
    cell: Cell, ledger: Ledger, writer: ResultsWriter, sink: EventSink, stop: Stop
) -> tuple[Scheduler, Worker]:
    failed_before = Counter(_pair_of(event) for event in read_events(cell.folder) if _is_user_error(event, cell))
    holder = Worker(cell, ledger=ledger, writer=writer, sink=sink, user_errors=failed_before)
    return Scheduler(cell, holder, rows=ledger.rows(), sink=sink, stop=stop), holder


def _is_user_error(event: Event, cell: Cell) -> bool:
    return event.kind == "user_error" and event.setting_id == cell.setting.id


def _pair_of(event: Event) -> Pair:
    return event.task_id, event.trial or 0


def _void_damaged(cell: Cell, ledger: Ledger, writer: ResultsWriter, sink: EventSink) -> None:
    """Void every row whose conversation's bytes are damaged, so that it is pending again; nothing is rewritten."""
    damaged = [row for row in ledger.refresh().rows().values() if not intact(cell.folder, row)]
    for row in damaged:
        writer.void(row, "the conversation's bytes do not hash to what the row says")
        sink.tell("damaged", "The stored conversation is damaged; it is pending again.", at=(row.task_id, row.trial))
    if damaged:
        _void_damaged(cell, ledger, writer, sink)  # a repeat may have been hidden behind it


def _write_view(cell: Cell, ledger: Ledger) -> Path:
    rows = [row for row in ledger.rows().values() if row.setting_id == cell.setting.id]
    return write_view(cell.folder, rows, num_trials=cell.run.num_trials, order=list(cell.domain.tasks))


def _sum_up(cell: Cell, ledger: Ledger) -> CellResult:
    tally = CellProgress(cell, ledger.rows().values())
    return CellResult(
        setting=cell.setting,
        folder=cell.folder,
        planned=tally.planned,
        done=tally.done,
        pending=tally.planned - tally.done,
        outcomes=tally.outcomes,
        model_calls=0,
        repeats=ledger.repeats(),
        awaiting_judge=judging_note(cell.setting, cell.tasks, count_awaiting_judge(cell.folder, cell.setting.id)),
    )


class _EndpointSource:
    """Where the servers of a part are: those found before the start; asked again, those that are ready then."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._found = dict(cell.cast.endpoints)

    def __call__(self, part: str) -> Sequence[Endpoint]:
        if part in self._found:
            return self._found.pop(part)
        with contextlib.suppress(TautoolsError):
            return endpoints(self._cell.run.roles[part], workspace=self._cell.workspace, role_name=part)
        return self._cell.cast.endpoints[part]  # still gone: what was there may come back


log = logging.getLogger("tautools.run")


def _ignore(_event: Event) -> None:
    """Nobody listens."""


def run_cell(
    run: RunParams | Cell,
    *,
    workspace: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
    retry: Retry | None = None,
    stop: Stop | None = None,
) -> CellResult:
    """Run what one cell owes, and return what is done and what is still pending.

    A cell that is finished makes no model call and needs no server. SIGINT and SIGTERM let running conversations finish
    within the cell's `grace_s`, a second one ends at once; what was not finished stays pending, and the result says so.

    Parameters
    ----------
    run : RunParams or Cell
        The cell, prepared or not.
    workspace : Path, optional
        Where `results/` is; needed unless the cell is prepared.
    on_event : callable
        Called in the caller's thread with every start, finished conversation, retry, fault and stop. What it raises
        is logged and does not stop the run.
    retry : Retry, optional
        How often a model call that met a transient fault is tried again before its conversation is given up.
    stop : Stop, optional
        A way to stop the run from another thread, by `stop.request()`.

    Raises
    ------
    TautoolsError
        Bad input, before anything is made; or a disk that no longer takes results.
    """
    cell = _prepared(run, workspace)
    if not cell.pending and all(intact(cell.folder, row) for row in cell.done.values()):
        return finished_result(cell)
    if not cell.cast.endpoints:
        cell = prepare_cell(cell.run, workspace=cell.workspace)
    stop = stop or Stop()
    told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    with catching_signals(stop):
        result = start_run(cell, stop, told.put, retry or Retry())
        result.add_done_callback(lambda _: told.put(None))
        _listen(told, stop, on_event or _ignore)
    return result.result()


def _prepared(run: RunParams | Cell, workspace: Path | None) -> Cell:
    if isinstance(run, Cell):
        return run.refreshed()
    if workspace is None:
        raise RunError("No workspace was given.", next_step="Pass `workspace=Path(...)`, the folder of `results/`.")
    return prepare_cell(run, workspace=workspace, need_servers=False)


def _listen(told: queue.SimpleQueue[Event | None], stop: Stop, on_event: Callable[[Event], None]) -> None:
    """Hand events on until the run has ended; an interrupt that gets through as an exception is a request to stop."""
    while True:
        try:
            event = told.get()
            if event is None:
                return
            _notify(event, on_event)
        except KeyboardInterrupt:
            stop.request()


def _notify(event: Event, on_event: Callable[[Event], None]) -> None:
    try:
        on_event(event)
    except Exception:
        log.exception("A listener failed on %r; the run goes on.", event.kind)
