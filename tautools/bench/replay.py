"""What a stored conversation did, done again: the way to score it anew and to see what it changed.

A replay calls the benchmark's own tools in a fresh world, so it needs the benchmark and no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tautools.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from tautools.bench.types import Changes, Domain, Observation, Reward, Task
    from tautools.records import Deed

__all__ = ["Replayed", "replay", "run_now"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a replay."""

    deed: Deed
    seen: Observation
    wrote: bool
    """Whether the database was another one after it."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """A conversation done again."""

    steps: tuple[Step, ...]
    """Its calls."""
    said: tuple[str, ...]
    """The agent's words to the user."""
    changes: Changes
    """What differs from the database as loaded."""
    reward: Reward
    """The bench's verdict on the state reached and the words said."""


def replay(domain: Domain, task: Task, deeds: Sequence[Deed]) -> Replayed:
    """Do again what a conversation did, in a fresh world of `task`.

    Parameters
    ----------
    domain, task
        The env and the task of the conversation.
    deeds : sequence of Deed
        What was done, in order.

    Raises
    ------
    BenchError
        When a tool of the benchmark waits for something, which none does so far.
    """
    world = domain.world(task)
    steps, now = [], dict(world.changes())
    for deed in deeds:
        if deed.call:
            before, seen = now, run_now(world.call(deed.call, deed.arguments, deed.by))
            now = dict(world.changes())
            steps.append(Step(deed, seen, wrote=now != before))
    said = tuple(deed.said for deed in deeds if not deed.call)
    return Replayed(tuple(steps), said, now, world.reward(said))


def run_now(call: Coroutine[Any, Any, T]) -> T:
    """Run a tool's coroutine to its end without an event loop, so that this works inside one too.

    Raises
    ------
    BenchError
        When it waits for something.
    """
    try:
        call.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    call.close()
    raise BenchError(
        "A tool of the benchmark waits for something.",
        next_step="Replay it in an event loop instead; please report this bench and source.",
    )
