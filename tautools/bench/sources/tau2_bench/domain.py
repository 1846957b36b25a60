"""tau2 from a tau2-bench checkout: its envs, its tasks, its tools, its evaluator, at its own protocol."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tautools.bench.agents import STRATEGIES, agent_instructions, make_agent
from tautools.bench.agents.fc import ToolCaller
from tautools.bench.sources.naming import choose
from tautools.bench.sources.tau2_bench.checkout import find_checkout
from tautools.bench.sources.tau2_bench.process import CheckoutProcess
from tautools.bench.sources.tau2_bench.world import CheckoutWorld
from tautools.bench.types import Action, Protocol_, Task
from tautools.errors import BenchError
from tautools.records import UserStrategy, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.agents.move import Speaker
    from tautools.bench.types import Approach, Changes
    from tautools.llm.types import ToolSpec
    from tautools.records import Strategy

__all__ = ["CheckoutDomain", "Tau2Bench"]

_DEFAULT_SPLIT = "base"


class Tau2Bench:
    """The source `tau2-bench`.

    Parameters
    ----------
    path : str, optional
        The checkout's folder.
    python : str, optional
        Its interpreter.

    Raises
    ------
    BenchError
        When either is missing or cannot be what was meant.
    """

    name = "tau2-bench"

    def __init__(self, path: str | None = None, python: str | None = None) -> None:
        self.checkout = find_checkout(path, python)
        self.version = self.checkout.version
        self.process = CheckoutProcess(self.checkout)
        self._envs: tuple[str, ...] = ()
        self._domains: dict[tuple[str, str], CheckoutDomain] = {}

    def envs(self) -> Sequence[str]:
        """Return the names of the envs that have splits; those that need more than the package are not among them."""
        if not self._envs:
            self._envs = tuple(self.process.ask("envs"))
        return self._envs

    def splits(self, env: str) -> Sequence[str]:
        """Return the names of an env's splits, the default one first."""
        choose("env", env, self.envs())
        return sorted(self.process.ask("splits", env=env), key=lambda name: (name != _DEFAULT_SPLIT, name))

    def domain(self, env: str, split: str | None = None) -> CheckoutDomain:
        """Return an env with its tasks, loaded once.

        Raises
        ------
        BenchError
            When there is no such env or split (it names those that exist), or the checkout is not whole.
        """
        split = choose("split", split or _DEFAULT_SPLIT, self.splits(env))
        if (env, split) not in self._domains:
            self._domains[env, split] = CheckoutDomain(self.process, env, split)
        return self._domains[env, split]


@dataclass(frozen=True, slots=True)
class CheckoutTask:
    """What the checkout says of a task, beyond what a conversation needs."""

    data: Mapping[str, Any]
    """The package's own task as JSON."""
    user_tools: frozenset[str]
    """Names of the tools that this task's customer has."""
    basis: tuple[str, ...]
    """What its reward is made of."""

    @property
    def evaluation_criteria(self) -> Any:
        """The basis where the package's own tasks have it."""
        return SimpleNamespace(reward_basis=self.basis) if self.basis else None


