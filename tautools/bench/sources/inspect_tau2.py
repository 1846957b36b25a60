"""tau2 from the PyPI package `inspect-evals`: airline, retail and telecom.

Tasks, tools, database, policy, prompts and guidelines are the package's own, read when they are asked for. The agent's
system prompt exists only inside the package's agent, so that agent is run with a limit of no messages. The sharing of
the database is ours: see `copy_on_touch`. The package's scorer rebuilds the expected database at every score and hashes
both whole. Here the changes that the reference makes are computed once per task, by the same calls, as the canonical
JSON of each entity that they change. In telecom the customer has a phone and tools for it: two databases, the carrier's
and the customer's, are kept in step by the package's own `Environment`, and the score rests on assertions.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module, metadata
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

from tautools.bench.sources.copy_on_touch import LoadedTable, TouchedTable, canonical_text
from tautools.bench.sources.inspect_tools import InspectTools
from tautools.bench.sources.tau2 import Tau2Domain, checked_assertion, read_tau2_task
from tautools.bench.types import (
    Changes,
    ConversationProtocol,
    Observation,
    Reward,
    Source,
    Task,
    as_bench_error,
    different_entities,
)
from tautools.errors import BenchError, NotInstalledError
from tautools.records import BenchRef, canonical_json

_ENVS = ("airline", "retail", "telecom")
_MAX_ROUNDS = 100  # inspect_evals.tau2.common.agents.DEFAULT_MESSAGE_LIMIT
_STOP_WORDS = ("###STOP###", "###OUT-OF-SCOPE###", "###TRANSFER###")
_TELECOM = "telecom"
_BANKING = (
    "Its agent searches a knowledge base of documents in one of three ways (grep, full_kb, no_knowledge), customer and "
    "agent change one database, and tools are handed out during the talk: none of that is built here."
)
_NOT_PLAYED = {"banking", "banking_knowledge"}
"""Domains of the package that have no source here."""


def _module(name: str) -> Any:
    """Return a module of the package's tau2, such as `retail.tools`."""
    return import_module(f"inspect_evals.tau2.{name}")


def _data_folder(env: str) -> Path:
    """Return the folder in which the package keeps an env's data."""
    folder: Path = _module("utils").TAU2_DATA_DIR
    return folder / "domains" / env


def _read_data(env: str, name: str) -> Any:
    """Return the content of a JSON file of an env's data, packed or not."""
    packed = _data_folder(env) / f"{name}.gz"
    return json.loads(gzip.decompress(packed.read_bytes()) if packed.exists() else packed.with_suffix("").read_bytes())


class InspectTau2(Source):
    """The source `inspect-evals`."""

    name = "inspect-evals"

    def __init__(self) -> None:
        super().__init__()
        try:
            self.version = metadata.version("inspect-evals")
        except metadata.PackageNotFoundError as error:
            raise NotInstalledError(
                "The package inspect-evals is not installed.",
                next_step="Install it in this environment: pip install 'inspect-evals>=0.26'.",
            ) from error

    def envs(self) -> Sequence[str]:
        """Return the names of the envs."""
        return _ENVS

    def splits(self, env: str) -> Sequence[str]:
        """Return the names of the splits of an env, the default one first."""
        if env in _NOT_PLAYED:
            raise BenchError(
                f"tautools does not play tau2's {env}.",
                evidence=f"inspect-evals {self.version} has it as `tau2_banking`. {_BANKING}",
                next_step=f"Choose another env ({', '.join(_ENVS)}); inspect's own command plays banking: "
                "inspect eval inspect_evals/tau2_banking.",
            )
        return super().splits(env)

    def _split_names(self, env: str) -> Sequence[str]:
        with self._as_expected():
            return list(_read_data(env, "split_tasks.json"))

    def _load(self, env: str, split: str) -> InspectDomain:
        with self._as_expected():
            return load_env(env).of_split(split)

    def _as_expected(self) -> contextlib.AbstractContextManager[None]:
        """Turn what a changed package raises into an error that says so."""
        problem = f"The installed inspect-evals {self.version} is not the package that tautools knows."
        next_step = "Install the versions of tautools' lock file: pip install 'inspect-evals==0.26.*'."
        return as_bench_error(problem, next_step, ImportError, AttributeError, FileNotFoundError, KeyError)


