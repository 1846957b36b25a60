"""An env of inspect's tau2 whose state is one database, loaded: tools, database, policy, prompts; and any env's tasks.

The package's scorer rebuilds the expected database at every score and hashes both whole. Here the changes that the
reference makes are computed once per task, by the same calls, as the canonical JSON of each entity that they change.
"""

from __future__ import annotations

import functools
import gzip
import json
from importlib import import_module
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from tautools.bench.sources.copy_on_touch import SharedTable, TouchedTable
from tautools.bench.sources.inspect_texts import agent_system_prompt
from tautools.bench.sources.inspect_tools import InspectTools, load_tools
from tautools.bench.types import Action, Task

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tautools.bench.types import Changes

__all__ = [
    "ENVS",
    "PACKAGE",
    "LoadedEnv",
    "changes",
    "data_folder",
    "expected_changes",
    "load_env",
    "load_tasks",
    "methods_of",
    "split_names",
]

PACKAGE = "inspect_evals.tau2"


class _Env(NamedTuple):
    tool_class: str
    db_class: str
    instance: str


ENVS = {
    "airline": _Env("AirlineAgentTools", "FlightDB", "AirlineAgent"),
    "retail": _Env("RetailAgentTools", "RetailDB", "RetailAgent"),
    "telecom": _Env("TelecomAgentTools", "TelecomDB", "TelecomAgent"),
}


class LoadedEnv(NamedTuple):
    """What all splits and all conversations of an env share."""

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
def load_env(env: str) -> LoadedEnv:
    """Load an env: the slow part, once per process."""
    names = ENVS[env]
    tools = import_module(f"{PACKAGE}.{env}.tools")
    tool_class = getattr(import_module(f"{PACKAGE}.{env}.{names.tool_class}"), names.tool_class)
    database = getattr(import_module(f"{PACKAGE}.{env}.data_model"), names.db_class)
    # Not the package's own `load`: it leaves an unpacked copy in the temporary folder at each start.
    loaded = database.model_validate(_read_json(data_folder(env) / "db.json.gz"))
    return LoadedEnv(
        tools=load_tools(getattr(tools, f"all_{env}_tools"), f"get_{env}_tools"),
        toolkit_class=methods_of(tool_class),
        tables={name: SharedTable(getattr(loaded, name)) for name in database.model_fields},
        policy=(data_folder(env) / "policy.txt").read_text(encoding="utf-8"),
        agent_system=agent_system_prompt(import_module(f"{PACKAGE}.{env}.agents"), names.instance),
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
    dataset = import_module(f"{PACKAGE}.{env}.dataset")
    to_sample = dataset.get_record_to_sample(ENVS[env].instance)
    wanted = set(_read_json(data_folder(env) / "split_tasks.json")[split])
    plain = data_folder(env) / "tasks.json"
    records = _read_json(plain if plain.exists() else plain.with_name("tasks.json.gz"))
    return {str(record["id"]): _task(to_sample(record)) for record in records if str(record["id"]) in wanted}


def _task(sample: Any) -> Task:
    source = import_module(f"{PACKAGE}.data_model.tasks").Task.model_validate(sample.metadata["task"])
    criteria = source.evaluation_criteria
    actions = () if criteria is None else criteria.actions or ()
    return Task(
        id=str(sample.id),
        user_system=sample.input[0].text,
        reference=tuple(_action(found) for found in actions),
        communicate=() if criteria is None else tuple(criteria.communicate_info or ()),
        assertions=() if criteria is None else tuple(criteria.nl_assertions or ()),
        source_task=source,
    )


def _action(found: Any) -> Action:
    compared = None if found.compare_args is None else tuple(found.compare_args)
    return Action(found.name, found.arguments, str(found.requestor), compared)


def expected_changes(shared: LoadedEnv, task: Task) -> Changes | None:
    """Do what the package's `get_expected_db` does: the tool class's methods, called directly.

    None when the task does not score the database.
    """
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
    return changes(toolkit)


def changes(toolkit: Any) -> Changes:
    """Return what a conversation has changed so far."""
    return {(name, key): text for name, table in vars(toolkit.db).items() for key, text in table.changes().items()}


def data_folder(env: str) -> Path:
    """Return the folder in which the package keeps an env's data."""
    found: Path = import_module(f"{PACKAGE}.utils").TAU2_DATA_DIR
    return found / "domains" / env


def _read_json(path: Path) -> Any:
    raw = path.read_bytes()
    return json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
