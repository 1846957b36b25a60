"""tau2 from the PyPI package `inspect-evals`: airline, retail and telecom.

Tasks, tools, database, policy, prompts and guidelines are the package's own, read when they are asked for. What is ours
is how the database is held: see `copy_on_touch`.
"""

from __future__ import annotations

import contextlib
from importlib import metadata
from typing import TYPE_CHECKING

from tautools.bench.sources.inspect_domain import SOURCE, InspectDomain
from tautools.bench.sources.inspect_env import ENVS, changes, expected_changes, load_env, split_names
from tautools.bench.sources.inspect_telecom import TelecomDomain
from tautools.bench.sources.naming import choose
from tautools.bench.types import Observation, Reward
from tautools.errors import BenchError, NotHereError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.bench.types import Changes, Task

__all__ = ["InspectTau2", "Tau2Domain", "Tau2World"]

_DEFAULT_SPLIT = "base"
_BANKING = (
    "Its agent searches a knowledge base of documents in one of three ways (grep, full_kb, no_knowledge), customer and "
    "agent change one database, and tools are handed out during the talk: none of that is built here."
)
_NOT_PLAYED = {"banking": _BANKING, "banking_knowledge": _BANKING}
"""Domains of the package that have no source here, and what they would need."""


class InspectTau2:
    """The source `inspect-evals`."""

    name = SOURCE

    def __init__(self) -> None:
        try:
            self.version = metadata.version("inspect-evals")
        except metadata.PackageNotFoundError as error:
            raise NotHereError(
                "The package inspect-evals is not installed.",
                next_step="Install it in this environment: pip install 'inspect-evals>=0.26'.",
            ) from error
        self._domains: dict[tuple[str, str], InspectDomain] = {}

    def envs(self) -> Sequence[str]:
        """Return the names of the envs."""
        return tuple(ENVS)

    def splits(self, env: str) -> Sequence[str]:
        """Return the names of an env's splits, the default one first."""
        self._check(env)
        with _as_expected(self.version):
            names = split_names(env)
        return sorted(names, key=lambda name: (name != _DEFAULT_SPLIT, name))

    def _check(self, env: str) -> None:
        if env in _NOT_PLAYED:
            raise BenchError(
                f"tautools does not play tau2's {env}.",
                evidence=f"inspect-evals {self.version} has it as `tau2_banking`. {_NOT_PLAYED[env]}",
                next_step=f"Choose another env ({', '.join(ENVS)}); inspect's own command plays banking: "
                "inspect eval inspect_evals/tau2_banking.",
            )
        choose("env", env, ENVS)

    def domain(self, env: str, split: str | None = None) -> InspectDomain:
        """Return an env with its tasks, loaded once.

        Raises
        ------
        BenchError
            When there is no such env or split (it names those that exist), or the package is not as it was.
        """
        split = choose("split", split or _DEFAULT_SPLIT, self.splits(env))
        if (env, split) not in self._domains:
            with _as_expected(self.version):
                self._domains[env, split] = _load(env, split)
        return self._domains[env, split]


def _load(env: str, split: str) -> InspectDomain:
    return TelecomDomain(split) if env == "telecom" else Tau2Domain(env, split)


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


class Tau2Domain(InspectDomain):
    """Airline or retail with the tasks of one split."""

    reward_basis = "DB+COMMUNICATE"

    def __init__(self, env: str, split: str) -> None:
        self.shared = load_env(env)
        super().__init__(env, split, self.shared)
        self._expected: dict[str, Changes | None] = {}

    def world(self, task: Task) -> Tau2World:
        """Return a fresh world for one conversation of `task`."""
        return Tau2World(self, task)

    def expected(self, task: Task) -> Changes | None:
        """Return what the reference actions change; None when the task does not score the database."""
        if task.id not in self._expected:
            self._expected[task.id] = expected_changes(self.shared, task)
        return self._expected[task.id]

    def as_loaded(self, table: str, key: str) -> str | None:
        """Return the canonical JSON of an entity as loaded; None when there is no such entity."""
        return self.shared.tables[table].canonical(key) if table in self.shared.tables else None


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
