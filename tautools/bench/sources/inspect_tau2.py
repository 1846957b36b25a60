"""tau2 from the PyPI package `inspect-evals`: airline and retail.

Tasks, tools, database, policy, prompts and guidelines are the package's own, read when they are asked for. What is ours
is how the database is held: see `copy_on_touch`.
"""

from __future__ import annotations

import contextlib
import hashlib
from importlib import metadata
from typing import TYPE_CHECKING

from tautools.bench.agents import STRATEGIES, agent_instructions, make_agent
from tautools.bench.sources.inspect_env import ENVS, changes, expected_changes, load_env, load_tasks, split_names
from tautools.bench.sources.inspect_texts import user_guidelines, user_opening
from tautools.bench.sources.naming import choose
from tautools.bench.types import Observation, Protocol_, Reward
from tautools.bench.users import make_user
from tautools.errors import BenchError
from tautools.records import UserStrategy, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tautools.bench.agents.move import Speaker
    from tautools.bench.types import Approach, Changes, Task
    from tautools.llm.types import ToolSpec
    from tautools.records import Strategy

__all__ = ["InspectTau2", "Tau2Domain", "Tau2World"]

_DEFAULT_SPLIT = "base"
_MAX_ROUNDS = 100  # inspect_evals.tau2.common.agents.DEFAULT_MESSAGE_LIMIT
_STOP_WORDS = ("###STOP###", "###OUT-OF-SCOPE###", "###TRANSFER###")


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
        return tuple(ENVS)

    def splits(self, env: str) -> Sequence[str]:
        """Return the names of an env's splits, the default one first."""
        choose("env", env, ENVS)
        with _as_expected(self.version):
            names = split_names(env)
        return sorted(names, key=lambda name: (name != _DEFAULT_SPLIT, name))

    def domain(self, env: str, split: str | None = None) -> Tau2Domain:
        """Return an env with its tasks, loaded once.

        Raises
        ------
        BenchError
            When there is no such env or split (it names those that exist), or the package is not as it was.
        """
        split = choose("split", split or _DEFAULT_SPLIT, self.splits(env))
        if (env, split) not in self._domains:
            with _as_expected(self.version):
                self._domains[env, split] = Tau2Domain(env, split)
        return self._domains[env, split]


@contextlib.contextmanager
def _as_expected(version: str) -> Iterator[None]:
    """Tell a package that has changed from a mistake of ours or of the person."""
    try:
        yield
    except (ImportError, AttributeError, FileNotFoundError, KeyError) as error:
        raise BenchError(
            f"The installed inspect-evals {version} is not the package that tautools knows.",
            evidence=f"{type(error).__name__}: {error}",
            next_step="Install the versions of tautools' lock file: pip install 'inspect-evals==0.26.*'.",
        ) from error


class Tau2Domain:
    """One env of tau2 with the tasks of one split."""

    bench = "tau2"
    source = "inspect-evals"
    path = python = ""
    strategies: Sequence[Strategy] = STRATEGIES
    user_strategies: Sequence[UserStrategy] = (UserStrategy.LLM,)

    def __init__(self, env: str, split: str) -> None:
        self.env = env
        self.split = split
        self.shared = load_env(env)
        self.tools: Sequence[ToolSpec] = self.shared.tools.specs
        self.user_tools: Sequence[ToolSpec] = ()
        self.policy = self.shared.policy
        self.agent_system = self.shared.agent_system
        self.tasks: Mapping[str, Task] = load_tasks(env, split)
        self.protocol = Protocol_("inspect-tau2", user_opening(), None, _STOP_WORDS, _MAX_ROUNDS)
        self.prompts = self._hashes()
        self._expected: dict[str, Changes | None] = {}

    def world(self, task: Task) -> Tau2World:
        """Return a fresh world for one conversation of `task`."""
        return Tau2World(self, task)

    def agent(self, approach: Approach, seed: int) -> Speaker:  # noqa: ARG002 - nothing is drawn here
        """Return the agent of one conversation."""
        return make_agent(self, approach)

    def user(self, task: Task, approach: Approach) -> Speaker:  # noqa: ARG002 - there is one way only
        """Return the customer of one conversation."""
        return make_user(self, task)

    def instructions(self, approach: Approach) -> Mapping[str, str]:
        """Return the hashes of the texts that models are shown."""
        return agent_instructions(self, approach)

    def expected(self, task: Task) -> Changes | None:
        """Return what the reference actions change; None when the task does not score the database."""
        if task.id not in self._expected:
            self._expected[task.id] = expected_changes(self.shared, task)
        return self._expected[task.id]

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        return self.shared.tables[table].canonical(key) if table in self.shared.tables else None

    def _hashes(self) -> Mapping[str, str]:
        texts = {
            "agent_system": self.agent_system,
            "policy": self.policy,
            "tasks": canonical_json({task.id: task.user_system for task in self.tasks.values()}),
            "tools": canonical_json(self.tools),
            "user_guidelines": user_guidelines(),
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
        actual = self.changes()
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

    def changes(self) -> Changes:
        """Return what the conversation has changed so far."""
        return changes(self._toolkit)


def _differences(expected: Changes, actual: Changes) -> list[str]:
    keys = sorted(expected.keys() | actual.keys())
    return [f"{table}/{key}" for table, key in keys if not _same(expected, actual, (table, key))]


def _same(expected: Changes, actual: Changes, place: tuple[str, str]) -> bool:
    return place in expected and place in actual and expected[place] == actual[place]
