"""tau2 from the PyPI package `inspect-evals`: airline, retail and telecom.

Tasks, tools, database, policy, prompts and guidelines are the package's own, read when they are asked for. The sharing
of the database is ours: see `copy_on_touch`. In telecom the customer has a phone and tools for it: two databases, the
carrier's and the customer's, are kept in step by the package's own `Environment`, and the score rests on assertions.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from dataclasses import dataclass
from importlib import import_module, metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tautools.bench.sources.copy_on_touch import canonical_text
from tautools.bench.sources.inspect_env import (
    INSPECT_ENVS,
    INSPECT_PACKAGE,
    INSPECT_SOURCE,
    InspectDomain,
    LoadedEnv,
    agent_system_prompt,
    data_folder,
    load_database,
    methods_of,
    split_names,
)
from tautools.bench.sources.inspect_tools import InspectTools
from tautools.bench.types import Observation, Reward, Source, call_text, different_entities
from tautools.errors import BenchError, NotInstalledError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tautools.bench.types import Changes, Task


_TELECOM = "telecom"
_SIDES = {"assistant": ("Agent", "db.toml"), "user": ("User", "user_db.toml")}
"""Requestor to the name and the database of its side, in the package's words."""


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
        environment = _telecom_module("environment").Environment(user_tools=kits["user"], tools=kits["assistant"])
        start = task.source_task.initial_state
        perform = _telecom_module("solver").perform_action
        for action in () if start is None else start.initialization_actions or ():
            perform(environment, action)
        return environment


@functools.cache
def _load_telecom() -> _LoadedTelecom:
    """Load telecom: the slow part, once per process."""
    agents = _telecom_module("agents")
    classes = {
        requestor: getattr(_telecom_module(f"Telecom{side}Tools"), f"Telecom{side}Tools")
        for requestor, (side, _) in _SIDES.items()
    }

    def tools(module: str, side: str, kit: str) -> InspectTools:
        def synced_kit(environment: Any) -> Any:
            environment.sync_tools()
            return getattr(environment, kit)

        makers = getattr(_telecom_module(module), f"all_telecom_{side}_tools")
        return InspectTools(makers, f"get_telecom_{side}_tools", synced_kit)

    return _LoadedTelecom(
        tools=tools("tools", "agent", "tools"),
        user_tools=tools("user_tools", "user", "user_tools"),
        classes={requestor: methods_of(tool_class) for requestor, tool_class in classes.items()},
        fields={requestor: _initial_fields(each, _SIDES[requestor][1]) for requestor, each in classes.items()},
        policy=agents.get_domain_policy(workflow=False),
        agent_system=agent_system_prompt(agents, INSPECT_ENVS[_TELECOM].instance),
    )


def _telecom_module(name: str) -> Any:
    return import_module(f"{INSPECT_PACKAGE}.{_TELECOM}.{name}")


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
        assertions = () if criteria is None else criteria.env_assertions or ()
        checked = [self._checked(each) for each in assertions]
        missing = self._missing_actions()
        passed = not missing and all(each["met"] for each in checked)
        return Reward(float(passed), {"assertions": checked, "missing_actions": missing})

    def _checked(self, assertion: Any) -> dict[str, Any]:
        environment, wanted = self._environment, assertion.assert_value
        kit = environment.tools if assertion.env_type == "assistant" else environment.user_tools
        text = call_text(assertion.env_type, assertion.func_name, assertion.arguments)
        met = getattr(kit, assertion.func_name)(**assertion.arguments) == wanted
        return {"assertion": text if wanted else f"{text} is {wanted}", "met": bool(met)}

    def _missing_actions(self) -> list[str]:
        """Return the required actions that neither side called, by the package's own comparison."""
        task = self._task.source_task
        if task.evaluation_criteria is None or "ACTION" not in task.evaluation_criteria.reward_basis:
            return []
        agent, user = (
            SimpleNamespace(messages=[_message_with_calls(self._calls[side])]) for side in ("assistant", "user")
        )
        unused = import_module(f"{INSPECT_PACKAGE}.common.scorer").find_unused_actions(agent, user, task)
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


def _message_with_calls(calls: Sequence[tuple[str, dict[str, Any]]]) -> Any:
    from inspect_ai.model import ChatMessageAssistant
    from inspect_ai.tool import ToolCall

    return ChatMessageAssistant(content="", tool_calls=[ToolCall("", name, arguments) for name, arguments in calls])


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
        return tuple(INSPECT_ENVS)

    def _split_names(self, env: str) -> Sequence[str]:
        with _as_expected(self.version):
            return split_names(env)

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
        with _as_expected(self.version):
            return TelecomDomain(split) if env == _TELECOM else DatabaseDomain(env, split)


@contextlib.contextmanager
def _as_expected(version: str) -> Iterator[None]:
    """Turn what a changed package raises into an error that says so."""
    try:
        yield
    except (ImportError, AttributeError, FileNotFoundError, KeyError) as error:
        raise BenchError(
            f"The installed inspect-evals {version} is not the package that tautools knows.",
            evidence=f"{type(error).__name__}: {error}",
            next_step="Install the versions of tautools' lock file: pip install 'inspect-evals==0.26.*'.",
        ) from error


class DatabaseDomain(InspectDomain):
    """Airline or retail with the tasks of one split."""

    reward_basis = "DB+COMMUNICATE"

    def __init__(self, env: str, split: str) -> None:
        self.shared = load_database(env)
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
        actual = self.changes()
        different = [] if expected is None else different_entities(expected, actual)
        heard = "\n".join([self._domain.protocol.user_opening or "", *agent_texts]).lower().replace(",", "")
        missing = [info for info in self._task.communicate if info.lower() not in heard]
        info = {
            "db": not different,
            "communicate": not missing,
            "missing_info": missing,
            "different": different,
        }
        return Reward(0.0 if different or missing else 1.0, info)

    def changes(self) -> Changes:
        """Return what the conversation has changed so far."""
        return _changes(self._toolkit)
