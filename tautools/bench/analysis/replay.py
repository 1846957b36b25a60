"""Replay a stored conversation, to score it again and to see what it changed; two rewards that need no model.

A replay calls the benchmark's own tools in a fresh environment, so it needs the benchmark and no model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tautools.bench.types import run_without_loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import Changes, Domain, Observation, Reward, Task
    from tautools.records import TrajectoryAction


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """One call of a replay."""

    action: TrajectoryAction
    observation: Observation
    wrote: bool
    """Whether it changed the database."""

    @property
    def arguments(self) -> Any:
        """The call's arguments; the text itself when it is no JSON."""
        try:
            return json.loads(self.action.arguments or "{}")
        except ValueError:
            return self.action.arguments


@dataclass(frozen=True, slots=True)
class Replay:
    """What a conversation did, done again in a fresh environment."""

    steps: tuple[ReplayStep, ...]
    """Its calls."""
    said: tuple[str, ...]
    """What the agent said to the user."""
    changes: Changes
    """What differs from the database as loaded."""
    reward: Reward
    """The bench's reward for the state reached and the agent's texts."""


def replay(domain: Domain, task: Task, actions: Sequence[TrajectoryAction]) -> Replay:
    """Do again what a conversation did, in a fresh environment of `task`.

    Parameters
    ----------
    domain, task
        The env and the task of the conversation.
    actions : sequence of TrajectoryAction
        What was done, in order.

    Raises
    ------
    BenchError
        When a tool of the benchmark awaits something, which none does so far.
    """
    env_state = domain.env_state(task)
    steps, now = [], dict(env_state.changes())
    for action in actions:
        if action.call:
            before, observation = now, run_without_loop(env_state.call(action.call, action.arguments, action.by))
            now = dict(env_state.changes())
            steps.append(ReplayStep(action, observation, wrote=now != before))
    said = tuple(action.text for action in actions if not action.call)
    return Replay(tuple(steps), said, now, env_state.reward(said))


def null_baseline(domain: Domain) -> dict[str, float]:
    """Return, by task id, the reward of an agent that calls no tool and says nothing, by the bench's scorer."""
    return {name: domain.env_state(task).reward([]).value for name, task in domain.tasks.items()}


def reference_reward(domain: Domain, task: Task) -> Reward:
    """Return the reward of an agent that makes the reference's calls and says what it must say.

    The calls pass the bench's validation as a model's calls do, so a reference that the bench's own tools refuse shows
    here.
    """
    state, _ = domain.play_reference(task)
    return state.reward(list(task.communicate))
