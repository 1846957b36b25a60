"""tau-bench v1 from a checkout or an installed package: retail and airline.

Tasks, tools, database, policy, prompts and both sides' rules are the checkout's own, read when they are asked for. What
is ours is how the database is held (see `tau_bench_data`) and the loop.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.experts import expert_texts
from tautools.bench.agents.tau_bench import Displays, make_tau_bench_agent
from tautools.bench.sources.naming import choose
from tautools.bench.sources.tau_bench_checkout import Checkout
from tautools.bench.sources.tau_bench_data import Database, LoadedData
from tautools.bench.types import Action, Observation, Protocol_, Reward, Task
from tautools.bench.users.tau_bench import make_tau_bench_user, system_prompt_of
from tautools.records import Strategy, UserStrategy, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.bench.agents.move import Speaker
    from tautools.bench.types import Approach, Changes
    from tautools.llm.types import ToolSpec

__all__ = ["TauBench", "TauBenchDomain", "TauBenchWorld"]

_SOURCE = "tau-bench"
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

    name = _SOURCE

    def __init__(self, root: Path) -> None:
        self.checkout = Checkout(root)
        self.version = self.checkout.version
        self._loaded: dict[str, LoadedData] = {}
        self._domains: dict[tuple[str, str], TauBenchDomain] = {}

    def envs(self) -> Sequence[str]:
        """Return the names of the envs."""
        return self.checkout.envs()

    def splits(self, env: str) -> Sequence[str]:
        """Return the names of an env's splits, the default one first."""
        return self.checkout.splits(choose("env", env, self.envs()))

    def domain(self, env: str, split: str | None = None) -> TauBenchDomain:
        """Return an env with its tasks, loaded once.

        Raises
        ------
        BenchError
            When there is no such env or split (it names those that exist), or the checkout is not as it was.
        """
        known = self.splits(env)
        split = choose("split", split or known[0], known, of=env) if known else split or "test"
        if (env, split) not in self._domains:
            self._domains[env, split] = self._load(env, split)
        return self._domains[env, split]

    def _load(self, env: str, split: str) -> TauBenchDomain:
        original = self.checkout.env(env, split)
        hashable = self.checkout.module("envs.base").to_hashable
        with self.checkout.as_expected():
            loaded = self._loaded.setdefault(env, LoadedData(original.data, hashable))
            return TauBenchDomain(self.checkout, (env, split), original, loaded)


class TauBenchDomain:
    """One env of tau-bench with the tasks of one split."""

    bench = "tau-bench"
    source = _SOURCE
    python = ""
    reward_basis = "DB+OUTPUTS"
    strategies: Sequence[Strategy] = tuple(Strategy)
    user_strategies: Sequence[UserStrategy] = tuple(UserStrategy)

    def __init__(self, checkout: Checkout, place: tuple[str, str], original: Any, loaded: LoadedData) -> None:
        self.env, self.split = place
        self.path = str(checkout.root)
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
        self.protocol = Protocol_(
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
        self._expected: dict[str, Database] = {}

    def _task(self, name: str, task: Any) -> Task:
        return Task(
            id=name,
            user_system=system_prompt_of(self.checkout, UserStrategy.LLM, task.instruction),
            reference=tuple(Action(action.name, action.kwargs) for action in task.actions),
            communicate=tuple(task.outputs),
            source_task=task,
        )

    def world(self, task: Task) -> TauBenchWorld:
        """Return a fresh world for one conversation of `task`."""
        return TauBenchWorld(self, task)

    def agent(self, approach: Approach, seed: int) -> Speaker:
        """Return the agent of one conversation; the displays of few-shot are drawn by `seed`."""
        return make_tau_bench_agent(self, approach, seed)

    def user(self, task: Task, approach: Approach) -> Speaker:
        """Return the customer of one conversation."""
        return make_tau_bench_user(self.checkout, task, approach, _STOP_WORD)

    def instructions(self, approach: Approach) -> Mapping[str, str]:
        """Return the hashes of the texts that models are shown."""
        texts = {
            "agent_system": self.agent(approach, 0).messages[0]["content"],
            "user_system": system_prompt_of(self.checkout, approach.user_strategy, _STOP_WORD),
        }
        if approach.strategy is Strategy.FEW_SHOT:
            texts["agent_system"] = canonical_json(Displays.of(self, approach).texts)
        own = expert_texts(approach.experts) if approach.strategy is Strategy.EXPERTS else {}
        return {**self.prompts, **{name: _sha256(text) for name, text in texts.items()}, **own}

    def expected(self, task: Task) -> Changes:
        """Return what the reference actions change."""
        return self.reference_of(task).changes()

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        return self.loaded.canonical(table, key)

    def reference_of(self, task: Task) -> Database:
        """Return the database as the reference leaves it, made once: v1 leaves out what would end the conversation."""
        if task.id not in self._expected:
            world = self.world(task)
            for action in task.reference:
                if action.name != _RESPOND and action.name not in self.protocol.terminal_tools:
                    world.do(action.name, copy.deepcopy(dict(action.arguments)))
            self._expected[task.id] = world.database
        return self._expected[task.id]

    def _hashes(self) -> Mapping[str, str]:
        scenarios = {task.id: task.source_task.instruction for task in self.tasks.values()}
        texts = {"policy": self.policy, "tools": canonical_json(self.tools), "tasks": canonical_json(scenarios)}
        return {name: _sha256(text) for name, text in texts.items()}


class TauBenchWorld:
    """One conversation's database behind the checkout's tools."""

    def __init__(self, domain: TauBenchDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self.database = Database(domain.loaded)

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
