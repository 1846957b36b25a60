"""tau-bench v1 from a checkout or an installed package: retail and airline.

Tasks, tools, database, policy, prompts and both sides' rules are the checkout's own, read when they are asked for. The
loop is ours, and so is the sharing of the database (see `copy_on_touch`). What differs is compared as the text that v1
hashes, in which `2` and `2.0` differ, and `[]` and `{}` do not.
"""

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tautools.bench.agents.text import RESPOND
from tautools.bench.sources.bounds import noting_flags, why_too_large
from tautools.bench.sources.copy_on_touch import UNWRITABLE, LoadedTable, TouchedTable, canonical_text
from tautools.bench.sources.tau_bench_checkout import TauBenchCheckout, find_tau_bench
from tautools.bench.sources.tau_bench_participants import TauBenchPlayers
from tautools.bench.types import (
    Changes,
    ConversationProtocol,
    Observation,
    ReferenceAction,
    Reward,
    Source,
    Task,
    different_entities,
    text_hashes,
)
from tautools.llm.types import ToolSpec
from tautools.records import BenchRef, UserStrategy, canonical_json

_MAX_STEPS = 30  # the default of `max_num_steps` in tau_bench.agents.base.Agent.solve, which nothing overrides
_STOP_WORD = "###STOP###"
_WHOLE_TABLE = ""
"""Key of a table that is not a dictionary of entities and is compared as one."""


class TauBench(Source):
    """The source `tau-bench`; `root` is the folder that holds the package's folder."""

    name = "tau-bench"
    default_split = "test"
    takes = ("path",)
    find = staticmethod(find_tau_bench)

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.checkout = TauBenchCheckout(root)
        self.version = self.checkout.version
        self._loaded: dict[str, LoadedTauBench] = {}

    def envs(self) -> Sequence[str]:
        """Return the names of the envs."""
        return sorted(file.parent.name for file in (self.checkout.package / "envs").glob("*/env.py"))

    def _split_names(self, env: str) -> Sequence[str]:
        files = (self.checkout.package / "envs" / env).glob("tasks_*.py")
        return [file.stem.removeprefix("tasks_") for file in files]

    def _load(self, env: str, split: str) -> "TauBenchDomain":
        get_env = self.checkout.module("envs").get_env
        hashable = self.checkout.module("envs.base").to_hashable
        with self.checkout.as_expected():
            # A person as its user is the one kind that asks no model.
            original = get_env(env, user_strategy="human", user_model="", task_split=split, task_index=0)
            loaded = self._loaded.setdefault(env, LoadedTauBench(original.data, hashable))
            ref = BenchRef("tau-bench", env, split, self.name, str(self.checkout.root))
            return TauBenchDomain(self.checkout, ref, original, loaded)


class LoadedTauBench:
    """The database as loaded: never changed, shared by all conversations of the process.

    `data` is what v1's `load_data` returns, `hashable` v1's `to_hashable`, whose result's text v1 hashes.
    """

    def __init__(self, data: Mapping[str, Any], hashable: Callable[[Any], Any]) -> None:
        self.data = data
        self._hashable = hashable
        self._tables = {
            name: LoadedTable(table, _copied_json, self.text) for name, table in data.items() if isinstance(table, dict)
        }

    def text(self, entity: Any) -> str:
        """Return the text that v1 hashes, for one entity."""
        try:
            return str(self._hashable(entity))
        except UNWRITABLE as error:
            return f"It cannot be written: {error}"

    def fresh(self) -> dict[str, Any]:
        """Return a database for one conversation, on which v1's tools can work."""
        return {
            name: TouchedTable(self._tables[name]) if name in self._tables else copy.deepcopy(table)
            for name, table in self.data.items()
        }

    def hashed_texts(self, data: Mapping[str, Any]) -> dict[tuple[str, str], str | None]:
        """Return, as the text that v1 hashes, the entities of a database that are not as loaded; None for one gone."""
        texts: dict[tuple[str, str], str | None] = {}
        for name, table in data.items():
            if isinstance(table, TouchedTable):
                texts |= {(name, key): text for key, text in table.changes().items()}
            elif (text := self.text(table)) != self.text(self.data.get(name)):
                texts[name, _WHOLE_TABLE] = text
        return texts

    def changes(self, data: Mapping[str, Any]) -> Changes:
        """Return, as canonical JSON, the entities of a database that are not as loaded."""
        return {
            (name, key): None if text is None else canonical_text(_entity(data, name, key))
            for (name, key), text in self.hashed_texts(data).items()
        }


def _entity(data: Mapping[str, Any], table: str, key: str) -> Any:
    entities = data.get(table)
    return dict.get(entities, key) if isinstance(entities, dict) else entities


