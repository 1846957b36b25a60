"""tau2's telecom: the customer has a phone and tools for it, and the score rests on assertions about phone and carrier.

Two databases, the carrier's and the customer's, are kept in step by the package's own `Environment`: before each call
of a tool and before the score, as the package does it. A conversation gets a copy of both, made ready by the task's own
initialization actions, again by the package.
"""

from __future__ import annotations

import copy
import functools
import json
from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from tautools.bench.replay import run_now
from tautools.bench.sources.copy_on_touch import canonical_entity
from tautools.bench.sources.inspect_domain import InspectDomain
from tautools.bench.sources.inspect_env import ENVS, PACKAGE, data_folder, methods_of
from tautools.bench.sources.inspect_texts import agent_system_prompt
from tautools.bench.sources.inspect_tools import InspectTools, load_tools
from tautools.bench.types import Reward

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.types import Changes, Observation, Task

__all__ = ["TelecomDomain", "TelecomWorld"]

_ENV = "telecom"
_SIDES = {"assistant": ("Agent", "db.toml"), "user": ("User", "user_db.toml")}
"""Requestor to the name and the database of its side, in the package's words."""


class _Telecom(NamedTuple):
    """What all conversations share."""

    tools: InspectTools
    user_tools: InspectTools
    classes: Mapping[str, type]
    """Requestor to the tool class of its side."""
    fields: Mapping[str, Mapping[str, Any]]
    """Requestor to the values of the fields of its tool class, before any task."""
    policy: str
    agent_system: str

    def environment(self, task: Task) -> Any:
        """Return the package's environment, on databases of its own, in the state from which the task starts."""
        kits = {requestor: made() for requestor, made in self.classes.items()}
        # One copy of all: what is the same object in the package is the same object here.
        for requestor, fields in copy.deepcopy(dict(self.fields)).items():
            vars(kits[requestor]).update(fields)
        environment = _module("environment").Environment(user_tools=kits["user"], tools=kits["assistant"])
        start = task.source_task.initial_state
        perform = _module("solver").perform_action
        for action in () if start is None else start.initialization_actions or ():
            perform(environment, action)
        return environment


@functools.cache
def _load() -> _Telecom:
    """Load telecom: the slow part, once per process."""
    agents = _module("agents")
    classes = {requestor: _tool_class(side) for requestor, (side, _) in _SIDES.items()}
    return _Telecom(
        tools=load_tools(_module("tools").all_telecom_agent_tools, "get_telecom_agent_tools", _agent_kit),
        user_tools=load_tools(_module("user_tools").all_telecom_user_tools, "get_telecom_user_tools", _user_kit),
        classes={requestor: methods_of(found) for requestor, found in classes.items()},
        fields={requestor: _fields(found, _SIDES[requestor][1]) for requestor, found in classes.items()},
        policy=agents.get_domain_policy(workflow=False),
        agent_system=agent_system_prompt(agents, ENVS[_ENV].instance),
    )


def _module(name: str) -> Any:
    return import_module(f"{PACKAGE}.{_ENV}.{name}")


def _tool_class(side: str) -> Any:
    return getattr(_module(f"Telecom{side}Tools"), f"Telecom{side}Tools")


def _fields(tool_class: Any, database: str) -> dict[str, Any]:
    """Return the values that the package's own `initialize` leaves in the fields of a tool class."""
    own = {name: field for name, field in tool_class.model_fields.items() if name not in {"store", "instance"}}
    values = {name: field.get_default(call_default_factory=True) for name, field in own.items()}
    loaded = own["db"].annotation.load(str(data_folder(_ENV) / database))
    return values | {"db": loaded, "initialized": True}


def _agent_kit(environment: Any) -> Any:
    environment.sync_tools()
    return environment.tools


def _user_kit(environment: Any) -> Any:
    environment.sync_tools()
    return environment.user_tools


