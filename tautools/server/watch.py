"""All servers of a workspace with what they are doing: state, load, how old the news is, and what will end them."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tautools.server.metrics import Load, Sample, ask_metrics, load
from tautools.server.overview import server_states
from tautools.server.states import Snapshot, State

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.http import Http
    from tautools.records import ServerRecord

__all__ = ["Watched", "look", "watch_servers"]

_ANSWERING = {State.READY, State.DEGRADED, State.VERIFYING, State.UNKNOWN}

BETWEEN_SAMPLES_S = 0.3
"""Between the two samples of a single look; generation counters grow with each step of the engine, a few ms."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One server at one look."""

    record: ServerRecord
    snapshot: Snapshot
    sample: Sample | None = None
    """The last reading of its `/metrics`; an older look's when it did not answer this time."""
    load: Load = field(default_factory=Load)
    health_age_s: float | None = None
    """Since it last told how it is [s]; 0 when it has just done so, None when it never did."""


def look(workspace: Path, former: Sequence[Watched] = ()) -> list[Watched]:
    """Return every registered server with its state and load; rates are those since the former look.

    Parameters
    ----------
    workspace : Path
        Where they are registered.
    former : sequence of Watched, optional
        What the last look returned. A server that does not answer now keeps the load it told then, with its age.
    """
    from tautools.http import Http

    found = server_states(workspace)
    before = {(each.record.name, each.record.alias): each for each in former}
    asked = [record for record, snapshot in found if _answers(snapshot)]
    samples = _sample(asked, Http())
    return [
        _watched(record, snapshot, samples.get(record.name), before.get((record.name, record.alias)))
        for record, snapshot in found
    ]


def watch_servers(workspace: Path) -> list[Watched]:
    """Return what one look shows; servers that are at work are asked twice, so that their rates are known."""
    from tautools.http import Http

    first = look(workspace)
    busy = [each.record for each in first if each.sample is not None and each.sample.busy]
    if not busy:
        return first
    oldest = min(each.sample.at for each in first if each.sample is not None)
    time.sleep(max(0.0, oldest + BETWEEN_SAMPLES_S - time.monotonic()))
    second = _sample(busy, Http())
    return [
        _watched(each.record, each.snapshot, second[each.record.name], each) if each.record.name in second else each
        for each in first
    ]


def _answers(snapshot: Snapshot) -> bool:
    return snapshot.state in _ANSWERING or snapshot.stage == "answering"


def _sample(records: Sequence[ServerRecord], http: Http) -> Mapping[str, Sample]:
    """Ask all side by side, so that one that hangs delays none."""
    if not records:
        return {}
    with ThreadPoolExecutor(max_workers=min(32, len(records))) as pool:
        samples = pool.map(lambda record: ask_metrics(record.base_url, http=http), records)
        return {record.name: sample for record, sample in zip(records, samples, strict=True) if sample is not None}


def _watched(record: ServerRecord, snapshot: Snapshot, sample: Sample | None, before: Watched | None) -> Watched:
    earlier = before.sample if before is not None else None
    if sample is not None:
        return Watched(record, snapshot, sample, load(sample, earlier), health_age_s=0.0)
    if earlier is None or before is None:
        return Watched(record, snapshot, health_age_s=0.0 if snapshot.state is State.READY else None)
    return Watched(record, snapshot, earlier, before.load, health_age_s=time.monotonic() - earlier.at)
