"""Runs one cell, and waits for it so that a person can interrupt.

The work happens in a thread with an event loop of its own; the caller's thread only waits and passes events on. So the
same call works in a terminal, in a notebook's kernel (whose event loop may be running, and which lives on after an
interrupt) and in a thread of a sweep.
"""

import asyncio
import contextlib
import logging
import queue
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path
from typing import Any

from tautools.errors import RunError
from tautools.llm import ModelClient, Retry
from tautools.llm.types import Endpoint
from tautools.params.models import RunParams
from tautools.records import CallRecord, Event, Outcome, Setting
from tautools.run.answers import FlaggedAnswers, flag_lines, flagged_answers
from tautools.run.exporters import write_view
from tautools.run.ledger import EventSink, ResultsWriter, count_awaiting_judge, intact, read_calls
from tautools.run.plan import Cell, judging_note, prepare_cell
from tautools.run.provenance import metrics_events, mixed, observe, store_certificates
from tautools.run.scheduler import Scheduler, Stop, catching_signals
from tautools.run.waiting import telling_long_calls
from tautools.run.worker import Worker
from tautools.servers.addresses import endpoints


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
    model_calls: int = 0
    """Requests to models that this run made, failed ones included."""
    faults: int = 0
    """Conversations that this run lost to the infrastructure; they are pending or were repeated, and are not scored."""
    fault_kinds: Counter[str] = field(default_factory=Counter)
    user_errors: int = 0
    """Attempts of this run that ended in a user_error and were repeated, or are pending."""
    flagged: list[FlaggedAnswers] = field(default_factory=list)
    """What looks wrong in the answers of the planned conversations, unfinished ones too, by role and endpoint."""
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

    def _lines(self) -> Iterator[str]:
        setting = self.setting
        marked = " [SIMULATED]" if setting.simulated else ""
        scored = sum(count for outcome, count in self.outcomes.items() if outcome.scored)
        outcomes = ", ".join(f"{count} {outcome.value}" for outcome, count in self.outcomes.most_common())
        passed = f"{self.outcomes[Outcome.PASSED]} of {scored} passed ({outcomes})"
        score = passed if scored else f"nothing scored (n = 0{f'; {outcomes}' if outcomes else ''})"
        yield f"{self.done} done, {self.pending} pending"
        yield f"{setting.env} {setting.strategy.value} {setting.agent.model}{marked}: {score}"
        if self.faults:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.fault_kinds.most_common())
            yield f"{self.faults} lost to the infrastructure and not scored: {kinds}"
        if self.user_errors:
            yield f"{self.user_errors} attempts ended in a user_error: the customer's model failed, and was asked anew"
        yield from flag_lines(self.flagged)
        if self.interrupted:
            yield "Interrupted; run it again to go on."
        if self.pending and self.cause:
            yield self.cause
        if self.repeats:
            yield f"{self.repeats} repeated conversations in the ledger are not counted"
        if self.awaiting_judge:
            yield self.awaiting_judge
        yield from (f"Mixed under one setting: {difference}" for difference in self.mixed)
        yield f"{self.model_calls} model calls; results in {self.folder}"


log = logging.getLogger("tautools.run")


def run_cell(
    run: RunParams | Cell,
    *,
    workspace: Path | None = None,
    on_event: Callable[[Event], None] | None = None,
    retry: Retry | None = None,
    stop: Stop | None = None,
) -> CellResult:
    """Run what is pending in one cell, and return what is done and what is still pending.

    A cell that is finished makes no model call and needs no server. SIGINT and SIGTERM let running conversations finish
    within the cell's `grace_s`, a second one ends at once; what was not finished stays pending, and the result says so.

    Parameters
    ----------
    run : RunParams or Cell
        The cell, prepared or not.
    workspace : Path, optional
        Where `results/` is; needed unless the cell is prepared.
    on_event : callable
        Called in the caller's thread with every start, finished conversation, retry, fault and stop, and while a call
        takes long. What it raises is logged and does not stop the run.
    retry : Retry, optional
        How often a model call that met a transient fault is tried again before its conversation is given up.
    stop : Stop, optional
        A way to stop the run from another thread, by `stop.request()`.

    Raises
    ------
    TautoolsError
        Bad input, before anything is made; or a disk that no longer takes results.
    """
    if isinstance(run, Cell):
        cell = run.refreshed()
    elif workspace is None:
        raise RunError("No workspace was given.", next_step="Pass `workspace=Path(...)`, the folder of `results/`.")
    else:
        cell = prepare_cell(run, workspace=workspace)
    if not cell.pending and all(intact(cell.folder, row) for row in cell.done.values()):
        view = cell.folder / f"num_trials-{cell.run.num_trials}.json"
        if not view.exists():
            _write_view(cell)
        _certify_persona(cell)
        return _sum_up(cell, view=view)
    if not cell.models.endpoints:
        cell = cell.with_servers()
    stop = stop or Stop()
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    executor = ThreadPoolExecutor(1, thread_name_prefix="tautools-run")
    with catching_signals(stop.request):
        result = executor.submit(lambda: asyncio.run(_run(cell, stop, events.put, retry or Retry())))
        executor.shutdown(wait=False)
        result.add_done_callback(lambda _: events.put(None))
        _listen(events, stop, on_event or (lambda _event: None))
    return result.result()


