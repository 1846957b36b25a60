"""tau2 from the PyPI package `inspect-evals`: airline and retail.

Tasks, tools, database, policy, prompts and guidelines are the package's own, read when they are asked for. What is ours
is how the database is held: see `copy_on_touch`. The package's scorer rebuilds the expected database at every score and
hashes both whole; here the changes that the reference makes are computed once per task, and compared, entity by entity
in the same canonical JSON, with the changes of the conversation.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from importlib import import_module, metadata
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from tautools.bench.sources.copy_on_touch import SharedTable, TouchedTable
from tautools.bench.sources.inspect_texts import agent_system_prompt, user_opening
from tautools.bench.sources.inspect_tools import InspectTools, load_tools
from tautools.bench.sources.naming import choose
from tautools.bench.types import Action, Observation, Protocol_, Reward, Task
from tautools.errors import BenchError
from tautools.records import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.llm.types import ToolSpec

__all__ = ["InspectTau2", "Tau2Domain", "Tau2World"]

_PACKAGE = "inspect_evals.tau2"
_DEFAULT_SPLIT = "base"
_MAX_ROUNDS = 100  # inspect_evals.tau2.common.agents.DEFAULT_MESSAGE_LIMIT
_STOP_WORDS = ("###STOP###", "###OUT-OF-SCOPE###", "###TRANSFER###")

Changes = dict[tuple[str, str], str | None]
"""(table, key) to the canonical text of each entity that differs from the database as loaded."""


class _Env(NamedTuple):
    tool_class: str
    db_class: str
    instance: str


_ENVS = {
    "airline": _Env("AirlineAgentTools", "FlightDB", "AirlineAgent"),
    "retail": _Env("RetailAgentTools", "RetailDB", "RetailAgent"),
}


class InspectTau2:
    """The source `inspect-evals`."""

    name = "inspect-evals"
    reward_basis = "DB+COMMUNICATE"

    def __init__(self) -> None:
        try:
            self.version = metadata.version("inspect-evals")
        except metadata.PackageNotFoundError as error:
            raise BenchError(
                "The package inspect-evals is not installed.",
                next_step="Install it in this environment: pip install 'inspect-evals>=0.26'.",
            ) from error
        self._domains: dict[tuple[str, str], Tau2Domain] = {}

    def envs(self) -> Sequence[str]:
        """Return the names of the envs."""
        return tuple(_ENVS)

    def splits(self, env: str) -> Sequence[str]:
        """Return the names of an env's splits, the default one first."""
        choose("env", env, _ENVS)
        names = _read_json(_folder(env) / "split_tasks.json")
        return sorted(names, key=lambda name: (name != _DEFAULT_SPLIT, name))

    def domain(self, env: str, split: str | None = None) -> Tau2Domain:
        """Return an env with its tasks, loaded once.

        Raises
        ------
        BenchError
            When there is no such env or split; it names those that exist.
        """
        split = choose("split", split or _DEFAULT_SPLIT, self.splits(env))
        if (env, split) not in self._domains:
            self._domains[env, split] = Tau2Domain(env, split)
        return self._domains[env, split]


class Tau2Domain:
    """One env of tau2 with the tasks of one split."""

    bench = "tau2"

    def __init__(self, env: str, split: str) -> None:
        self.env = env
        self.split = split
        self.shared = _shared(env)
        self.tools: Sequence[ToolSpec] = self.shared.tools.specs
        self.user_tools: Sequence[ToolSpec] = ()
        self.policy = self.shared.policy
        self.agent_system = self.shared.agent_system
        self.tasks: Mapping[str, Task] = _load_tasks(env, split)
        self.protocol = Protocol_("inspect-tau2", user_opening(), None, _STOP_WORDS, _MAX_ROUNDS)
        self.prompts = self._hashes()
        self._expected: dict[str, Changes | None] = {}

    def world(self, task: Task) -> Tau2World:
        """Return a fresh world for one conversation of `task`."""
        return Tau2World(self, task)

    def expected(self, task: Task) -> Changes | None:
        """Return what the reference actions change; None when the task does not score the database."""
        if task.id not in self._expected:
            self._expected[task.id] = _expected_changes(self.shared, task)
        return self._expected[task.id]

    def _hashes(self) -> Mapping[str, str]:
        guidelines = import_module(f"{_PACKAGE}.utils").USER_SIMULATOR_GUIDELINES
        texts = {
            "agent_system": self.agent_system,
            "policy": self.policy,
            "tasks": canonical_json({task.id: task.user_system for task in self.tasks.values()}),
            "tools": canonical_json(self.tools),
            "user_guidelines": guidelines,
            "user_opening": self.protocol.user_opening or "",
        }
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


