"""One env of inspect's tau2, loaded: tools, database, prompts, tasks, and what all its envs have in common.

The package's scorer rebuilds the expected database at every score and hashes both whole. Here the changes that the
reference makes are computed once per task, by the same calls, as the canonical JSON of each entity that they change.
The agent's system prompt exists only inside the package's agent, so that agent is run with a limit of no messages.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gzip
import json
from dataclasses import dataclass
from importlib import import_module
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from tautools.bench.agents import Tau2Domain
from tautools.bench.sources.copy_on_touch import LoadedTable, TouchedTable
from tautools.bench.sources.inspect_tools import InspectTools
from tautools.bench.types import ConversationProtocol, ReferenceAction, Task, text_hashes
from tautools.records import BenchRef, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def agent_system_prompt(agent_module: Any, instance: str) -> str:
    """Return the system prompt that the package gives its agent; no model is called."""
    from inspect_ai.agent import AgentState
    from inspect_ai.model import GenerateConfig
    from inspect_ai.model._model import init_active_model
    from inspect_ai.util import Store, store_as
    from inspect_ai.util._store import init_subtask_store
    from inspect_evals.tau2.common.agents import StoredAgentState

    def begin() -> str:
        init_subtask_store(Store())
        # The agent only asks that there be a model. A real one loads every evaluation and nests the event loop.
        init_active_model(object(), GenerateConfig())
        run = agent_module.get_user_agent(instance=instance, message_limit=0)(AgentState(messages=[]))
        with contextlib.suppress(StopIteration):
            run.send(None)
        return str(store_as(StoredAgentState, instance).messages[0].text)

    return contextvars.copy_context().run(begin)


INSPECT_PACKAGE = "inspect_evals.tau2"


class _EnvNames(NamedTuple):
    tool_class: str
    db_class: str
    instance: str


INSPECT_ENVS = {
    "airline": _EnvNames("AirlineAgentTools", "FlightDB", "AirlineAgent"),
    "retail": _EnvNames("RetailAgentTools", "RetailDB", "RetailAgent"),
    "telecom": _EnvNames("TelecomAgentTools", "TelecomDB", "TelecomAgent"),
}


@dataclass(frozen=True)
class LoadedEnv:
    """What all splits and all conversations of an env share."""

    tools: InspectTools
    """The agent's."""
    policy: str
    agent_system: str
    """The agent's system prompt, the policy in it."""


@dataclass(frozen=True)
class LoadedDatabase(LoadedEnv):
    """An env whose state is one database."""

    toolkit_class: type
    tables: Mapping[str, LoadedTable]

    def toolkit(self) -> Any:
        """Return the package's tool class on a database of its own."""
        kit = self.toolkit_class()
        kit.db = SimpleNamespace(**{name: TouchedTable(table) for name, table in self.tables.items()})
        return kit


@functools.cache
def load_database(env: str) -> LoadedDatabase:
    """Load an env whose state is one database: the slow part, once per process."""
    names = INSPECT_ENVS[env]
    tools = import_module(f"{INSPECT_PACKAGE}.{env}.tools")
    tool_class = getattr(import_module(f"{INSPECT_PACKAGE}.{env}.{names.tool_class}"), names.tool_class)
    database = getattr(import_module(f"{INSPECT_PACKAGE}.{env}.data_model"), names.db_class)
    # Not the package's own `load`: it leaves an unpacked copy in the temporary folder at each start.
    loaded = database.model_validate(_read_json(data_folder(env) / "db.json.gz"))
    return LoadedDatabase(
        tools=InspectTools(getattr(tools, f"all_{env}_tools"), f"get_{env}_tools"),
        toolkit_class=methods_of(tool_class),
        tables={name: LoadedTable(getattr(loaded, name)) for name in database.model_fields},
        policy=(data_folder(env) / "policy.txt").read_text(encoding="utf-8"),
        agent_system=agent_system_prompt(import_module(f"{INSPECT_PACKAGE}.{env}.agents"), names.instance),
    )