class InspectDomain(Tau2Domain):
    """One env of tau2, loaded once per process; `of_split` gives it the tasks of a split.

    `kits` are the tools of `assistant` and, where the customer has some, of `user`.
    """

    def __init__(self, env: str, policy: str, kits: Mapping[str, InspectTools]) -> None:
        super().__init__()
        self.ref = BenchRef("tau2", env, "", InspectTau2.name)
        self.kits, self.tools = kits, kits["assistant"].specs
        self.user_tools = kits["user"].specs if "user" in kits else ()
        self.policy, self.agent_system = policy, _agent_system_prompt(env)
        opening = _module("common.dataset").USER_MESSAGE.text
        self.protocol = ConversationProtocol("inspect-tau2", opening, None, _STOP_WORDS, _MAX_ROUNDS)

    def of_split(self, split: str) -> InspectDomain:
        """Return it with the tasks of one split."""
        domain = copy.copy(self)
        domain._expected = {}  # noqa: SLF001 - its own
        domain.ref = self.ref._replace(split=split)
        domain.tasks = _load_tasks(self.ref.env, split)
        utils = _module("utils")
        texts = {"user_guidelines": utils.USER_SIMULATOR_GUIDELINES, "user_opening": self.protocol.user_opening or ""}
        if self.user_tools:
            texts["user_guidelines"] = utils.USER_SIMULATOR_GUIDELINES_WITH_TOOLS
            texts["user_tools"] = canonical_json(self.user_tools)
        domain.prompts = domain._hash_prompts(**texts)  # noqa: SLF001 - its own
        return domain


def _load_tasks(env: str, split: str) -> dict[str, Task]:
    """Return the tasks of a split by id, in the benchmark's order."""
    to_sample = _module(f"{env}.dataset").get_record_to_sample(_agent_name(env))
    task_class = _module("data_model.tasks").Task
    wanted = set(_read_data(env, "split_tasks.json")[split])
    tasks = {}
    for record in _read_data(env, "tasks.json"):
        if str(record["id"]) in wanted:
            sample = to_sample(record)
            task = task_class.model_validate(sample.metadata["task"])
            tasks[str(record["id"])] = read_tau2_task(task.model_dump(mode="json"), sample.input[0].text, task)
    return tasks


def _agent_name(env: str) -> str:
    return f"{env.title()}Agent"


def _tool_class(env: str, side: str = "Agent") -> Any:
    """Return the package's class with the tools of one side."""
    name = f"{env.title()}{side}Tools"
    return getattr(_module(f"{env}.{name}"), name)


def _methods_of(tool_class: type) -> type:
    """Return a class with the package's own methods and nothing of the store model they live on."""
    methods = {
        name: value
        for name, value in vars(tool_class).items()
        if isinstance(value, FunctionType | property) and not name.startswith(("__", "model_"))
    }
    return type(tool_class.__name__, (), methods)


def _agent_system_prompt(env: str) -> str:
    """Return the system prompt that the package gives its agent; no model is called."""
    from inspect_ai.agent import AgentState
    from inspect_ai.model import GenerateConfig
    from inspect_ai.model._model import init_active_model
    from inspect_ai.util import Store, store_as
    from inspect_ai.util._store import init_subtask_store

    get_agent: Callable[..., Any] = _module(f"{env}.agents").get_user_agent
    stored = _module("common.agents").StoredAgentState

    def begin() -> str:
        init_subtask_store(Store())
        # The agent only asks that there be a model. A real one loads every evaluation and nests the event loop.
        init_active_model(object(), GenerateConfig())
        run = get_agent(instance=_agent_name(env), message_limit=0)(AgentState(messages=[]))
        with contextlib.suppress(StopIteration):
            run.send(None)
        return str(store_as(stored, _agent_name(env)).messages[0].text)

    return contextvars.copy_context().run(begin)


@functools.cache
def load_env(env: str) -> InspectDomain:
    """Load an env without tasks: the slow part, once per process."""
    return TelecomDomain() if env == _TELECOM else DatabaseDomain(env)


