"""What was found in a file: its rows, one by one, and what it says about how they were made."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.records import Deed, Outcome, Party, Strategy, UserStrategy

__all__ = ["LOST", "Facts", "Fate", "Found", "SourceFile"]


class Fate(StrEnum):
    """What becomes of a row, in the words that a person reads."""

    KEPT = "kept"
    ALREADY = "already in the ledger"
    DUPLICATE = "duplicate of an earlier row"
    ERROR = "error row"
    INFRA = "infrastructure error"
    NO_SCORE = "without a score"
    OTHER_ENV = "of another env"
    UNKNOWN_TASK = "unknown task"
    OTHER_TASK = "task of another version"
    UNREADABLE = "unreadable"


LOST = frozenset({Fate.ERROR, Fate.INFRA, Fate.NO_SCORE})
"""A conversation was begun and lost: not adopted, and owed."""


@dataclass(frozen=True, slots=True)
class Found:
    """One row of a file."""

    row: int
    """Place in the file, from 0."""
    fate: Fate = Fate.KEPT
    why: str = ""
    """More about the fate: the error's text, what cannot be read."""
    env: str = ""
    task_id: str = ""
    trial: int = 0
    outcome: Outcome | None = None
    reward: float | None = None
    reward_info: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[dict[str, Any]] = ()
    deeds: Sequence[Deed] = ()
    started_at: float | None = None
    """Unix time [s]; None when the file does not tell."""
    finished_at: float | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    """Calls and tokens by the names of `CommitRow`, counted from the messages."""
    reference: str | None = None
    """The task's reference actions as canonical JSON; None when the file does not tell."""
    error: str = ""
    seed: int = 0
    simulated: bool = False

    def but(self, fate: Fate, why: str = "") -> Found:
        """Return the row with another fate."""
        return replace(self, fate=fate, why=why)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file tells of how its conversations were made; None where it is silent."""

    bench: str
    harness: str
    """Who wrote the conversations: `tau-bench`, `tau2-bench`, `inspect-evals`, `tautools`."""
    protocol: str
    source_version: str = "unknown"
    reward_basis: str = "unknown"
    env: str | None = None
    """Of all rows; None when each row tells, or nothing does."""
    split: str | None = None
    strategy: Strategy | None = None
    agent: Party | None = None
    user: Party | None = None
    user_strategy: UserStrategy | None = None
    num_trials: int | None = None
    seed: int | None = None
    setting_id: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SourceFile:
    """One file, read: nothing of it has been judged against the benchmark or the ledger."""

    path: Path
    sha256: str
    format: str
    facts: Facts
    rows: Sequence[Found]
    notes: Sequence[str] = ()
    """What was odd about it."""
