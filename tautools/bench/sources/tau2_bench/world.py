"""One conversation's environment in the checkout's process."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from tautools.bench.types import Observation, Reward

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.sources.tau2_bench.domain import CheckoutDomain
    from tautools.bench.types import Changes, Task

__all__ = ["CheckoutWorld"]


class CheckoutWorld:
    """An environment behind the package's own tools; it is dropped there when nobody holds it here."""

    def __init__(self, domain: CheckoutDomain, task: Task) -> None:
        self._domain = domain
        self._task = task
        self._process = domain.process
        self._number = self._process.make_world(domain.env, task.id)
        weakref.finalize(self, self._process.drop, self._number)

    async def call(self, name: str, arguments: str, requestor: str = "assistant") -> Observation:
        """Run one tool; see `tautools.bench.types.World`."""
        told = self._process.ask_world("call", self._number, requestor=requestor, name=name, arguments=arguments)
        return Observation(**told)

    def reward(self, agent_texts: Sequence[str]) -> Reward:
        """Score by the package's own evaluator, natural-language assertions left out."""
        found = self._process.ask_world("reward", self._number, said=list(agent_texts))
        return Reward(float(found["reward"]), self._info(found))

    def changes(self) -> Changes:
        """Return what the conversation has changed so far."""
        return {(table, key): text for table, key, text in self._process.ask_world("changes", self._number)}

    def _info(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts that the task scores, in our words, and the package's own answer as `tau2`."""
        parts = {
            "DB": self._database,
            "COMMUNICATE": _information,
            "ENV_ASSERTION": _assertions,
            "ACTION": _actions,
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


def _information(found: Mapping[str, Any]) -> dict[str, Any]:
    missing = [str(each["info"]) for each in found.get("communicate_checks") or () if not each["met"]]
    return {"communicate": not missing, "missing_info": missing}


def _assertions(found: Mapping[str, Any]) -> dict[str, Any]:
    checks = found.get("env_assertions") or ()
    return {"assertions": [{"assertion": _words(each["env_assertion"]), "met": bool(each["met"])} for each in checks]}


def _words(assertion: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in assertion["arguments"].items())
    told = f"{assertion['env_type']}: {assertion['func_name']}({arguments})"
    wanted = assertion.get("assert_value", True)
    return told if wanted else f"{told} is {wanted}"


def _actions(found: Mapping[str, Any]) -> dict[str, Any]:
    missing = [each["action"] for each in found.get("action_checks") or () if not each["action_match"]]
    return {"missing_actions": [_called(each) for each in missing]}


def _called(action: Mapping[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in action["arguments"].items())
    return f"{action['requestor']}: {action['name']}({arguments})"
