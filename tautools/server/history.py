"""How long former starts took: what a start like this one may still need.

Kept in `servers/cache/starts.jsonl` of the workspace. Starts are alike when model, cards, device and engine are; the
median of the last few counts, because the first start of a model downloads and compiles what later ones find.
"""

from __future__ import annotations

import contextlib
import json
import time
from statistics import median
from typing import TYPE_CHECKING, Any

from tautools.errors import FilesError
from tautools.files import ensure_folder, read_lines, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.records import ServerRecord
    from tautools.server.registry import Registry

__all__ = ["left_of_start", "remember_start"]

_KEPT = 400
_LOOKED_AT = 5
_WARM_UP_PERCENT = 62
"""From here on a start is so regular that what it took so far tells what it will take."""


def remember_start(record: ServerRecord, registry: Registry) -> None:
    """Write down how long the start of a server that was proven just now took."""
    took_s = time.time() - _began(record, registry)
    if record.how == "attach" or took_s < 0:
        return
    rows = [*_rows(registry), {"like": _kind(record), "took_s": round(took_s, 1), "at": round(time.time())}]
    text = "".join(json.dumps(row) + "\n" for row in rows[-_KEPT:])
    # A proven server is no less proven because this could not be kept.
    with contextlib.suppress(FilesError):
        ensure_folder(registry.folder, mode=0o700)
        ensure_folder(_file(registry).parent)
        write_atomic(_file(registry), text, mode=0o600)


def left_of_start(record: ServerRecord, registry: Registry, percent: int) -> str:
    """Return in words how long a start may still take; empty when nothing tells."""
    gone_s = time.time() - _began(record, registry)
    alike = [float(row["took_s"]) for row in _rows(registry) if row.get("like") == _kind(record)][-_LOOKED_AT:]
    if alike:
        times = "the last start" if len(alike) == 1 else f"the last {len(alike)} starts"
        return f"about {_words(max(0.0, median(alike) - gone_s))} left, by {times}"
    if percent >= _WARM_UP_PERCENT and gone_s > 0:
        return f"about {_words(gone_s * (100 - percent) / percent)} left, by what it took so far"
    return ""


def _kind(record: ServerRecord) -> str:
    across = (record.spec.get("vllm") or {}).get("tensor_parallel_size", 1)
    return json.dumps([record.engine, record.model, across, record.site.get("name", ""), record.site.get("device", "")])


def _began(record: ServerRecord, registry: Registry) -> float:
    """Return when the start itself began [s since the epoch]: of a job, when it had left the queue."""
    if record.how == "slurm":
        try:
            note = json.loads(registry.address_file(record.name).read_text())
            return float(note["at"]) if note.get("alias") == record.alias else record.started_at
        except (OSError, ValueError, KeyError, TypeError):
            return record.started_at
    return record.started_at


def _rows(registry: Registry) -> list[dict[str, Any]]:
    rows = []
    try:
        for line in read_lines(_file(registry)):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("took_s"), int | float):
                rows.append(row)
    except (OSError, ValueError):
        pass
    return rows


def _file(registry: Registry) -> Path:
    return registry.folder / "cache" / "starts.jsonl"


def _words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(5, round(seconds / 5) * 5)} s"
    return f"{round(seconds / 60)} min"
