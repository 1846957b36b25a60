"""Conversations that are held and owe only a judge's verdict: `unjudged/<writer>.jsonl`.

A line is written and synced before the judge is asked, so whatever happens to the judge or to us, the conversation is
not held again. It counts as finished when its commit row is written, with the verdict in it, and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from tautools.files import read_lines
from tautools.records import Conversation, Record

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Unjudged", "read_unjudged"]


class Unjudged(Record):
    """One conversation without its verdict."""

    conversation: Conversation
    counts: dict[str, int] = Field(default_factory=dict)
    """Calls and tokens that it cost, by the names of `CommitRow`."""


def read_unjudged(folder: Path, setting_id: str) -> dict[tuple[str, int], Unjudged]:
    """Return what waits for a verdict, by task and trial, whether it has a commit row by now or not.

    Lines that cannot be read count as never written; of two for one conversation the first counts.
    """
    found: dict[tuple[str, int], Unjudged] = {}
    for path in sorted((folder / "unjudged").glob("*.jsonl")):
        for line in read_lines(path):
            try:
                each = Unjudged.model_validate_json(line)
            except ValidationError:
                continue
            if each.conversation.setting_id == setting_id:
                found.setdefault((each.conversation.task_id, each.conversation.trial), each)
    return found
