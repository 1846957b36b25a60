"""tau2 from the PyPI package `inspect-evals`: airline, retail and telecom.

Tasks, tools, database, policy, prompts and guidelines are the package's own, read when they are asked for. The sharing
of the database is ours: see `copy_on_touch`. The package's scorer rebuilds the expected database at every score and
hashes both whole. Here the changes that the reference makes are computed once per task, by the same calls, as the
canonical JSON of each entity that they change. In telecom the customer has a phone and tools for it: two databases, the
carrier's and the customer's, are kept in step by the package's own `Environment`, and the score rests on assertions.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from dataclasses import dataclass
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tautools.bench.sources.copy_on_touch import LoadedTable, TouchedTable, canonical_text
from tautools.bench.sources.inspect_env import (
    INSPECT_ENVS,
    INSPECT_SOURCE,
    InspectDomain,
    LoadedEnv,
    agent_system_prompt,
    data_folder,
    inspect_module,
    methods_of,
    read_data,
    tool_class_of,
)
from tautools.bench.sources.inspect_tools import InspectTools
from tautools.bench.sources.tau2 import checked_assertion
from tautools.bench.types import Observation, Reward, Source, different_entities
from tautools.errors import BenchError, NotInstalledError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tautools.bench.types import Changes, Task


_TELECOM = "telecom"
_BANKING = (
    "Its agent searches a knowledge base of documents in one of three ways (grep, full_kb, no_knowledge), customer and "
    "agent change one database, and tools are handed out during the talk: none of that is built here."
)
_NOT_PLAYED = {"banking", "banking_knowledge"}
"""Domains of the package that have no source here."""


class InspectTau2(Source):
    """The source `inspect-evals`."""

    name = INSPECT_SOURCE

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
        return INSPECT_ENVS

    def _split_names(self, env: str) -> Sequence[str]:
        with self._as_expected():
            return list(read_data(env, "split_tasks.json"))

    def _check_env(self, env: str) -> None:
        if env in _NOT_PLAYED:
            raise BenchError(
                f"tautools does not play tau2's {env}.",
                evidence=f"inspect-evals {self.version} has it as `tau2_banking`. {_BANKING}",
                next_step=f"Choose another env ({', '.join(INSPECT_ENVS)}); inspect's own command plays banking: "
                "inspect eval inspect_evals/tau2_banking.",
            )
        super()._check_env(env)

    def _load(self, env: str, split: str) -> InspectDomain:
        with self._as_expected():
            return TelecomDomain(split) if env == _TELECOM else DatabaseDomain(env, split)

    @contextlib.contextmanager
    def _as_expected(self) -> Iterator[None]:
        """Turn what a changed package raises into an error that says so."""
        try:
            yield
        except (ImportError, AttributeError, FileNotFoundError, KeyError) as error:
            raise BenchError(
                f"The installed inspect-evals {self.version} is not the package that tautools knows.",
                evidence=f"{type(error).__name__}: {error}",
                next_step="Install the versions of tautools' lock file: pip install 'inspect-evals==0.26.*'.",
            ) from error


@dataclass(frozen=True)
class _LoadedDatabase(LoadedEnv):
    toolkit_class: type
    tables: Mapping[str, LoadedTable]

    def toolkit(self) -> Any:
        """Return the package's tool class on a database of its own."""
        kit = self.toolkit_class()
        kit.db = SimpleNamespace(**{name: TouchedTable(table) for name, table in self.tables.items()})
        return kit


@functools.cache
def _load_database(env: str) -> _LoadedDatabase:
    """Load an env whose state is one database: the slow part, once per process."""
    tool_class = tool_class_of(env)
    database = tool_class.model_fields["db"].annotation
    # Not the package's own `load`: it leaves an unpacked copy in the temporary folder at each start.
    loaded = database.model_validate(read_data(env, "db.json"))
    return _LoadedDatabase(
        tools=InspectTools(getattr(inspect_module(f"{env}.tools"), f"all_{env}_tools"), f"get_{env}_tools"),
        toolkit_class=methods_of(tool_class),
        tables={name: LoadedTable(getattr(loaded, name)) for name in database.model_fields},
        policy=(data_folder(env) / "policy.txt").read_text(encoding="utf-8"),
        agent_system=agent_system_prompt(env),
    )


class DatabaseDomain(InspectDomain):
    """Airline or retail with the tasks of one split."""

    reward_basis = "DB+COMMUNICATE"

    def __init__(self, env: str, split: str) -> None:
        self.shared = _load_database(env)
        super().__init__(env, split, self.shared)

    def env_state(self, task: Task) -> InspectEnvState:
        """Return a fresh state for one conversation of `task`."""
        return InspectEnvState(self, task)

    def _expected_changes(self, task: Task) -> Changes | None:
        """Do what the package's `get_expected_db` does: call the tool class's methods directly."""
        from inspect_ai.tool import ToolError

        criteria = task.source_task.evaluation_criteria
        if criteria is None or criteria.actions is None:
            return None
        toolkit = self.shared.toolkit()
        for action in criteria.actions:
            if action.name not in {"calculate", "transfer_to_human_agents"}:
                with contextlib.suppress(ToolError):
                    getattr(toolkit, action.name)(**action.arguments)
        return _changes(toolkit)

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        return self.shared.tables[table].text_of(key) if table in self.shared.tables else None