def _copied_json(value: Any) -> Any:
    """Return a deep copy of what came from JSON; `copy.deepcopy` takes ten times as long."""
    if isinstance(value, dict):
        return {key: _copied_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied_json(each) for each in value]
    return value


class TauBenchDomain(TauBenchPlayers):
    """One env of tau-bench with the tasks of one split."""

    reward_basis = "DB+OUTPUTS"

    def __init__(self, checkout: TauBenchCheckout, ref: BenchRef, original: Any, loaded: LoadedTauBench) -> None:
        super().__init__()
        self.ref = ref
        self.checkout = checkout
        self.loaded = loaded
        self.tools_by_name: Mapping[str, Any] = original.tools_map
        self.tools: Sequence[ToolSpec] = original.tools_info
        self.policy = self.agent_system = str(original.wiki)
        self.tasks: Mapping[str, Task] = {
            str(index): Task(
                id=str(index),
                user_system=self._user_system_prompt(UserStrategy.LLM, task.instruction),
                reference=tuple(ReferenceAction(action.name, action.kwargs) for action in task.actions),
                communicate=tuple(task.outputs),
                source_task=task,
            )
            for index, task in enumerate(original.tasks)
        }
        self.protocol = ConversationProtocol(
            "tau-bench",
            user_opening=None,
            agent_opening=None,
            stop_words=(_STOP_WORD,),
            max_rounds=_MAX_STEPS + 1,
            max_steps=_MAX_STEPS,
            terminal_tools=tuple(original.terminate_tools),
            opening_may_stop=False,
        )
        scenarios = {task.id: task.source_task.instruction for task in self.tasks.values()}
        texts = {"policy": self.policy, "tools": canonical_json(self.tools), "tasks": canonical_json(scenarios)}
        self.prompts = text_hashes(texts)
        self._references: dict[str, dict[str, Any]] = {}

    def env_state(self, task: Task) -> "TauBenchState":
        """Return a fresh state for one conversation of `task`."""
        return TauBenchState(self, task)

    def reference_data(self, task: Task) -> dict[str, Any]:
        """Return the database as the reference leaves it; v1 skips the actions that would end the conversation."""
        if task.id not in self._references:
            state = self.env_state(task)
            for action in task.reference:
                if action.name != RESPOND and action.name not in self.protocol.terminal_tools:
                    state.do(action.name, copy.deepcopy(dict(action.arguments)))
            self._references[task.id] = state.data
        return self._references[task.id]

    def _expected_changes(self, task: Task) -> Changes:
        return self.loaded.changes(self.reference_data(task))

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        entity = _entity(self.loaded.data, table, key)
        return None if entity is None else canonical_text(entity)


class TauBenchState:
    """One conversation's database behind the checkout's tools."""

    def __init__(self, domain: TauBenchDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self.data = domain.loaded.fresh()

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.EnvState`."""
        if requestor != "assistant":
            return Observation(f"Unknown action {name}", error=True)
        if reason := why_too_large(arguments):
            return Observation.too_large(reason)
        try:
            read = json.loads(arguments or "{}")
        except ValueError as error:
            return Observation(f"Error: {error}", error=True, unreadable=True)
        if not isinstance(read, dict):
            return Observation("Error: the arguments are not a JSON object", error=True, unreadable=True)
        with noting_flags() as flags:
            text = self.do(name, read)
        refused = text.startswith("Error") or name not in self._domain.tools_by_name
        return Observation(text, error=refused, arguments=arguments or "{}", flag=" ".join(flags))

    def do(self, name: str, arguments: dict[str, Any]) -> str:
        """Run one tool as v1's `Env.step` does, and return its answer."""
        tool = self._domain.tools_by_name.get(name)
        if tool is None:
            return f"Unknown action {name}"
        try:
            return str(tool.invoke(data=self.data, **arguments))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - as v1: a failure is something for the model to read
            return f"Error: {error}"

    def reward(self, agent_texts: Sequence[str]) -> Reward:
        """Score as v1's `Env.calculate_reward` does: the database, then each output in one of the agent's answers."""
        texts = self._domain.loaded.hashed_texts
        different = different_entities(texts(self._domain.reference_data(self._task)), texts(self.data))
        heard = [text.lower().replace(",", "") for text in agent_texts]
        outputs = {output: any(output.lower() in text for text in heard) for output in self._task.communicate}
        missing = [output for output, met in outputs.items() if not met]
        parts = {"r_actions": float(not different), "r_outputs": float(not missing)}
        return Reward.of_database(different, missing, **parts, outputs=outputs)

    def changes(self) -> Changes:
        """Return what the conversation has changed so far."""
        return self._domain.loaded.changes(self.data)
