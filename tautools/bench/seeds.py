"""The seed of a conversation."""

from __future__ import annotations

import hashlib

from tautools.records import canonical_json

__all__ = ["conversation_seed"]


def conversation_seed(seed: int, task_id: str, trial: int) -> int:
    """Return the seed that every request of one conversation carries.

    It depends on the run's seed, the task and the trial and on nothing else, so that strategies, models and personas
    meet the same seeds and can be compared in pairs.

    Returns
    -------
    int
        In 0 .. 2**31 - 1.
    """
    digest = hashlib.sha256(canonical_json([seed, task_id, trial]).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
