"""Two rewards that need no model: of doing nothing, and of doing what the reference does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tautools.bench.replay import run_now

if TYPE_CHECKING:
    from tautools.bench.types import Domain, Reward, Task

__all__ = ["do_nothing_floor", "reference_reward"]


def do_nothing_floor(domain: Domain) -> dict[str, float]:
    """Return, by task id, the reward of an agent that calls no tool and says nothing, by the bench's scorer."""
    return {name: domain.world(task).reward([]).value for name, task in domain.tasks.items()}


def reference_reward(domain: Domain, task: Task) -> Reward:
    """Return the reward of an agent that makes the reference's calls and says what it must say.

    The calls go the way that a model's calls go, through the bench's validation, so a reference that the bench's own
    tools refuse shows here.
    """
    world = domain.world(task)
    for action in task.reference:
        run_now(world.call(action.name, json.dumps(dict(action.arguments)), action.requestor))
    return world.reward(list(task.communicate))
