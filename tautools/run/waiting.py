"""Says which call a run waits for when one takes long: to who listens, in the log, and in a note for other processes.

Nothing is counted per chunk: now and then the calls that are under way are looked at.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tautools.files import write_atomic
from tautools.llm import ModelClient
from tautools.run.ledger import EventSink
from tautools.run.worker import RUNNING

LONG_S = 10.0
"""A call that takes longer is told [s]."""

LOOK_S = 2.5
"""How often is looked [s]."""

LOG_EVERY_S = 30.0
"""How often it is logged while it lasts [s]; the bar and the board are told at each look."""

_STALE_S = 20.0
_log = logging.getLogger("tautools.run")


@contextlib.asynccontextmanager
async def telling_long_calls(client: ModelClient, sink: EventSink, folder: Path, writer: str) -> AsyncIterator[None]:
    """Tell of the longest call while the block runs; `folder` is the setting's, `writer` the name of this run in it."""
    note = folder / RUNNING / f"{writer}.waiting"
    ended = asyncio.Event()
    watching = asyncio.create_task(_watch(client, sink, note, ended))
    try:
        yield
    finally:
        ended.set()  # not cancelled: a note that is being written in its thread would come after it was removed
        await asyncio.gather(watching, return_exceptions=True)
        note.unlink(missing_ok=True)


async def _watch(client: ModelClient, sink: EventSink, note: Path, ended: asyncio.Event) -> None:
    told, log_at = "", 0.0
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), LOOK_S)
            return
        calls = sorted((call for call in client.under_way() if call.seconds >= LONG_S), key=lambda call: -call.seconds)
        if not calls and not told:
            continue
        more = f"; {len(calls)} calls take over {LONG_S:.0f} s" if len(calls) > 1 else ""
        told = f"{calls[0]}{more}" if calls else ""
        sink.waiting(told, calls)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_write, note, told)
        if not calls:
            log_at = 0.0
        elif time.monotonic() >= log_at:
            log_at = time.monotonic() + LOG_EVERY_S
            _log.info("WAITING for %s", told)


def _write(note: Path, told: str) -> None:
    if told:
        write_atomic(note, json.dumps({"waiting": told, "at": time.time()}))
    else:
        note.unlink(missing_ok=True)


def read_waiting(folder: Path) -> str:
    """Return what the runs of a setting's folder wait for, by their notes; empty when no call takes long."""
    told = []
    for path in sorted((folder / RUNNING).glob("*.waiting")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            note = json.loads(path.read_bytes())
            if time.time() - note["at"] < _STALE_S:  # of a run that was killed the note is left
                told.append(str(note["waiting"]))
    return " · ".join(told)
