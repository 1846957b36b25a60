"""tau2 from a tau2-bench checkout: its envs, tasks, tools and evaluator, at its own protocol."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tautools.bench.sources.tau2 import Tau2Domain, checked_assertion, read_tau2_task
from tautools.bench.sources.tau2_checkout import CheckoutProcess, Tau2Checkout, find_tau2_checkout
from tautools.bench.types import (
    Changes,
    ConversationProtocol,
    Observation,
    Reward,
    Source,
    Task,
    call_text,
    different_entities,
)
from tautools.errors import BenchError
from tautools.records import BenchRef, canonical_json


class Tau2Bench(Source):
    """The source `tau2-bench`, a checkout with an interpreter of its own."""

    name = "tau2-bench"
    takes = ("path", "python")
    find = staticmethod(find_tau2_checkout)

    def __init__(self, checkout: Tau2Checkout) -> None:
        super().__init__()
        self.checkout = checkout
        self.version = checkout.version
        self.process = CheckoutProcess(checkout)
        self._envs: tuple[str, ...] = ()

    def envs(self) -> Sequence[str]:
        """Return the names of the envs that have splits; those that need more than the package are not among them."""
        if not self._envs:
            self._envs = tuple(self.process.ask("envs"))
        return self._envs

    def _split_names(self, env: str) -> Sequence[str]:
        names: list[str] = self.process.ask("splits", env=env)
        return names

    def _load(self, env: str, split: str) -> CheckoutDomain:
        return CheckoutDomain(self.process, env, split)


class CheckoutDomain(Tau2Domain):
    """One env of a checkout with the tasks of one split."""

    def __init__(self, process: CheckoutProcess, env: str, split: str) -> None:
        super().__init__()
        self.process = process
        checkout = process.checkout
        self.ref = BenchRef("tau2", env, split, Tau2Bench.name, str(checkout.path), str(checkout.python))
        description = process.ask("domain", env=env, split=split)
        self.tools = description["tools"]
        self.user_tools = description["user_tools"]
        self.policy = description["policy"]
        self.agent_system = description["agent_system"]
        self.tasks = {str(each["task"]["id"]): _read_task(env, each) for each in description["tasks"]}
        self.reward_basis = _reward_basis(self.tasks)
        rules = description["protocol"] | {"stop_words": tuple(description["protocol"]["stop_words"])}
        self.protocol = ConversationProtocol("tau2-bench", user_opening=None, counts_messages=True, **rules)
        # Of what tasks are scored by too: a checkout can be changed.
        criteria = canonical_json({task.id: task.source_task for task in self.tasks.values()})
        hashes = self._hash_prompts(
            criteria=criteria, user_tools=canonical_json(self.user_tools), greeting=rules["agent_opening"]
        )
        self.prompts = hashes | {"database": description["database"]}

    def env_state(self, task: Task) -> CheckoutState:
        """Return a fresh state for one conversation of `task`."""
        return CheckoutState(self, task)

    def _expected_changes(self, task: Task) -> Changes | None:
        changes = self.process.ask("expected", env=self.ref.env, task=task.id)
        return None if changes is None else {(table, key): text for table, key, text in changes}

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        text: str | None = self.process.ask("loaded", env=self.ref.env, table=table, key=key)
        return text


def _reward_basis(tasks: Mapping[str, Task]) -> str:
    """Return all that the rewards of the tasks are made of without a judge; each task names its own part of it."""
    named = {name for task in tasks.values() for name in task.reward_basis} - {"NL_ASSERTION"}
    order = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE")
    return "+".join([*(name for name in order if name in named), *sorted(named.difference(order))])


def _read_task(env: str, description: Mapping[str, Any]) -> Task:
    data = description["task"]
    if description["begun"]:
        raise BenchError(
            f"Task {data['id']} of {env} begins in the middle of a conversation, which tautools cannot play.",
            next_step="Choose a split without it.",
        )
    task = read_tau2_task(data, description["user_system"], data)
    return replace(
        task,
        communicate=task.communicate if "COMMUNICATE" in task.reward_basis else (),
        assertions=task.assertions if "NL_ASSERTION" in task.reward_basis else (),
        user_tools=frozenset(description["user_tools"]),
    )


class CheckoutState:
    """An environment in the checkout's program, behind the package's tools; it is dropped there with this object."""

    def __init__(self, domain: CheckoutDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self._number = domain.process.make_state(domain.ref.env, task.id)
        self._ask = functools.partial(domain.process.ask, state=self._number)
        weakref.finalize(self, domain.process.dropped.append, self._number)

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.EnvState`."""
        result = self._ask("call", requestor=requestor, name=name, arguments=arguments)
        return Observation(**result)

    def reward(self, agent_texts: Sequence[str]) -> Reward:
        """Score by the package's own evaluator, natural-language assertions left out."""
        scored = self._ask("reward", texts=list(agent_texts))
        return Reward(float(scored["reward"]), self._info(scored))

    def changes(self) -> Changes:
        """Return what the conversation has changed so far."""
        return {(table, key): text for table, key, text in self._ask("changes")}

    def _info(self, scored: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts that the task scores, under our names, and the package's own answer as `tau2`."""
        if "unscorable" in scored:
            return dict(scored)
        info: dict[str, Any] = {}
        basis = self._task.reward_basis
        if "DB" in basis:
            same = bool((scored.get("db_check") or {}).get("db_match", True))
            expected = {} if same else self._domain.expected(self._task) or {}
            info |= {"db": same, "different": [] if same else different_entities(expected, self.changes())}
        if "COMMUNICATE" in basis:
            missing = [str(each["info"]) for each in scored.get("communicate_checks") or () if not each["met"]]
            info |= {"communicate": not missing, "missing_info": missing}
        if "ENV_ASSERTION" in basis:
            checks = scored.get("env_assertions") or ()
            info["assertions"] = [checked_assertion(each["env_assertion"], met=bool(each["met"])) for each in checks]
        if "ACTION" in basis:
            missed = [each["action"] for each in scored.get("action_checks") or () if not each["action_match"]]
            info["missing_actions"] = [call_text(each["requestor"], each["name"], each["arguments"]) for each in missed]
        return info | {"tau2": dict(scored)}
