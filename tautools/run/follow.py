"""Watches a conversation while it is being held, from whatever process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tautools.run.claims import running
from tautools.run.interleave import interleaved
from tautools.run.ledger import read_conversation, read_ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.run.claims import Running
    from tautools.run.folder import SettingFolder

__all__ = ["follow", "now_running"]


def now_running(
    folders: Sequence[SettingFolder], *, task_id: str | None = None, trial: int | None = None
) -> list[tuple[SettingFolder, Running]]:
    """Return the conversations that are being held now and fit, the longest running of each folder first."""
    return [
        (folder, each)
        for folder in folders
        for each in running(folder.path)
        if task_id in {None, each.task_id} and trial in {None, each.trial}
    ]


def follow(folder: SettingFolder, which: Running, *, poll_s: float = 0.2) -> Iterator[dict[str, Any]]:
    """Yield the messages of a running conversation, those of the past at once, until it ends."""
    seen = 0
    latest: Running | None = which
    while latest is not None:
        yield from latest.messages[seen:]
        seen = len(latest.messages)
        time.sleep(poll_s)
        same = (each for each in running(folder.path) if each.path == which.path)
        latest = next((each for each in same if each.owner == which.owner), None)
    yield from _ended(folder, which)[seen:]


def _ended(folder: SettingFolder, which: Running) -> list[dict[str, Any]]:
    """Return the messages of the conversation as it was finished; none when it was not."""
    row = read_ledger(folder.path).get((folder.id, which.task_id, which.trial))
    if row is None or row.writer != which.owner.get("writer"):
        return []
    return interleaved(read_conversation(folder.path, row))