class Tau2World:
    """One conversation's database behind the package's tools."""

    def __init__(self, domain: Tau2Domain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self._toolkit = domain.shared.toolkit()

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.World`."""
        if requestor != "assistant":
            return Observation(f"Error: Tool {name} not found", error=True)
        return await self._domain.shared.tools.call(self._toolkit, name, arguments)

    def reward(self, agent_texts: Sequence[str]) -> Reward:
        """Score as the package's `<env>_scorer` does: the database, then what must have been said.

        The package reads the user's side of the conversation, its opening message included.
        """
        expected = self._domain.expected(self._task)
        actual = _changes(self._toolkit)
        different = [] if expected is None else _differences(expected, actual)
        heard = "\n".join([self._domain.protocol.user_opening or "", *agent_texts]).lower().replace(",", "")
        missing = [info for info in self._task.communicate if info.lower() not in heard]
        info = {
            "db": not different,
            "communicate": not missing,
            "missing_info": missing,
            "different": different,
        }
        return Reward(0.0 if different or missing else 1.0, info)


class _Shared(NamedTuple):
    tools: InspectTools
    toolkit_class: type
    tables: Mapping[str, SharedTable]
    policy: str
    agent_system: str

    def toolkit(self) -> Any:
        """Return the package's tool class on a database of its own."""
        kit = self.toolkit_class()
        kit.db = SimpleNamespace(**{name: TouchedTable(table) for name, table in self.tables.items()})
        return kit


@functools.cache
def _shared(env: str) -> _Shared:
    """Load what all splits of an env share: the slow part, once per process."""
    names = _ENVS[env]
    tools = import_module(f"{_PACKAGE}.{env}.tools")
    tool_class = getattr(import_module(f"{_PACKAGE}.{env}.{names.tool_class}"), names.tool_class)
    database = getattr(import_module(f"{_PACKAGE}.{env}.data_model"), names.db_class)
    # Not the package's own `load`: it leaves an unpacked copy in the temporary folder at each start.
    loaded = database.model_validate(_read_json(_folder(env) / "db.json.gz"))
    return _Shared(
        tools=load_tools(getattr(tools, f"all_{env}_tools"), f"get_{env}_tools"),
        toolkit_class=_without_store(tool_class),
        tables={name: SharedTable(getattr(loaded, name)) for name in database.model_fields},
        policy=(_folder(env) / "policy.txt").read_text(encoding="utf-8"),
        agent_system=agent_system_prompt(import_module(f"{_PACKAGE}.{env}.agents"), names.instance),
    )


def _without_store(tool_class: type) -> type:
    """Return a class with the package's own methods and nothing of the store model they live on."""
    methods = {
        name: value
        for name, value in vars(tool_class).items()
        if isinstance(value, FunctionType) and not name.startswith(("__", "model_"))
    }
    return type(tool_class.__name__, (), methods)


def _load_tasks(env: str, split: str) -> dict[str, Task]:
    dataset = import_module(f"{_PACKAGE}.{env}.dataset")
    to_sample = dataset.get_record_to_sample(_ENVS[env].instance)
    wanted = set(_read_json(_folder(env) / "split_tasks.json")[split])
    records = _read_json(_folder(env) / "tasks.json")
    return {str(record["id"]): _task(to_sample(record)) for record in records if str(record["id"]) in wanted}


def _task(sample: Any) -> Task:
    source = import_module(f"{_PACKAGE}.data_model.tasks").Task.model_validate(sample.metadata["task"])
    criteria = source.evaluation_criteria
    actions = () if criteria is None else criteria.actions or ()
    return Task(
        id=str(sample.id),
        user_system=sample.input[0].text,
        reference=tuple(Action(found.name, found.arguments, str(found.requestor)) for found in actions),
        communicate=() if criteria is None else tuple(criteria.communicate_info or ()),
        source_task=source,
    )


def _expected_changes(shared: _Shared, task: Task) -> Changes | None:
    """Do what the package's `get_expected_db` does: the tool class's methods, called directly."""
    from inspect_ai.tool import ToolError

    criteria = task.source_task.evaluation_criteria
    if criteria is None or criteria.actions is None:
        return None
    toolkit = shared.toolkit()
    for action in criteria.actions:
        if action.name in {"calculate", "transfer_to_human_agents"}:
            continue
        try:
            getattr(toolkit, action.name)(**action.arguments)
        except ToolError:
            continue
    return _changes(toolkit)


def _changes(toolkit: Any) -> Changes:
    return {(name, key): text for name, table in vars(toolkit.db).items() for key, text in table.changes().items()}


def _differences(expected: Changes, actual: Changes) -> list[str]:
    keys = sorted(expected.keys() | actual.keys())
    return [f"{table}/{key}" for table, key in keys if not _same(expected, actual, (table, key))]


def _same(expected: Changes, actual: Changes, place: tuple[str, str]) -> bool:
    return place in expected and place in actual and expected[place] == actual[place]


def _folder(env: str) -> Path:
    found: Path = import_module(f"{_PACKAGE}.utils").TAU2_DATA_DIR
    return found / "domains" / env


def _read_json(path: Path) -> Any:
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
