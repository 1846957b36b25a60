"""What inspect's tau2 tells its models, taken from the package as it runs.

The agent's system prompt exists only inside the package's agent; it is had by running that agent with a limit of no
messages, in a context of its own so that nothing of it stays behind.
"""

from __future__ import annotations

import contextlib
import contextvars
from typing import Any

__all__ = ["agent_system_prompt", "user_guidelines", "user_opening"]


def agent_system_prompt(agent_module: Any, instance: str) -> str:
    """Return the system prompt that the package gives its agent; no model is called."""
    return str(contextvars.copy_context().run(_run_without_messages, agent_module, instance))


def _run_without_messages(agent_module: Any, instance: str) -> str:
    from inspect_ai.agent import AgentState
    from inspect_ai.model import GenerateConfig
    from inspect_ai.model._model import init_active_model
    from inspect_ai.util import Store, store_as
    from inspect_ai.util._store import init_subtask_store
    from inspect_evals.tau2.common.agents import StoredAgentState

    init_subtask_store(Store())
    # The agent only asks that there be a model. A real one loads every installed evaluation and nests the event loop.
    init_active_model(object(), GenerateConfig())
    run = agent_module.get_user_agent(instance=instance, message_limit=0)(AgentState(messages=[]))
    with contextlib.suppress(StopIteration):
        run.send(None)
    return str(store_as(StoredAgentState, instance).messages[0].text)


def user_opening() -> str:
    """Return the message that asks the user model for its first words."""
    from inspect_evals.tau2.common.dataset import USER_MESSAGE

    return str(USER_MESSAGE.text)


def user_guidelines(*, with_tools: bool = False) -> str:
    """Return what every simulated customer is told, before its scenario."""
    from inspect_evals.tau2.utils import USER_SIMULATOR_GUIDELINES, USER_SIMULATOR_GUIDELINES_WITH_TOOLS

    return str(USER_SIMULATOR_GUIDELINES_WITH_TOOLS if with_tools else USER_SIMULATOR_GUIDELINES)
