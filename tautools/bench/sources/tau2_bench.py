"""tau2 from a tau2-bench checkout: its envs, tasks, tools and evaluator, at its own protocol."""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tautools.bench.agents import STRATEGIES, agent_prompt_hashes, make_agent
from tautools.bench.agents.fc import ToolCallingParticipant
from tautools.bench.selection import check_known
from tautools.bench.sources.tau2_checkout import CheckoutProcess, find_tau2_checkout
from tautools.bench.types import ConversationProtocol, Observation, ReferenceAction, Reward, Task
from tautools.errors import BenchError
from tautools.records import BenchRef, UserStrategy, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.types import Approach, Changes, Participant
    from tautools.llm.types import ToolSpec
    from tautools.records import Strategy


class CheckoutState:
    """An environment behind the package's own tools; it is dropped there when nobody holds it here."""

    def __init__(self, domain: CheckoutDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self._process = domain.process
        self._number = self._process.make_state(domain.ref.env, task.id)
        weakref.finalize(self, self._process.drop, self._number)

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.World`."""
        told = self._process.ask_state("call", self._number, requestor=requestor, name=name, arguments=arguments)
        return Observation(**told)

    def reward(self, agent_texts: Sequence[str]) -> Reward:
        """Score by the package's own evaluator, natural-language assertions left out."""
        found = self._process.ask_state("reward", self._number, said=list(agent_texts))
        return Reward(float(found["reward"]), self._info(found))

    def changes(self) -> Changes:
        """Return what the conversation has changed so far."""
        return {(table, key): text for table, key, text in self._process.ask_state("changes", self._number)}

    def _info(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts that the task scores, in our words, and the package's own answer as `tau2`."""
        parts = {
            "DB": self._database,
            "COMMUNICATE": _communicate_info,
            "ENV_ASSERTION": _assertion_info,
            "ACTION": _action_info,
        }
        info: dict[str, Any] = {}
        for basis in self._task.source_task.basis:
            if basis in parts:
                info |= parts[basis](found)
        return info | {"tau2": dict(found)}

    def _database(self, found: Mapping[str, Any]) -> dict[str, Any]:
        same = (found.get("db_check") or {}).get("db_match", True)
        return {"db": bool(same), "different": [] if same else self._different()}

    def _different(self) -> list[str]:
        wanted, actual = dict(self._domain.expected(self._task) or {}), dict(self.changes())
        both = sorted(wanted.keys() | actual.keys())
        return ["/".join(at) for at in both if (at in wanted, wanted.get(at)) != (at in actual, actual.get(at))]


def _communicate_info(found: Mapping[str, Any]) -> dict[str, Any]:
    missing = [str(each["info"]) for each in found.get("communicate_checks") or () if not each["met"]]
    return {"communicate": not missing, "missing_info": missing}


def _assertion_info(found: Mapping[str, Any]) -> dict[str, Any]:
    checks = found.get("env_assertions") or ()
    return {
        "assertions": [
            {"assertion": _assertion_text(each["env_assertion"]), "met": bool(each["met"])} for each in checks
        ]
    }


def _assertion_text(assertion: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in assertion["arguments"].items())
    told = f"{assertion['env_type']}: {assertion['func_name']}({arguments})"
    wanted = assertion.get("assert_value", True)
    return told if wanted else f"{told} is {wanted}"


def _action_info(found: Mapping[str, Any]) -> dict[str, Any]:
    missing = [each["action"] for each in found.get("action_checks") or () if not each["action_match"]]
    return {"missing_actions": [_action_text(each) for each in missing]}


def _action_text(action: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in action["arguments"].items())
    return f"{action['requestor']}: {action['name']}({arguments})"


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
        self.checkout = find_tau2_checkout(path, python)
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
        check_known("env", env, self.envs())
        return sorted(self.process.ask("splits", env=env), key=lambda name: (name != _DEFAULT_SPLIT, name))

    def domain(self, env: str, split: str | None = None) -> CheckoutDomain:
        """Return an env with its tasks, loaded once.

        Raises
        ------
        BenchError
            When there is no such env or split (it names those that exist), or the checkout is not whole.
        """
        split = check_known("split", split or _DEFAULT_SPLIT, self.splits(env))
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

    strategies: Sequence[Strategy] = STRATEGIES
    user_strategies: Sequence[UserStrategy] = (UserStrategy.LLM,)

    def __init__(self, process: CheckoutProcess, env: str, split: str) -> None:
        told = process.ask("domain", env=env, split=split)
        self.process = process
        checkout = process.checkout
        self.ref = BenchRef("tau2", env, split, Tau2Bench.name, str(checkout.path), str(checkout.python))
        self.tools: Sequence[ToolSpec] = told["tools"]
        self.user_tools: Sequence[ToolSpec] = told["user_tools"]
        self.policy: str = told["policy"]
        self.agent_system: str = told["agent_system"]
        self.tasks: Mapping[str, Task] = {str(each["task"]["id"]): _read_task(env, each) for each in told["tasks"]}
        self.reward_basis = _reward_basis(self.tasks)
        self.protocol = _read_protocol(told)
        self.prompts: Mapping[str, str] = _prompt_hashes(self, told["database"])
        self._expected: dict[str, Changes | None] = {}

    def env_state(self, task: Task) -> CheckoutState:
        """Return a fresh world for one conversation of `task`."""
        return CheckoutState(self, task)

    def agent(self, approach: Approach, seed: int) -> Participant:  # noqa: ARG002 - nothing is drawn here
        """Return the agent of one conversation."""
        return make_agent(self, approach)

    def user(self, task: Task, approach: Approach) -> Participant:  # noqa: ARG002 - there is one way only
        """Return the customer of one conversation, who has heard the agent's greeting."""
        has = task.source_task.user_tools
        user = ToolCallingParticipant(
            task.user_system, [tool for tool in self.user_tools if tool["function"]["name"] in has]
        )
        user.receive(self.protocol.agent_opening or "")
        return user

    def instructions(self, approach: Approach) -> Mapping[str, str]:
        """Return the hashes of the texts that models are shown."""
        return agent_prompt_hashes(self, approach)

    def expected(self, task: Task) -> Changes | None:
        """Return what the reference actions change; None when the task does not score the database."""
        if task.id not in self._expected:
            found = self.process.ask("expected", env=self.ref.env, task=task.id)
            self._expected[task.id] = None if found is None else {(table, key): text for table, key, text in found}
        return self._expected[task.id]

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        found: str | None = self.process.ask("loaded", env=self.ref.env, table=table, key=key)
        return found


def _read_protocol(told: Mapping[str, Any]) -> ConversationProtocol:
    """Return the package's rules: its agent greets, and every message is a step."""
    steps = int(told["max_steps"])
    return ConversationProtocol(
        name="tau2-bench",
        user_opening=None,
        agent_opening=str(told["greeting"]),
        stop_words=tuple(told["stop_words"]),
        max_rounds=steps,
        max_steps=steps,
        max_errors=int(told["max_errors"]),
        counts_messages=True,
    )


def _reward_basis(tasks: Mapping[str, Task]) -> str:
    """Return all that the rewards of the tasks are made of without a judge; each task names its own part of it."""
    named = {name for task in tasks.values() for name in task.source_task.basis} - {"NL_ASSERTION"}
    order = ("DB", "ENV_ASSERTION", "ACTION", "COMMUNICATE")
    return "+".join([*(name for name in order if name in named), *sorted(named.difference(order))])


def _read_task(env: str, told: Mapping[str, Any]) -> Task:
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
        reference=tuple(_read_action(each) for each in criteria.get("actions") or ()),
        communicate=tuple(criteria.get("communicate_info") or ()) if "COMMUNICATE" in basis else (),
        assertions=tuple(criteria.get("nl_assertions") or ()) if "NL_ASSERTION" in basis else (),
        source_task=CheckoutTask(data, frozenset(told["user_tools"]), basis),
    )


def _read_action(data: Mapping[str, Any]) -> ReferenceAction:
    compared = data.get("compare_args")
    requestor = data.get("requestor") or "assistant"
    return ReferenceAction(data["name"], data["arguments"], requestor, None if compared is None else tuple(compared))


def _prompt_hashes(domain: CheckoutDomain, database: str) -> dict[str, str]:
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