def _changes(toolkit: Any) -> Changes:
    return {(name, key): text for name, table in vars(toolkit.db).items() for key, text in table.changes().items()}


class InspectEnvState:
    """One conversation's database behind the package's tools."""

    def __init__(self, domain: DatabaseDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self._toolkit = domain.shared.toolkit()

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.EnvState`."""
        if requestor != "assistant":
            return Observation(f"Error: Tool {name} not found", error=True)
        return await self._domain.shared.tools.call(self._toolkit, name, arguments)

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
        return _changes(self._toolkit)


_SIDES = {"assistant": ("Agent", "tools", "db.toml"), "user": ("User", "user_tools", "user_db.toml")}
"""Requestor to its side in the package's words, its attribute of the environment, and its database."""


@dataclass(frozen=True)
class _LoadedTelecom(LoadedEnv):
    user_tools: InspectTools
    classes: Mapping[str, type]
    """Requestor to the tool class of its side."""
    fields: Mapping[str, Mapping[str, Any]]
    """Requestor to the values of the fields of its tool class, before any task."""

    def environment(self, task: Task) -> Any:
        """Return the package's environment, on databases of its own, in the state from which the task starts."""
        kits = {requestor: made() for requestor, made in self.classes.items()}
        # One copy of all: what is the same object in the package is the same object here.
        for requestor, fields in copy.deepcopy(dict(self.fields)).items():
            vars(kits[requestor]).update(fields)
        environment = inspect_module("telecom.environment").Environment(
            user_tools=kits["user"], tools=kits["assistant"]
        )
        start = task.source_task.initial_state
        perform = inspect_module("telecom.solver").perform_action
        for action in () if start is None else start.initialization_actions or ():
            perform(environment, action)
        return environment


@functools.cache
def _load_telecom() -> _LoadedTelecom:
    """Load telecom: the slow part, once per process."""
    classes = {requestor: tool_class_of(_TELECOM, side) for requestor, (side, *_) in _SIDES.items()}

    def tools(requestor: str) -> InspectTools:
        side, kit, _ = _SIDES[requestor]

        def synced_kit(environment: Any) -> Any:
            environment.sync_tools()
            return getattr(environment, kit)

        makers = getattr(inspect_module(f"telecom.{kit}"), f"all_telecom_{side.lower()}_tools")
        return InspectTools(makers, f"get_telecom_{side.lower()}_tools", synced_kit)

    return _LoadedTelecom(
        tools=tools("assistant"),
        user_tools=tools("user"),
        classes={requestor: methods_of(tool_class) for requestor, tool_class in classes.items()},
        fields={requestor: _initial_fields(each, _SIDES[requestor][2]) for requestor, each in classes.items()},
        policy=inspect_module("telecom.agents").get_domain_policy(workflow=False),
        agent_system=agent_system_prompt(_TELECOM),
    )


def _initial_fields(tool_class: Any, database: str) -> dict[str, Any]:
    """Return the values that the package's own `initialize` leaves in the fields of a tool class."""
    own = {name: field for name, field in tool_class.model_fields.items() if name not in {"store", "instance"}}
    values = {name: field.get_default(call_default_factory=True) for name, field in own.items()}
    loaded = own["db"].annotation.load(str(data_folder(_TELECOM) / database))
    return values | {"db": loaded, "initialized": True}


class TelecomDomain(InspectDomain):
    """Telecom with the tasks of one split."""

    reward_basis = "ENV_ASSERTION+ACTION"

    def __init__(self, split: str) -> None:
        self.shared = _load_telecom()
        super().__init__(_TELECOM, split, self.shared, self.shared.user_tools)
        self.loaded = _entities(self.shared.fields["assistant"]["db"], self.shared.fields["user"]["db"])

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
        self._environment = domain.shared.environment(task)
        self._calls: dict[str, list[tuple[str, dict[str, Any]]]] = {requestor: [] for requestor in _SIDES}

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.EnvState`."""
        tools = self._domain.shared.user_tools if requestor == "user" else self._domain.shared.tools
        observation = await tools.call(self._environment, name, arguments)
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
        return checked_assertion(assertion.model_dump(mode="json"), met=met)

    def _missing_actions(self) -> list[str]:
        """Return the required actions that neither side called, by the package's own comparison."""
        from inspect_ai.model import ChatMessageAssistant
        from inspect_ai.tool import ToolCall

        sides = []
        for calls in self._calls.values():
            made = [ToolCall("", name, arguments) for name, arguments in calls]
            sides.append(SimpleNamespace(messages=[ChatMessageAssistant(content="", tool_calls=made)]))
        unused = inspect_module("common.scorer").find_unused_actions(*sides, self._task.source_task)
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