class CheckoutDomain:
    """One env of a checkout with the tasks of one split."""

    bench = "tau2"
    source = Tau2Bench.name
    strategies: Sequence[Strategy] = STRATEGIES
    user_strategies: Sequence[UserStrategy] = (UserStrategy.LLM,)

    def __init__(self, process: CheckoutProcess, env: str, split: str) -> None:
        told = process.ask("domain", env=env, split=split)
        self.process = process
        self.path, self.python = str(process.checkout.path), str(process.checkout.python)
        self.env, self.split = env, split
        self.tools: Sequence[ToolSpec] = told["tools"]
        self.user_tools: Sequence[ToolSpec] = told["user_tools"]
        self.policy: str = told["policy"]
        self.agent_system: str = told["agent_system"]
        self.tasks: Mapping[str, Task] = {str(each["task"]["id"]): _task(env, each) for each in told["tasks"]}
        self.reward_basis = _basis(self.tasks)
        self.protocol = _protocol(told)
        self.prompts: Mapping[str, str] = _hashes(self, told["database"])
        self._expected: dict[str, Changes | None] = {}

    def world(self, task: Task) -> CheckoutWorld:
        """Return a fresh world for one conversation of `task`."""
        return CheckoutWorld(self, task)

    def agent(self, approach: Approach, seed: int) -> Speaker:  # noqa: ARG002 - nothing is drawn here
        """Return the agent of one conversation."""
        return make_agent(self, approach)

    def user(self, task: Task, approach: Approach) -> Speaker:  # noqa: ARG002 - there is one way only
        """Return the customer of one conversation, who has heard the agent's greeting."""
        has = task.source_task.user_tools
        user = ToolCaller(task.user_system, [tool for tool in self.user_tools if tool["function"]["name"] in has])
        user.hear(self.protocol.agent_opening or "")
        return user

    def instructions(self, approach: Approach) -> Mapping[str, str]:
        """Return the hashes of the texts that models are shown."""
        return agent_instructions(self, approach)

    def expected(self, task: Task) -> Changes | None:
        """Return what the reference actions change; None when the task does not score the database."""
        if task.id not in self._expected:
            found = self.process.ask("expected", env=self.env, task=task.id)
            self._expected[task.id] = None if found is None else {(table, key): text for table, key, text in found}
        return self._expected[task.id]

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        found: str | None = self.process.ask("loaded", env=self.env, table=table, key=key)
        return found


def _protocol(told: Mapping[str, Any]) -> Protocol_:
    """Return the package's rules: its agent greets, and every message is a step."""
    steps = int(told["max_steps"])
    return Protocol_(
        name="tau2-bench",
        user_opening=None,
        agent_opening=str(told["greeting"]),
        stop_words=tuple(told["stop_words"]),
        max_rounds=steps,
        max_steps=steps,
        max_errors=int(told["max_errors"]),
        counts_messages=True,
    )


def _basis(tasks: Mapping[str, Task]) -> str:
    """Return all that the rewards of the tasks are made of without a judge; each task names its own part of it."""
    named = {name for task in tasks.values() for name in task.source_task.basis} - {"NL_ASSERTION"}
    order = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE")
    return "+".join([*(name for name in order if name in named), *sorted(named.difference(order))])


def _task(env: str, told: Mapping[str, Any]) -> Task:
    data = told["task"]
    if told["begun"]:
        raise BenchError(
            f"Task {data['id']} of {env} begins in the middle of a conversation, which tautools cannot play.",
            next_step="Choose a split without it.",
        )
    criteria = data.get("evaluation_criteria") or {}
    basis = tuple(told["basis"])
    return Task(
        id=str(data["id"]),
        user_system=told["user_system"],
        reference=tuple(_action(each) for each in criteria.get("actions") or ()),
        communicate=tuple(criteria.get("communicate_info") or ()) if "COMMUNICATE" in basis else (),
        assertions=tuple(criteria.get("nl_assertions") or ()) if "NL_ASSERTION" in basis else (),
        source_task=CheckoutTask(data, frozenset(told["user_tools"]), basis),
    )


def _action(data: Mapping[str, Any]) -> Action:
    compared = data.get("compare_args")
    requestor = data.get("requestor") or "assistant"
    return Action(data["name"], data["arguments"], requestor, None if compared is None else tuple(compared))


def _hashes(domain: CheckoutDomain, database: str) -> dict[str, str]:
    """Return the hashes of what models are shown, and of the data that a score rests on: a checkout can be changed."""
    texts = {
        "agent_system": domain.agent_system,
        "policy": domain.policy,
        "tasks": canonical_json({task.id: task.user_system for task in domain.tasks.values()}),
        "criteria": canonical_json({task.id: task.source_task.data for task in domain.tasks.values()}),
        "tools": canonical_json(domain.tools),
        "user_tools": canonical_json(domain.user_tools),
        "greeting": domain.protocol.agent_opening or "",
    }
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()} | {"database": database}