class DatabaseDomain(InspectDomain):
    """Airline or retail, whose state is one database."""

    reward_basis = "DB+COMMUNICATE"

    def __init__(self, env: str) -> None:
        from tautools.bench.sources.inspect_tools import InspectTools

        tools = InspectTools(getattr(_module(f"{env}.tools"), f"all_{env}_tools"), f"get_{env}_tools")
        super().__init__(env, (_data_folder(env) / "policy.txt").read_text(encoding="utf-8"), {"assistant": tools})
        tool_class = _tool_class(env)
        self.toolkit_class: Any = _methods_of(tool_class)
        database = tool_class.model_fields["db"].annotation
        # Not the package's own `load`: it leaves an unpacked copy in the temporary folder at each start.
        loaded = database.model_validate(_read_data(env, "db.json"))
        self.tables = {name: LoadedTable(getattr(loaded, name)) for name in database.model_fields}

    def env_state(self, task: Task) -> InspectEnvState:
        """Return a fresh state for one conversation of `task`."""
        return InspectEnvState(self, task)

    def _expected_changes(self, task: Task) -> Changes | None:
        """Do what the package's `get_expected_db` does: call the tool class's methods directly."""
        from inspect_ai.tool import ToolError

        criteria = task.source_task.evaluation_criteria
        if criteria is None or criteria.actions is None:
            return None
        state = self.env_state(task)
        for action in criteria.actions:
            if action.name not in {"calculate", "transfer_to_human_agents"}:
                with contextlib.suppress(ToolError):
                    getattr(state.toolkit, action.name)(**action.arguments)
        return state.changes()

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        return self.tables[table].text_of(key) if table in self.tables else None


