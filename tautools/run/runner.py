"""The run itself: claim the folder, check the ledger, hold what is owed, write the view, sum up."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.llm import ModelDoor
from tautools.run.certificates import keep_certificates
from tautools.run.coverage import assertions_judged, waiting_for_judge
from tautools.run.folder import claim_folder, read_setting
from tautools.run.hold import Holder
from tautools.run.ledger import Ledger, intact, read_events
from tautools.run.metrics import MetricsWatch
from tautools.run.provenance import mixed, observe
from tautools.run.result import CellResult
from tautools.run.schedule import Scheduler
from tautools.run.tally import Tally
from tautools.run.tell import Teller
from tautools.run.view import write_view
from tautools.run.writer import Writer
from tautools.server import endpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tautools.llm import Retry
    from tautools.llm.types import Endpoint
    from tautools.records import Event
    from tautools.run.plan import Cell, Pair
    from tautools.run.stop import Stop

__all__ = ["finished_result", "start_run"]


def start_run(cell: Cell, stop: Stop, on_event: Callable[[Event], None], retry: Retry) -> Future[CellResult]:
    """Start a run in a thread of its own; `on_event` is called in that thread.

    Parameters
    ----------
    cell : Cell
        What to run; its owed conversations are held.
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
    with contextlib.closing(Writer(cell.folder)) as writer:
        keep_certificates(cell.cast, cell.folder, writer.name, workspace=cell.workspace)
        teller = Teller(cell.setting, writer, on_event)
        _take_damaged_back(cell, ledger, writer, teller)
        scheduler, holder = _make_scheduler(cell, ledger, writer, teller, stop)
        tally = Tally(cell, ledger.rows().values())
        owed = tally.planned - tally.done
        teller.started(**tally.progress(), owed=owed, provenance=seen, mixed=differences)
        try:
            await _hold_all(cell, scheduler, teller, retry)
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
        teller.tell("stop", str(result), done=result.done, owed=result.owed, model_calls=result.model_calls)
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


async def _hold_all(cell: Cell, scheduler: Scheduler, teller: Teller, retry: Retry) -> None:
    door = ModelDoor(
        _Places(cell),
        cell.cast.parties,
        on_call=scheduler.on_call,
        on_retry=teller.retrying,
        retry=retry,
        keep_itl=cell.run.keep_itl,
    )
    found = [endpoint for each in cell.cast.endpoints.values() for endpoint in each]
    async with door, MetricsWatch(found, teller):
        await scheduler.run(door)


def _make_scheduler(cell: Cell, ledger: Ledger, writer: Writer, teller: Teller, stop: Stop) -> tuple[Scheduler, Holder]:
    failed_before = Counter(_pair(event) for event in read_events(cell.folder) if _is_user_error(event, cell))
    holder = Holder(cell, ledger=ledger, writer=writer, teller=teller, user_errors=failed_before)
    return Scheduler(cell, holder, rows=ledger.rows(), teller=teller, stop=stop), holder


def _is_user_error(event: Event, cell: Cell) -> bool:
    return event.kind == "user_error" and event.setting_id == cell.setting.id


def _pair(event: Event) -> Pair:
    return event.task_id, event.trial or 0


def _take_damaged_back(cell: Cell, ledger: Ledger, writer: Writer, teller: Teller) -> None:
    """Void every row whose conversation's bytes are damaged, so that it is owed again; nothing is rewritten."""
    damaged = [row for row in ledger.refresh().rows().values() if not intact(cell.folder, row)]
    for row in damaged:
        writer.void(row, "the conversation's bytes do not hash to what the row says")
        teller.tell("damaged", "The stored conversation is damaged; it is owed again.", at=(row.task_id, row.trial))
    if damaged:
        _take_damaged_back(cell, ledger, writer, teller)  # a repeat may have been hidden behind it


def _write_view(cell: Cell, ledger: Ledger) -> Path:
    rows = [row for row in ledger.rows().values() if row.setting_id == cell.setting.id]
    return write_view(cell.folder, rows, num_trials=cell.run.num_trials, order=list(cell.domain.tasks))


def _sum_up(cell: Cell, ledger: Ledger) -> CellResult:
    tally = Tally(cell, ledger.rows().values())
    return CellResult(
        setting=cell.setting,
        folder=cell.folder,
        planned=tally.planned,
        done=tally.done,
        owed=tally.planned - tally.done,
        outcomes=tally.outcomes,
        model_calls=0,
        repeats=ledger.repeats(),
        unjudged=assertions_judged(cell.setting, cell.tasks, waiting_for_judge(cell.folder, cell.setting.id)),
    )


class _Places:
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