def methods_of(tool_class: type) -> type:
    """Return a class with the package's own methods and nothing of the store model they live on."""
    methods = {
        name: value
        for name, value in vars(tool_class).items()
        if isinstance(value, FunctionType | property) and not name.startswith(("__", "model_"))
    }
    return type(tool_class.__name__, (), methods)


def split_names(env: str) -> list[str]:
    """Return the names of an env's splits."""
    return list(_read_json(data_folder(env) / "split_tasks.json"))


def load_tasks(env: str, split: str) -> dict[str, Task]:
    """Return the tasks of a split by id, in the benchmark's order."""
    dataset = import_module(f"{INSPECT_PACKAGE}.{env}.dataset")
    to_sample = dataset.get_record_to_sample(INSPECT_ENVS[env].instance)
    wanted = set(_read_json(data_folder(env) / "split_tasks.json")[split])
    file = data_folder(env) / "tasks.json"
    records = _read_json(file if file.exists() else file.with_name("tasks.json.gz"))
    return {str(record["id"]): _read_task(to_sample(record)) for record in records if str(record["id"]) in wanted}


def _read_task(sample: Any) -> Task:
    source = import_module(f"{INSPECT_PACKAGE}.data_model.tasks").Task.model_validate(sample.metadata["task"])
    criteria = source.evaluation_criteria
    actions = () if criteria is None else criteria.actions or ()
    return Task(
        id=str(sample.id),
        user_system=sample.input[0].text,
        reference=tuple(
            ReferenceAction(action.name, action.arguments, str(action.requestor), action.compare_args)
            for action in actions
        ),
        communicate=() if criteria is None else tuple(criteria.communicate_info or ()),
        assertions=() if criteria is None else tuple(criteria.nl_assertions or ()),
        reward_basis=() if criteria is None else tuple(part.value for part in criteria.reward_basis),
        source_task=source,
    )


def data_folder(env: str) -> Path:
    """Return the folder in which the package keeps an env's data."""
    folder: Path = import_module(f"{INSPECT_PACKAGE}.utils").TAU2_DATA_DIR
    return folder / "domains" / env


def _read_json(path: Path) -> Any:
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)


INSPECT_SOURCE = "inspect-evals"
_MAX_ROUNDS = 100  # inspect_evals.tau2.common.agents.DEFAULT_MESSAGE_LIMIT
_STOP_WORDS = ("###STOP###", "###OUT-OF-SCOPE###", "###TRANSFER###")


class InspectDomain(Tau2Domain):
    """One env of tau2 with the tasks of one split.

    Parameters
    ----------
    env, split : str
        Their names.
    loaded : LoadedEnv
        The env, loaded.
    user_tools : InspectTools, optional
        What the customer can call itself.
    """

    def __init__(self, env: str, split: str, loaded: LoadedEnv, user_tools: InspectTools | None = None) -> None:
        from inspect_evals.tau2 import utils
        from inspect_evals.tau2.common.dataset import USER_MESSAGE

        super().__init__()
        self.ref = BenchRef("tau2", env, split, INSPECT_SOURCE)
        self.tools = loaded.tools.specs
        self.user_tools = user_tools.specs if user_tools else ()
        self.policy = loaded.policy
        self.agent_system = loaded.agent_system
        self.tasks = load_tasks(env, split)
        self.protocol = ConversationProtocol("inspect-tau2", USER_MESSAGE.text, None, _STOP_WORDS, _MAX_ROUNDS)
        texts = {
            "agent_system": self.agent_system,
            "policy": self.policy,
            "tasks": canonical_json({task.id: task.user_system for task in self.tasks.values()}),
            "tools": canonical_json(self.tools),
            "user_guidelines": utils.USER_SIMULATOR_GUIDELINES,
            "user_opening": USER_MESSAGE.text,
        }
        if self.user_tools:
            texts["user_guidelines"] = utils.USER_SIMULATOR_GUIDELINES_WITH_TOOLS
            texts["user_tools"] = canonical_json(self.user_tools)
        self.prompts = text_hashes(texts)
