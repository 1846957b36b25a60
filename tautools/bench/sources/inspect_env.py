"""One env of inspect's tau2, loaded: tools, prompts, tasks, and what all its envs have in common.

The agent's system prompt exists only inside the package's agent, so that agent is run with a limit of no messages.
"""

from __future__ import annotations

import contextlib
import contextvars
import gzip
import json
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING, Any

from tautools.bench.sources.tau2 import Tau2Domain, read_tau2_task
from tautools.bench.types import ConversationProtocol
from tautools.records import BenchRef, canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tautools.bench.sources.inspect_tools import InspectTools
    from tautools.bench.types import Task

INSPECT_SOURCE = "inspect-evals"
INSPECT_ENVS = ("airline", "retail", "telecom")
_MAX_ROUNDS = 100  # inspect_evals.tau2.common.agents.DEFAULT_MESSAGE_LIMIT
_STOP_WORDS = ("###STOP###", "###OUT-OF-SCOPE###", "###TRANSFER###")


def inspect_module(name: str) -> Any:
    """Return a module of the package's tau2, such as `retail.tools`."""
    return import_module(f"inspect_evals.tau2.{name}")


def data_folder(env: str) -> Path:
    """Return the folder in which the package keeps an env's data."""
    folder: Path = inspect_module("utils").TAU2_DATA_DIR
    return folder / "domains" / env


def read_data(env: str, name: str) -> Any:
    """Return the content of a JSON file of an env's data, packed or not."""
    packed = data_folder(env) / f"{name}.gz"
    return json.loads(gzip.decompress(packed.read_bytes()) if packed.exists() else packed.with_suffix("").read_bytes())


@dataclass(frozen=True)
class LoadedEnv:
    """What all splits and all conversations of an env share."""

    tools: InspectTools
    """The agent's."""
    policy: str
    agent_system: str
    """The agent's system prompt, the policy in it."""


class InspectDomain(Tau2Domain):
    """One env of tau2 with the tasks of one split; `user_tools` are what the customer can call itself."""

    def __init__(self, env: str, split: str, loaded: LoadedEnv, user_tools: InspectTools | None = None) -> None:
        super().__init__()
        self.ref = BenchRef("tau2", env, split, INSPECT_SOURCE)
        self.tools = loaded.tools.specs
        self.policy, self.agent_system = loaded.policy, loaded.agent_system
        self.tasks = _load_tasks(env, split)
        opening = inspect_module("common.dataset").USER_MESSAGE.text
        self.protocol = ConversationProtocol("inspect-tau2", opening, None, _STOP_WORDS, _MAX_ROUNDS)
        texts = {"user_guidelines": inspect_module("utils").USER_SIMULATOR_GUIDELINES, "user_opening": opening}
        if user_tools:
            self.user_tools = user_tools.specs
            texts["user_guidelines"] = inspect_module("utils").USER_SIMULATOR_GUIDELINES_WITH_TOOLS
            texts["user_tools"] = canonical_json(self.user_tools)
        self.prompts = self._hash_prompts(**texts)


def _load_tasks(env: str, split: str) -> dict[str, Task]:
    """Return the tasks of a split by id, in the benchmark's order."""
    to_sample = inspect_module(f"{env}.dataset").get_record_to_sample(_agent_name(env))
    task_class = inspect_module("data_model.tasks").Task
    wanted = set(read_data(env, "split_tasks.json")[split])
    tasks = {}
    for record in read_data(env, "tasks.json"):
        if str(record["id"]) in wanted:
            sample = to_sample(record)
            task = task_class.model_validate(sample.metadata["task"])
            tasks[str(record["id"])] = read_tau2_task(task.model_dump(mode="json"), sample.input[0].text, task)
    return tasks


def _agent_name(env: str) -> str:
    return f"{env.title()}Agent"


def tool_class_of(env: str, side: str = "Agent") -> Any:
    """Return the package's class with the tools of one side."""
    name = f"{env.title()}{side}Tools"
    return getattr(inspect_module(f"{env}.{name}"), name)


def methods_of(tool_class: type) -> type:
    """Return a class with the package's own methods and nothing of the store model they live on."""
    methods = {
        name: value
        for name, value in vars(tool_class).items()
        if isinstance(value, FunctionType | property) and not name.startswith(("__", "model_"))
    }
    return type(tool_class.__name__, (), methods)


def agent_system_prompt(env: str) -> str:
    """Return the system prompt that the package gives its agent; no model is called."""
    from inspect_ai.agent import AgentState
    from inspect_ai.model import GenerateConfig
    from inspect_ai.model._model import init_active_model
    from inspect_ai.util import Store, store_as
    from inspect_ai.util._store import init_subtask_store

    get_agent: Callable[..., Any] = inspect_module(f"{env}.agents").get_user_agent
    stored = inspect_module("common.agents").StoredAgentState

    def begin() -> str:
        init_subtask_store(Store())
        # The agent only asks that there be a model. A real one loads every evaluation and nests the event loop.
        init_active_model(object(), GenerateConfig())
        run = get_agent(instance=_agent_name(env), message_limit=0)(AgentState(messages=[]))
        with contextlib.suppress(StopIteration):
            run.send(None)
        return str(store_as(stored, _agent_name(env)).messages[0].text)

    return contextvars.copy_context().run(begin)
