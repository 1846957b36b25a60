"""tau-bench v1 from a checkout or an installed package: retail and airline.

Tasks, tools, database, policy, prompts and both sides' rules are the checkout's own, read when they are asked for. Ours
are the loop and how the database is held: loaded once, each entity copied when a conversation reads it by its key.
Walking over a table gives shared entities: v1's tools only search that way. What differs is compared as the text that
v1 hashes, in which `2` and `2.0` differ, and `[]` and `{}` do not.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.experts import expert_prompt_hashes
from tautools.bench.selection import check_known
from tautools.bench.sources.tau_bench_checkout import TauBenchCheckout
from tautools.bench.sources.tau_bench_participants import (
    FewShotDisplays,
    make_tau_bench_agent,
    make_tau_bench_user,
    user_system_prompt,
)
from tautools.bench.types import ConversationProtocol, Observation, ReferenceAction, Reward, Task
from tautools.records import BenchRef, Strategy, UserStrategy, canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tautools.bench.types import Approach, Changes, Participant
    from tautools.llm.types import ToolSpec


_WHOLE_TABLE = ""
"""Key of a table that is not a dictionary of entities and is held as one."""


class LoadedTauBench:
    """The database as loaded: never changed, shared by all conversations of the process.

    Parameters
    ----------
    data : mapping
        Table to entities by key, as v1's `load_data` returns them.
    hashable : callable
        v1's `to_hashable`, whose result's text v1 hashes.
    """

    def __init__(self, data: Mapping[str, Any], hashable: Callable[[Any], Any]) -> None:
        self.data = data
        self.hashable = hashable
        self._texts: dict[tuple[str, str], str | None] = {}

    def entity(self, table: str, key: str) -> Any:
        """Return an entity, None when there is none."""
        found = self.data.get(table)
        return found.get(key) if isinstance(found, dict) else found

    def text(self, table: str, key: str) -> str | None:
        """Return the text of an entity that v1 would hash; None when there is no such entity."""
        if (table, key) not in self._texts:
            found = self.entity(table, key)
            self._texts[table, key] = None if found is None else str(self.hashable(found))
        return self._texts[table, key]

    def canonical(self, table: str, key: str) -> str | None:
        """Return an entity as canonical JSON; None when there is no such entity."""
        found = self.entity(table, key)
        return None if found is None else _canonical_json(found)


class TauBenchDatabase:
    """One conversation's database; `data` is what v1's tools work on."""

    def __init__(self, loaded: LoadedTauBench) -> None:
        self._loaded = loaded
        self.data: dict[str, Any] = {
            name: _TauBenchTable(table) if isinstance(table, dict) else copy.deepcopy(table)
            for name, table in loaded.data.items()
        }

    def changed(self) -> dict[tuple[str, str], Any]:
        """Return the entities that v1's hash would tell from those loaded, None for one that is gone."""
        found = {}
        for name, table in self.data.items():
            own = (
                ((key, dict.get(table, key)) for key in table.own)
                if isinstance(table, _TauBenchTable)
                else [(_WHOLE_TABLE, table)]
            )
            for key, entity in own:
                text = None if entity is None else str(self._loaded.hashable(entity))
                if text != self._loaded.text(name, key):
                    found[name, key] = entity
        return found

    def texts(self) -> dict[tuple[str, str], str | None]:
        """Return what changed, as the texts that v1 would hash."""
        hashable = self._loaded.hashable
        return {place: None if each is None else str(hashable(each)) for place, each in self.changed().items()}

    def changes(self) -> Changes:
        """Return what changed, as canonical JSON."""
        return {place: None if each is None else _canonical_json(each) for place, each in self.changed().items()}


