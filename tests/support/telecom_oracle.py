"""The package's own telecom, run as inspect runs it: what ours is compared with."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import Any

from inspect_ai.model import ChatMessageAssistant
from inspect_ai.scorer import Target
from inspect_ai.util import Store, store_as
from inspect_ai.util._store import init_subtask_store
from inspect_evals.tau2.common.agents import StoredAgentState
from inspect_evals.tau2.telecom.environment import get_environment
from inspect_evals.tau2.telecom.scorer import telecom_scorer
from inspect_evals.tau2.telecom.solver import telecom_initializer
from inspect_oracle import Answer, message_of, run_call, state_of

__all__ = ["PackageTelecom", "telecom_tools"]


@functools.cache
def telecom_tools(requestor: str) -> tuple[Any, ...]:
    """Return the package's tools of one side."""
    where, name = ("tools", "agent") if requestor == "assistant" else ("user_tools", "user")
    made = getattr(import_module(f"inspect_evals.tau2.telecom.{where}"), f"all_telecom_{name}_tools")
    return tuple(make() for make in made)


class PackageTelecom:
    """One sample's store with both of the package's tool classes in it, and the calls that were made."""

    def __init__(self, task_id: str) -> None:
        self.store = Store()
        self.state = state_of("telecom", task_id, [])
        self._made: list[ChatMessageAssistant] = []

    async def start(self) -> PackageTelecom:
        """Run the package's own initializer."""
        init_subtask_store(self.store)
        await telecom_initializer()(self.state, None)  # type: ignore[arg-type]
        return self

    async def call(self, name: str, arguments: str, requestor: str) -> Answer:
        """Run one call of one side as inspect's model loop does."""
        init_subtask_store(self.store)
        tools = telecom_tools(requestor)
        message = message_of(tools, name, arguments)
        (self.state.messages if requestor == "user" else self._made).append(message)
        return await run_call(message, tools)

    async def reward(self) -> float:
        """Return the verdict of the package's `telecom_scorer`, all of it."""
        init_subtask_store(self.store)
        store_as(StoredAgentState, "TelecomAgent").messages = list(self._made)
        score = await telecom_scorer()(self.state, Target(""))
        assert score is not None
        return 1.0 if score.value == "C" else 0.0

    def hashes(self) -> tuple[str, str]:
        """Return the package's full hash of the carrier's and of the customer's database, kept in step first."""
        init_subtask_store(self.store)
        environment = get_environment()
        return environment.tools.db.get_hash(), environment.user_tools.db.get_hash()
