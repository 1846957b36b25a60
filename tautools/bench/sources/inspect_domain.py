"""What all envs of inspect's tau2 have in common: tasks, tools, prompts, and who plays the two sides."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from tautools.bench.agents import STRATEGIES, agent_instructions, make_agent
from tautools.bench.sources.inspect_env import load_tasks
from tautools.bench.sources.inspect_texts import user_guidelines, user_opening
from tautools.bench.types import Protocol_
from tautools.bench.users import make_user
from tautools.records import UserStrategy, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.agents.move import Speaker
    from tautools.bench.sources.inspect_tools import InspectTools
    from tautools.bench.types import Approach, Changes, Task, World
    from tautools.llm.types import ToolSpec
    from tautools.records import Strategy

__all__ = ["SOURCE", "InspectDomain", "Loaded"]

SOURCE = "inspect-evals"
_MAX_ROUNDS = 100  # inspect_evals.tau2.common.agents.DEFAULT_MESSAGE_LIMIT
_STOP_WORDS = ("###STOP###", "###OUT-OF-SCOPE###", "###TRANSFER###")


class Loaded(Protocol):
    """What all splits and all conversations of an env share."""

    @property
    def tools(self) -> InspectTools:
        """The agent's tools."""
        ...

    @property
    def policy(self) -> str:
        """What the agent has to keep to."""
        ...

    @property
    def agent_system(self) -> str:
        """The agent's system prompt, the policy in it."""
        ...


class InspectDomain(ABC):
    """One env of tau2 with the tasks of one split.

    Parameters
    ----------
    env, split : str
        Which.
    loaded : Loaded
        The env, loaded.
    user_tools : sequence of dict
        What the customer can call itself.
    """

    bench = "tau2"
    source = SOURCE
    path = python = ""
    strategies: Sequence[Strategy] = STRATEGIES
    user_strategies: Sequence[UserStrategy] = (UserStrategy.LLM,)
    reward_basis: str

    def __init__(self, env: str, split: str, loaded: Loaded, user_tools: Sequence[ToolSpec] = ()) -> None:
        self.env = env
        self.split = split
        self.tools: Sequence[ToolSpec] = loaded.tools.specs
        self.user_tools = user_tools
        self.policy = loaded.policy
        self.agent_system = loaded.agent_system
        self.tasks: Mapping[str, Task] = load_tasks(env, split)
        self.protocol = Protocol_("inspect-tau2", user_opening(), None, _STOP_WORDS, _MAX_ROUNDS)
        self.prompts = self._hashes()

    @abstractmethod
    def world(self, task: Task) -> World:
        """Return a fresh world for one conversation of `task`."""

    @abstractmethod
    def expected(self, task: Task) -> Changes | None:
        """Return what the reference actions change; None when the task has no reference."""

    @abstractmethod
    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""

    def agent(self, approach: Approach, seed: int) -> Speaker:  # noqa: ARG002 - nothing is drawn here
        """Return the agent of one conversation."""
        return make_agent(self, approach)

    def user(self, task: Task, approach: Approach) -> Speaker:  # noqa: ARG002 - there is one way only
        """Return the customer of one conversation."""
        return make_user(self, task)

    def instructions(self, approach: Approach) -> Mapping[str, str]:
        """Return the hashes of the texts that models are shown."""
        return agent_instructions(self, approach)

    def _hashes(self) -> Mapping[str, str]:
        texts = {
            "agent_system": self.agent_system,
            "policy": self.policy,
            "tasks": canonical_json({task.id: task.user_system for task in self.tasks.values()}),
            "tools": canonical_json(self.tools),
            "user_guidelines": user_guidelines(with_tools=bool(self.user_tools)),
            "user_opening": self.protocol.user_opening or "",
        }
        if self.user_tools:
            texts["user_tools"] = canonical_json(self.user_tools)
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