class InspectEnvState:
    """One conversation's database behind the package's tools."""

    def __init__(self, domain: DatabaseDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self.tables = {name: TouchedTable(table) for name, table in domain.tables.items()}
        self.toolkit = domain.toolkit_class()
        self.toolkit.db = SimpleNamespace(**self.tables)

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.EnvState`."""
        if requestor != "assistant":
            return Observation(f"Error: Tool {name} not found", error=True)
        return await self._domain.kits[requestor].call(self.toolkit, name, arguments)

    def reward(self, agent_texts: Sequence[str]) -> Reward:
        """Score as the package's `<env>_scorer` does: the database, then what must have been said.

        The package reads the user's side of the conversation, its opening message included.
        """
        expected = self._domain.expected(self._task)
        different = [] if expected is None else different_entities(expected, self.changes())
        heard = "\n".join([self._domain.protocol.user_opening or "", *agent_texts]).lower().replace(",", "")
        missing = [info for info in self._task.communicate if info.lower() not in heard]
        return Reward.of_database(different, missing)

    def changes(self) -> Changes:
        """Return what the conversation has changed so far."""
        return {(name, key): text for name, table in self.tables.items() for key, text in table.changes().items()}


_SIDES = {"assistant": ("Agent", "tools", "db.toml"), "user": ("User", "user_tools", "user_db.toml")}
"""Requestor to its side in the package's words, its attribute of the environment, and its database."""


def _telecom_tools(requestor: str) -> InspectTools:
    from tautools.bench.sources.inspect_tools import InspectTools

    side, kit, _ = _SIDES[requestor]

    def synced_kit(environment: Any) -> Any:
        environment.sync_tools()
        return getattr(environment, kit)

    makers = getattr(_module(f"telecom.{kit}"), f"all_telecom_{side.lower()}_tools")
    return InspectTools(makers, f"get_telecom_{side.lower()}_tools", synced_kit)


def _initial_fields(tool_class: Any, database: str) -> dict[str, Any]:
    """Return the values that the package's own `initialize` leaves in the fields of a tool class."""
    own = {name: field for name, field in tool_class.model_fields.items() if name not in {"store", "instance"}}
    values = {name: field.get_default(call_default_factory=True) for name, field in own.items()}
    loaded = own["db"].annotation.load(str(_data_folder(_TELECOM) / database))
    return values | {"db": loaded, "initialized": True}


class TelecomDomain(InspectDomain):
    """Telecom, whose state is the carrier's database and the customer's."""

    reward_basis = "ENV_ASSERTION+ACTION"

    def __init__(self) -> None:
        policy = _module("telecom.agents").get_domain_policy(workflow=False)
        super().__init__(_TELECOM, policy, {requestor: _telecom_tools(requestor) for requestor in _SIDES})
        classes = {requestor: _tool_class(_TELECOM, side) for requestor, (side, *_) in _SIDES.items()}
        self._classes = {requestor: _methods_of(tool_class) for requestor, tool_class in classes.items()}
        self._fields = {requestor: _initial_fields(each, _SIDES[requestor][2]) for requestor, each in classes.items()}
        self.loaded = _entities(*(fields["db"] for fields in self._fields.values()))

    def environment(self, task: Task) -> Any:
        """Return the package's environment, on databases of its own, in the state from which the task starts."""
        kits = {_SIDES[requestor][1]: made() for requestor, made in self._classes.items()}
        # One copy of all: what is the same object in the package is the same object here.
        for requestor, fields in copy.deepcopy(self._fields).items():
            vars(kits[_SIDES[requestor][1]]).update(fields)
        environment = _module("telecom.environment").Environment(**kits)
        start = task.source_task.initial_state
        perform = _module("telecom.solver").perform_action
        for action in () if start is None else start.initialization_actions or ():
            perform(environment, action)
        return environment

    def env_state(self, task: Task) -> TelecomState:
        """Return a fresh state for one conversation of `task`."""
        return TelecomState(self, task)

    def _expected_changes(self, task: Task) -> Changes:
        """Return what initialization and reference of both sides change; the score does not rest on it."""
        state, _ = self.play_reference(task)
        return state.changes()

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        return self.loaded.get((table, key))


class TelecomState:
    """One conversation's two databases behind the package's tools."""

    def __init__(self, domain: TelecomDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self._environment = domain.environment(task)
        self._calls: dict[str, list[tuple[str, dict[str, Any]]]] = {requestor: [] for requestor in _SIDES}

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.EnvState`."""
        observation = await self._domain.kits[requestor].call(self._environment, name, arguments)
        self._calls[requestor].append((name, json.loads(observation.arguments)))
        return observation

    def reward(self, agent_texts: Sequence[str]) -> Reward:  # noqa: ARG002 - text is not scored in telecom
        """Score as the package's `telecom_scorer` does: required actions where the task asks for them, assertions."""
        self._environment.sync_tools()
        criteria = self._task.source_task.evaluation_criteria
        checked = [self._checked(each) for each in (criteria and criteria.env_assertions) or ()]
        missing = self._missing_actions() if "ACTION" in self._task.reward_basis else []
        passed = not missing and all(each["met"] for each in checked)
        return Reward(float(passed), {"assertions": checked, "missing_actions": missing})

    def _checked(self, assertion: Any) -> dict[str, Any]:
        kit = getattr(self._environment, _SIDES[assertion.env_type][1])
        met = getattr(kit, assertion.func_name)(**assertion.arguments) == assertion.assert_value
        return checked_assertion(vars(assertion), met=met)

    def _missing_actions(self) -> list[str]:
        """Return the required actions that neither side called, by the package's own comparison."""
        from inspect_ai.model import ChatMessageAssistant
        from inspect_ai.tool import ToolCall

        sides = []
        for calls in self._calls.values():
            made = [ToolCall("", name, arguments) for name, arguments in calls]
            sides.append(SimpleNamespace(messages=[ChatMessageAssistant(content="", tool_calls=made)]))
        unused = _module("common.scorer").find_unused_actions(*sides, self._task.source_task)
        return [f"{action.requestor}: {action.get_func_format()}" for action in unused]

    def changes(self) -> Changes:
        """Return what differs from the databases as loaded; the task's own initialization is part of it."""
        self._environment.sync_tools()
        now = _entities(self._environment.tools.db, self._environment.user_tools.db)
        loaded = self._domain.loaded
        return {place: now.get(place) for place in now.keys() | loaded.keys() if now.get(place) != loaded.get(place)}


def _entities(carrier: Any, user: Any) -> dict[tuple[str, str], str]:
    """Return the canonical JSON of every entity of both databases; the customer's are the table `user`."""
    entities = {
        (table, str(getattr(entity, f"{table[:-1]}_id"))): canonical_text(entity)
        for table in type(carrier).model_fields
        for entity in getattr(carrier, table)
    }
    return entities | {("user", part): canonical_text(getattr(user, part)) for part in type(user).model_fields}
