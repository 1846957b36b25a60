"""How many answers are, word for word, the answer before of the same side.

A model that is asked with one seed for all turns draws each answer with the noise of the one before. Of results::

    share_of_repeats(*conversations_below(workspace))     # 0.0 .. 1.0, nan of no answers
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tautools.records import Conversation

__all__ = ["conversations_below", "repeats", "share_of_repeats"]


def conversations_below(folder: Path) -> list[Conversation]:
    """Return every finished conversation that is stored below a folder."""
    files = sorted(folder.rglob("conversations/*.jsonl"))
    return [Conversation.model_validate_json(line) for path in files for line in path.read_text().splitlines() if line]


def repeats(conversations: Iterable[Conversation]) -> tuple[int, int]:
    """Return how many answers repeat the one before of their side, and how many have one before."""
    same = [pair[0] == pair[1] for talk in conversations for pair in _neighbours(talk)]
    return sum(same), len(same)


def share_of_repeats(*conversations: Conversation) -> float:
    """Return the share of answers that repeat the one before of their side."""
    same, of = repeats(conversations)
    return same / of if of else float("nan")


def _neighbours(talk: Conversation) -> Iterator[tuple[str, str]]:
    for messages in (talk.messages, talk.user_messages):
        said = [_said(message) for message in messages if message["role"] == "assistant"]
        yield from itertools.pairwise(said)


def _said(message: Mapping[str, Any]) -> str:
    calls: Sequence[Mapping[str, Any]] = message.get("tool_calls") or ()
    return json.dumps([message.get("content") or "", [call["function"] for call in calls]])
