"""Where a job's server answers: the note that the job itself leaves when it starts on its node."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.records import ServerRecord

__all__ = ["located"]

_TOLD = ("job_id", "host", "base_url", "log_out", "log_err")


def located(record: ServerRecord, launches: Path) -> ServerRecord:
    """Return the record of a job's server with what its job has told; unchanged when it has not begun yet.

    A job may come back on another node or port: a certificate from before that proves nothing any more.
    """
    if record.how != "slurm":
        return record
    try:
        note = json.loads((launches / f"{record.name}.address").read_text())
        told = {field: str(note[field]) for field in _TOLD}
        alias, began_at = note["alias"], float(note["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return record
    if alias != record.alias:
        return record
    old = record.certificate
    if old is not None and (old.issued_at < began_at or old.base_url != told["base_url"]):
        old = None
    return record.model_copy(update={**told, "certificate": old})