def _listen(events: queue.SimpleQueue[Event | None], stop: Stop, on_event: Callable[[Event], None]) -> None:
    """Pass events on until the run has ended; an interrupt that gets through as an exception is a request to stop."""
    while True:
        try:
            event = events.get()
            if event is None:
                return
            try:
                on_event(event)
            except Exception:
                log.exception("A listener failed on %r; the run goes on.", event.kind)
        except KeyboardInterrupt:
            stop.request()


async def _run(cell: Cell, stop: Stop, on_event: Callable[[Event], None], retry: Retry) -> CellResult:
    stop.attach()
    observed = observe(cell.models.endpoints, cell.domain)
    cell = cell.with_folder(observed)
    differences = mixed(cell.results.provenance, observed)
    with contextlib.closing(ResultsWriter(cell.folder)) as writer:
        store_certificates(cell.models.endpoints, cell.folder, writer.name, workspace=cell.workspace)
        sink = EventSink(cell.setting, writer, on_event)
        cell = _without_damaged(cell, writer, sink)
        worker = Worker(cell, writer=writer, sink=sink)
        scheduler = Scheduler(cell, worker, sink=sink, stop=stop)
        counts: dict[str, Any] = cell.counts()
        message = f"{counts['done']} done, {counts['pending']} pending"
        sink.emit("start", message, **counts, provenance=observed, mixed=differences)
        for difference in differences:
            log.warning("Mixed provenance under one setting: %s", difference)
        client = ModelClient(
            _endpoint_source(cell),
            cell.models.configs,
            on_call=scheduler.on_call,
            on_retry=sink.retrying,
            retry=retry,
            keep_itl=cell.run.keep_itl,
        )
        servers = [endpoint for each in cell.models.endpoints.values() for endpoint in each]
        try:
            telling = telling_long_calls(client, sink, cell.folder, writer.name)
            async with client, metrics_events(servers, sink), telling:
                await scheduler.run(client)
        finally:
            cell = cell.refreshed()  # with what other processes finished
            view = _write_view(cell)
        writer.flush_calls()
        result = _sum_up(
            cell,
            model_calls=worker.counts.total,
            faults=scheduler.faults.total(),
            fault_kinds=scheduler.faults,
            user_errors=scheduler.user_errors,
            interrupted=stop.asked,
            cause=scheduler.cause or scheduler.last_fault,
            mixed=differences,
            view=view,
        )
        sink.emit("stop", str(result), done=result.done, pending=result.pending, model_calls=result.model_calls)
    if scheduler.broken:
        raise scheduler.broken
    _certify_persona(cell)
    return result


def _without_damaged(cell: Cell, writer: ResultsWriter, sink: EventSink) -> Cell:
    """Void every row whose conversation's bytes are damaged, so that it is pending again; nothing is rewritten."""
    known = cell.ledger.refresh().rows(cell.setting.id)
    while damaged := [row for row in known.values() if not intact(cell.folder, row)]:
        for row in damaged:
            writer.void(row, "the conversation's bytes do not hash to what the row says")
            message = "The stored conversation is damaged; it is pending again."
            sink.emit("damaged", message, at=(row.task_id, row.trial))
        known = cell.ledger.refresh().rows(cell.setting.id)  # a repeat may have been hidden behind it
    return replace(cell, known=known)


def _certify_persona(cell: Cell) -> None:
    """Write a persona's certificate beside its results; a text that is not in the records is an error of the run."""
    if cell.setting.persona is not None and cell.results.exists:
        from tautools.run.personas.comparison import keep_certificate

        keep_certificate(cell.workspace, cell.results).raise_if_ineffective()


def _write_view(cell: Cell) -> Path:
    return write_view(cell.folder, cell.known.values(), num_trials=cell.run.num_trials, order=list(cell.domain.tasks))


def _sum_up(cell: Cell, **further: Any) -> CellResult:
    waiting = count_awaiting_judge(cell.folder, cell.setting.id, cell.ledger)
    done = cell.done
    return CellResult(
        setting=cell.setting,
        folder=cell.folder,
        planned=len(cell.keys),
        done=len(done),
        pending=len(cell.keys) - len(done),
        outcomes=Counter(row.outcome for row in done.values()),
        repeats=cell.ledger.repeats(),
        flagged=flagged_answers(call for call in read_calls(cell.folder) if _is_of(cell, call)),
        awaiting_judge=judging_note(cell.setting, cell.tasks, waiting),
        **further,
    )


def _is_of(cell: Cell, call: CallRecord) -> bool:
    """Whether a call belongs to one of the cell's planned conversations."""
    return call.setting_id == cell.setting.id and (call.setting_id, call.task_id, call.trial) in cell.keys


def _endpoint_source(cell: Cell) -> Callable[[str], Sequence[Endpoint]]:
    """Return where the servers of a part are: first those found before the start, then those that are ready then."""
    not_used_yet = dict(cell.models.endpoints)

    def find(part: str) -> Sequence[Endpoint]:
        if part in not_used_yet:
            return not_used_yet.pop(part)
        return endpoints(cell.run.roles[part], workspace=cell.workspace, role_name=part)

    return find