class _TauBenchTable(dict[str, Any]):
    """A table that copies an entity when it is read by its key, and knows what was touched."""

    __slots__ = ("own",)

    def __init__(self, loaded: Mapping[str, Any]) -> None:
        super().__init__(loaded)
        self.own: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        entity = super().__getitem__(key)
        if key not in self.own:
            entity = _copied_json(entity)
            self[key] = entity
        return entity

    def __setitem__(self, key: str, entity: Any) -> None:
        super().__setitem__(key, entity)
        self.own.add(key)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.own.add(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an entity, copied first."""
        return self[key] if key in self else default  # noqa: SIM401 - this is `get`

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return an entity, copied first, or put one there."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Take an entity out."""
        if key not in self and default:
            return default[0]
        entity = self[key]
        del self[key]
        return entity

    def update(self, *others: Any, **named: Any) -> None:
        """Put entities there."""
        for key, entity in dict(*others, **named).items():
            self[key] = entity


def _copied_json(value: Any) -> Any:
    """Return a deep copy of what came from JSON; `copy.deepcopy` takes ten times as long."""
    if isinstance(value, dict):
        return {key: _copied_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied_json(each) for each in value]
    return value


def _canonical_json(entity: Any) -> str:
    return json.dumps(entity, sort_keys=True, default=str)


_TAU_BENCH = "tau-bench"
_MAX_STEPS = 30  # the default of `max_num_steps` in tau_bench.agents.base.Agent.solve, which nothing overrides
_STOP_WORD = "###STOP###"
_RESPOND = "respond"


class TauBench:
    """The source `tau-bench`.

    Parameters
    ----------
    root : Path
        Folder that holds the package's folder.
    """

    name = _TAU_BENCH

    def __init__(self, root: Path) -> None:
        self.checkout = TauBenchCheckout(root)
        self.version = self.checkout.version
        self._loaded: dict[str, LoadedTauBench] = {}
        self._domains: dict[tuple[str, str], TauBenchDomain] = {}

    def envs(self) -> Sequence[str]:
        """Return the names of the envs."""
        return self.checkout.envs()

    def splits(self, env: str) -> Sequence[str]:
        """Return the names of an env's splits, the default one first."""
        return self.checkout.splits(check_known("env", env, self.envs()))

    def domain(self, env: str, split: str | None = None) -> TauBenchDomain:
        """Return an env with its tasks, loaded once.

        Raises
        ------
        BenchError
            When there is no such env or split (it names those that exist), or the checkout is not as it was.
        """
        known = self.splits(env)
        split = check_known("split", split or known[0], known, of=env) if known else split or "test"
        if (env, split) not in self._domains:
            self._domains[env, split] = self._load(env, split)
        return self._domains[env, split]

    def _load(self, env: str, split: str) -> TauBenchDomain:
        original = self.checkout.env(env, split)
        hashable = self.checkout.module("envs.base").to_hashable
        with self.checkout.as_expected():
            loaded = self._loaded.setdefault(env, LoadedTauBench(original.data, hashable))
            ref = BenchRef("tau-bench", env, split, self.name, str(self.checkout.root))
            return TauBenchDomain(self.checkout, ref, original, loaded)


class TauBenchDomain:
    """One env of tau-bench with the tasks of one split."""

    reward_basis = "DB+OUTPUTS"
    strategies: Sequence[Strategy] = tuple(Strategy)
    user_strategies: Sequence[UserStrategy] = tuple(UserStrategy)

    def __init__(self, checkout: TauBenchCheckout, ref: BenchRef, original: Any, loaded: LoadedTauBench) -> None:
        self.ref = ref
        self.checkout = checkout
        self.loaded = loaded
        self.tools_by_name: Mapping[str, Any] = original.tools_map
        self.tools: Sequence[ToolSpec] = original.tools_info
        self.user_tools: Sequence[ToolSpec] = ()
        self.policy = str(original.wiki)
        self.agent_system = self.policy
        self.tasks: Mapping[str, Task] = {
            str(index): self._task(str(index), task) for index, task in enumerate(original.tasks)
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
        self.prompts = self._hashes()
        self._expected: dict[str, TauBenchDatabase] = {}

    def _task(self, name: str, task: Any) -> Task:
        return Task(
            id=name,
            user_system=user_system_prompt(self.checkout, UserStrategy.LLM, task.instruction),
            reference=tuple(ReferenceAction(action.name, action.kwargs) for action in task.actions),
            communicate=tuple(task.outputs),
            source_task=task,
        )

    def env_state(self, task: Task) -> TauBenchState:
        """Return a fresh world for one conversation of `task`."""
        return TauBenchState(self, task)

    def agent(self, approach: Approach, seed: int) -> Participant:
        """Return the agent of one conversation; the displays of few-shot are drawn by `seed`."""
        return make_tau_bench_agent(self.checkout, self, approach, seed)

    def user(self, task: Task, approach: Approach) -> Participant:
        """Return the customer of one conversation."""
        return make_tau_bench_user(self.checkout, task, approach, _STOP_WORD)

    def instructions(self, approach: Approach) -> Mapping[str, str]:
        """Return the hashes of the texts that models are shown."""
        texts = {
            "agent_system": self.agent(approach, 0).messages[0]["content"],
            "user_system": user_system_prompt(self.checkout, approach.user_strategy, _STOP_WORD),
        }
        if approach.strategy is Strategy.FEW_SHOT:
            texts["agent_system"] = canonical_json(FewShotDisplays.of(self.checkout, self.ref.env, approach).texts)
        own = expert_prompt_hashes(approach.experts) if approach.strategy is Strategy.EXPERTS else {}
        return {**self.prompts, **{name: _sha256(text) for name, text in texts.items()}, **own}

    def expected(self, task: Task) -> Changes:
        """Return what the reference actions change."""
        return self.reference_of(task).changes()

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        return self.loaded.canonical(table, key)

    def reference_of(self, task: Task) -> TauBenchDatabase:
        """Return the database as the reference leaves it, made once: v1 leaves out what would end the conversation."""
        if task.id not in self._expected:
            env_state = self.env_state(task)
            for action in task.reference:
                if action.name != _RESPOND and action.name not in self.protocol.terminal_tools:
                    env_state.do(action.name, copy.deepcopy(dict(action.arguments)))
            self._expected[task.id] = env_state.database
        return self._expected[task.id]

    def _hashes(self) -> Mapping[str, str]:
        scenarios = {task.id: task.source_task.instruction for task in self.tasks.values()}
        texts = {"policy": self.policy, "tools": canonical_json(self.tools), "tasks": canonical_json(scenarios)}
        return {name: _sha256(text) for name, text in texts.items()}


class TauBenchState:
    """One conversation's database behind the checkout's tools."""

    def __init__(self, domain: TauBenchDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self.database = TauBenchDatabase(domain.loaded)

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.World`."""
        if requestor != "assistant":
            return Observation(f"Unknown action {name}", error=True)
        try:
            read = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            return Observation(f"Error: {error}", error=True, unreadable=True)
        if not isinstance(read, dict):
            return Observation("Error: the arguments are not a JSON object", error=True, unreadable=True)
        text = self.do(name, read)
        refused = text.startswith("Error") or name not in self._domain.tools_by_name
        return Observation(text, error=refused, arguments=arguments or "{}")

    def do(self, name: str, arguments: dict[str, Any]) -> str:
        """Run one tool as v1's `Env.step` does, and return its answer."""
        tool = self._domain.tools_by_name.get(name)
        if tool is None:
            return f"Unknown action {name}"
        try:
            return str(tool.invoke(data=self.database.data, **arguments))
        except Exception as error:  # noqa: BLE001 - as v1: a tool's failure is something for the model to read
            return f"Error: {error}"

    def reward(self, agent_texts: Sequence[str]) -> Reward:
        """Score as v1's `Env.calculate_reward` does: the database, then each output in one of the agent's answers."""
        expected, actual = self._domain.reference_of(self._task).texts(), self.database.texts()
        places = expected.keys() | actual.keys()
        different = sorted(place for place in places if expected.get(place, "") != actual.get(place, ""))
        heard = [text.lower().replace(",", "") for text in agent_texts]
        outputs = {output: any(output.lower() in text for text in heard) for output in self._task.communicate}
        missing = [output for output, found in outputs.items() if not found]
        info = {
            "db": not different,
            "communicate": not missing,
            "missing_info": missing,
            "different": [f"{table}/{key}" for table, key in different],
            "r_actions": float(not different),
            "r_outputs": float(not missing),
            "outputs": outputs,
        }
        return Reward(0.0 if different or missing else 1.0, info)

    def changes(self) -> Changes:
        """Return what the conversation has changed so far."""
        return self.database.changes()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
