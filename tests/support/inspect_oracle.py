"""The package's own machinery, run as inspect runs it: what our tools, observations and rewards are compared with."""

from __future__ import annotations

import functools
import gc
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelName, execute_tools
from inspect_ai.model._call_tools import parse_tool_call
from inspect_ai.model._openai import openai_chat_message
from inspect_ai.scorer import Target
from inspect_ai.solver import TaskState
from inspect_ai.tool._tool_info import parse_tool_info
from inspect_ai.util import Store
from inspect_ai.util._store import init_subtask_store
from inspect_evals.tau2.common.scorer import get_expected_db
from inspect_evals.tau2.utils import TAU2_DATA_DIR

NAMES = {
    "airline": ("AirlineAgentTools", "AirlineTools", "FlightDB"),
    "retail": ("RetailAgentTools", "RetailTools", "RetailDB"),
}


def make_bearable(monkeypatch: Any) -> None:
    """Spare the package three repeated costs, so that hundreds of its calls take seconds; no result changes.

    It logs the difference of the whole store at each call, builds a pydantic adapter at each access of the store, and
    unpacks its database at each score.
    """
    store_model = import_module("inspect_ai.util._store_model")
    monkeypatch.setattr(store_model, "TypeAdapter", functools.cache(store_model.TypeAdapter))
    monkeypatch.setattr(import_module("inspect_ai.log._transcript"), "store_jsonable", lambda _: {})
    monkeypatch.setattr(import_module("inspect_evals.tau2.environment.db"), "load_file", load_file)


load_file = functools.cache(import_module("inspect_evals.tau2.utils").load_file)
"""The package's own reader of files, each file once."""


def loaded_database(env: str) -> Any:
    """Return a database of its own, loaded as the package loads it."""
    model = getattr(import_module(f"inspect_evals.tau2.{env}.data_model"), NAMES[env][2])
    return model.model_validate(load_file(str(TAU2_DATA_DIR / "domains" / env / "db.json.gz")))


@functools.cache
def base_hash(env: str) -> str:
    """Return the package's hash of the database as loaded."""
    return str(loaded_database(env).get_hash())


@functools.cache
def tools_of(env: str) -> tuple[Any, ...]:
    """Return the package's tools."""
    return tuple(make() for make in getattr(import_module(f"inspect_evals.tau2.{env}.tools"), f"all_{env}_tools"))


@dataclass
class Answer:
    """What a tool call becomes on the wire of inspect's OpenAI provider."""

    content: str
    arguments: dict[str, Any]
    failed: bool
    crashed: bool = False
    """Whether the tool raised what inspect turns into no tool error: its agent's whole turn is lost."""


class PackageWorld:
    """One sample's store with the package's tool class in it."""

    def __init__(self, env: str) -> None:
        class_name, instance, _ = NAMES[env]
        self.env = env
        self.store = Store()
        self.store.set(f"{class_name}:{instance}:db", loaded_database(env))
        self.store.set(f"{class_name}:{instance}:initialized", True)
        self._db_key = f"{class_name}:{instance}:db"

    def enter(self) -> None:
        """Make this the current sample's store."""
        init_subtask_store(self.store)

    async def call(self, name: str, arguments: str) -> Answer:
        """Run one call as inspect's model loop does and return what its provider sends."""
        self.enter()
        tools = tools_of(self.env)
        return await run_call(message_of(tools, name, arguments), tools)

    def hash(self) -> str:
        """Return the package's full hash of the database."""
        return str(self.store.get(self._db_key).get_hash())


def message_of(tools: Sequence[Any], name: str, arguments: str) -> ChatMessageAssistant:
    """Return the message of one call, its arguments read as inspect reads them."""
    return ChatMessageAssistant(content="", tool_calls=[parse_tool_call("call", name, arguments, infos_of(tools))])


async def run_call(message: ChatMessageAssistant, tools: Sequence[Any]) -> Answer:
    """Run the one call of a message in the current store and return what inspect's provider sends."""
    assert message.tool_calls
    (call,) = message.tool_calls
    try:
        messages, _ = await execute_tools([message], list(tools))
    except Exception as error:
        answer = Answer(f"Error: {error}", call.arguments, failed=True, crashed=True)
    else:
        sent = await openai_chat_message(messages[0])
        return Answer(str(sent["content"]), call.arguments, messages[0].error is not None)
    with warnings.catch_warnings():
        # The package leaves its streams open when a tool crashes; collected here, they disturb no other test.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return answer


def infos_of(tools: Sequence[Any]) -> list[Any]:
    """Return the tools as inspect tells a provider about them."""
    return [_info(tool) for tool in tools]


@functools.cache
def _info(tool: Any) -> Any:
    from inspect_ai.tool import ToolDef, ToolInfo

    assert parse_tool_info(tool) is not None
    found = ToolDef(tool)
    return ToolInfo(name=found.name, description=found.description, parameters=found.parameters)


@functools.cache
def samples_of(env: str) -> dict[str, Any]:
    """Return the package's samples by id."""
    dataset = import_module(f"inspect_evals.tau2.{env}.dataset")
    return {str(sample.id): sample for sample in dataset.read_dataset(f"{env.title()}Agent")}


@functools.cache
def expected_hash(env: str, task_id: str) -> str:
    """Return the hash of the database that the package's own scorer expects."""
    init_subtask_store(Store())
    actions = samples_of(env)[task_id].metadata["task"]["evaluation_criteria"]["actions"]
    action = import_module("inspect_evals.tau2.data_model.tasks").Action
    return str(get_expected_db(env, [action.model_validate(found) for found in actions]).db.get_hash())  # type: ignore[arg-type]


def state_of(env: str, task_id: str, said: list[str]) -> TaskState:
    """Return the state that the package's scorers read, after an agent said `said` to the user."""
    sample = samples_of(env)[task_id]
    messages = [*sample.input, *(ChatMessageUser(content=text) for text in said)]
    return TaskState(
        model=ModelName("none/none"),
        sample_id=task_id,
        epoch=1,
        input=sample.input,
        messages=messages,
        metadata=dict(sample.metadata),
    )


async def communicated(env: str, task_id: str, said: list[str]) -> bool:
    """Return the verdict of the package's `score_communicated_info`."""
    scorer = import_module("inspect_evals.tau2.common.scorer").score_communicated_info()
    return bool((await scorer(state_of(env, task_id, said), Target(""))).value == "C")


async def full_score(env_state: PackageWorld, task_id: str, said: list[str]) -> float:
    """Return the reward of the package's `<env>_scorer`, all of it, on a world."""
    env_state.enter()
    module = import_module(f"inspect_evals.tau2.{env_state.env}.scorer")
    scorer = getattr(module, f"{env_state.env}_scorer")()
    score = await scorer(state_of(env_state.env, task_id, said), Target(""))
    return 1.0 if score.value == "C" else 0.0