class TelecomDomain(InspectDomain):
    """Telecom with the tasks of one split."""

    reward_basis = "ENV_ASSERTION+ACTION"

    def __init__(self, split: str) -> None:
        self.shared = _load()
        super().__init__(_ENV, split, self.shared, self.shared.user_tools.specs)
        self.loaded = _entities(self.shared.fields["assistant"]["db"], self.shared.fields["user"]["db"])
        self._expected: dict[str, Changes] = {}

    def world(self, task: Task) -> TelecomWorld:
        """Return a fresh world for one conversation of `task`."""
        return TelecomWorld(self, task)

    def expected(self, task: Task) -> Changes:
        """Return what the initialization and the reference of both sides change; the score does not rest on it."""
        if task.id not in self._expected:
            world = self.world(task)
            for action in task.reference:
                run_now(world.call(action.name, json.dumps(dict(action.arguments)), action.requestor))
            self._expected[task.id] = world.changes()
        return self._expected[task.id]

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        return self.loaded.get((table, key))


class TelecomWorld:
    """One conversation's two databases behind the package's tools."""

    def __init__(self, domain: TelecomDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self._environment = domain.shared.environment(task)
        self._calls: dict[str, list[tuple[str, dict[str, Any]]]] = {requestor: [] for requestor in _SIDES}

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.World`."""
        tools = self._domain.shared.user_tools if requestor == "user" else self._domain.shared.tools
        seen = await tools.call(self._environment, name, arguments)
        self._calls[requestor].append((name, json.loads(seen.arguments)))
        return seen

    def reward(self, agent_texts: Sequence[str]) -> Reward:  # noqa: ARG002 - words are not scored in telecom
        """Score as the package's `telecom_scorer` does: required actions where the task asks for them, assertions."""
        self._environment.sync_tools()
        criteria = self._task.source_task.evaluation_criteria
        assertions = () if criteria is None else criteria.env_assertions or ()
        told = [{"assertion": _words(each), "met": self._holds(each)} for each in assertions]
        missing = self._missing_actions()
        passed = not missing and all(each["met"] for each in told)
        return Reward(float(passed), {"assertions": told, "missing_actions": missing})

    def _holds(self, assertion: Any) -> bool:
        environment = self._environment
        kit = environment.tools if assertion.env_type == "assistant" else environment.user_tools
        return bool(getattr(kit, assertion.func_name)(**assertion.arguments) == assertion.assert_value)

    def _missing_actions(self) -> list[str]:
        """Return the required actions that nobody called, by the package's own comparison."""
        task = self._task.source_task
        if task.evaluation_criteria is None or "ACTION" not in task.evaluation_criteria.reward_basis:
            return []
        agent, user = (SimpleNamespace(messages=[_message(self._calls[side])]) for side in ("assistant", "user"))
        unused = import_module(f"{PACKAGE}.common.scorer").find_unused_actions(agent, user, task)
        return [f"{action.requestor}: {action.get_func_format()}" for action in unused]

    def changes(self) -> Changes:
        """Return what differs from the databases as loaded; the task's own initialization is part of it."""
        self._environment.sync_tools()
        now = _entities(self._environment.tools.db, self._environment.user_tools.db)
        loaded = self._domain.loaded
        return {place: now.get(place) for place in now.keys() | loaded.keys() if now.get(place) != loaded.get(place)}


def _entities(carrier: Any, user: Any) -> dict[tuple[str, str], str]:
    """Return the canonical JSON of every entity of both databases; the customer's are the table `user`."""
    found = {
        (table, str(getattr(entity, f"{table[:-1]}_id"))): canonical_entity(entity)
        for table in type(carrier).model_fields
        for entity in getattr(carrier, table)
    }
    return found | {("user", part): canonical_entity(getattr(user, part)) for part in type(user).model_fields}


def _words(assertion: Any) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in assertion.arguments.items())
    told = f"{assertion.env_type}: {assertion.func_name}({arguments})"
    return told if assertion.assert_value else f"{told} is {assertion.assert_value}"


def _message(calls: Sequence[tuple[str, dict[str, Any]]]) -> Any:
    from inspect_ai.model import ChatMessageAssistant
    from inspect_ai.tool import ToolCall

    return ChatMessageAssistant(content="", tool_calls=[ToolCall("", name, arguments) for name, arguments in calls])
