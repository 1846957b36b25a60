"""Replay a stored conversation, to score it again and to see what it changed; two rewards that need no model.

A replay calls the benchmark's own tools in a fresh world, so it needs the benchmark and no model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tautools.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from tautools.bench.types import Changes, Domain, Observation, Reward, Task
    from tautools.records import TrajectoryAction


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """One call of a replay."""

    deed: TrajectoryAction
    seen: Observation
    wrote: bool
    """Whether the database was another one after it."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A conversation done again."""

    steps: tuple[ReplayStep, ...]
    """Its calls."""
    said: tuple[str, ...]
    """The agent's words to the user."""
    changes: Changes
    """What differs from the database as loaded."""
    reward: Reward
    """The bench's verdict on the state reached and the words said."""


def replay(domain: Domain, task: Task, actions: Sequence[TrajectoryAction]) -> Replay:
    """Do again what a conversation did, in a fresh world of `task`.

    Parameters
    ----------
    domain, task
        The env and the task of the conversation.
    actions : sequence of Deed
        What was done, in order.

    Raises
    ------
    BenchError
        When a tool of the benchmark waits for something, which none does so far.
    """
    env_state = domain.env_state(task)
    steps, now = [], dict(env_state.changes())
    for deed in actions:
        if deed.call:
            before, seen = now, run_without_loop(env_state.call(deed.call, deed.arguments, deed.by))
            now = dict(env_state.changes())
            steps.append(ReplayStep(deed, seen, wrote=now != before))
    said = tuple(deed.said for deed in actions if not deed.call)
    return Replay(tuple(steps), said, now, env_state.reward(said))


def run_without_loop(call: Coroutine[Any, Any, T]) -> T:
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


def null_baseline(domain: Domain) -> dict[str, float]:
    """Return, by task id, the reward of an agent that calls no tool and says nothing, by the bench's scorer."""
    return {name: domain.env_state(task).reward([]).value for name, task in domain.tasks.items()}


def reference_reward(domain: Domain, task: Task) -> Reward:
    """Return the reward of an agent that makes the reference's calls and says what it must say.

    The calls go the way that a model's calls go, through the bench's validation, so a reference that the bench's own
    tools refuse shows here.
    """
    env_state = domain.env_state(task)
    for action in task.reference:
        run_without_loop(env_state.call(action.name, json.dumps(dict(action.arguments)), action.requestor))
    return env_state.reward(list(task.communicate))
