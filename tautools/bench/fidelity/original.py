"""Plays scripts with tau-bench's own agents, users and envs, in a process of their own."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.bench.fidelity.trace import Asked, Trace, canonical
from tautools.errors import BenchError
from tautools.shell import Shell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.fidelity.scripts import Case
    from tautools.bench.types import Approach

__all__ = ["Original"]

_DRIVER = Path(__file__).with_name("driver.py")
_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Original:
    """The original and what it is run by."""

    path: Path
    """A checkout of tau-bench."""
    domain_path: Path | None = None
    """Another package of its shape, whose tasks, tools and data the checkout's agents, users and envs shall play."""
    python: str = sys.executable
    jobs: int = 1
    """Processes at one time."""

    def fixed_texts(self, place: tuple[str, str], approach: Approach) -> Mapping[str, Sequence[str]]:
        """Return the original's own fixed texts by name, in pieces around what differs between conversations."""
        texts: Mapping[str, Sequence[str]] = json.loads(self._told(place, approach, (), ())[0])["texts"]
        return texts

    def play(
        self, place: tuple[str, str], approach: Approach, cases: Sequence[Case], displays: Sequence[str] = ()
    ) -> list[Trace]:
        """Play the scripts, in a process that ends before this returns.

        Parameters
        ----------
        place : (str, str)
            Env and split.
        approach : Approach
            How both sides are played.
        cases : sequence of Case
            The scripts.
        displays : sequence of str
            The solved examples that few-shot draws from.

        Returns
        -------
        list of Trace
            In the order of the scripts.

        Raises
        ------
        BenchError
            When the original could not be run.
        """
        return _read(self._told(place, approach, cases, displays)[1:])

    def _told(
        self, place: tuple[str, str], approach: Approach, cases: Sequence[Case], displays: Sequence[str]
    ) -> list[str]:
        job = {
            "path": str(self.path),
            "domain_path": str(self.domain_path) if self.domain_path else None,
            "env": place[0],
            "split": place[1],
            "strategy": approach.strategy.value,
            "user_strategy": approach.user_strategy.value,
            "displays": list(displays),
            "cases": [asdict(case) for case in cases],
        }
        told = Shell().run([self.python, "-X", "utf8", str(_DRIVER)], timeout_s=_TIMEOUT_S, input=json.dumps(job))
        lines = told.stdout.splitlines()
        if told.exit_code or len(lines) != len(cases) + 1:
            raise BenchError(
                f"The original in {self.path} could not be run.",
                evidence=told.stderr.strip()[-1500:] or f"It wrote {len(lines)} lines for {len(cases)} scripts.",
                next_step=f"It is run by {self.python} and needs pydantic there; name another with --python.",
            )
        return lines


def _read(lines: Sequence[str]) -> list[Trace]:
    texts: dict[str, str] = {}
    traces = []
    for line in lines:
        told = json.loads(line)
        texts |= {key: canonical(json.loads(text)) for key, text in told["texts"].items()}
        traces.append(_trace(told, texts))
    return traces


def _trace(told: dict[str, Any], texts: Mapping[str, str]) -> Trace:
    asked = [each for each in told["requests"] if not each["constructor"]]
    scored = told["reward_info"] or {}
    return Trace(
        case=told["case"],
        requests=tuple(_asked(each, texts) for each in asked),
        messages=tuple(texts[key] for key in told["messages"]),
        reward=told["reward"],
        db=told["db"] if scored else None,
        outputs=scored.get("info", {}).get("outputs", {}),
        end=told.get("error", "") or ("" if scored else "step_limit"),
        constructor=len(told["requests"]) - len(asked),
    )


def _asked(told: dict[str, Any], texts: Mapping[str, str]) -> Asked:
    left_out = ("role", "constructor", "messages", "tools", "custom_llm_provider")
    rest = {name: value for name, value in told.items() if name not in left_out}
    return Asked(
        role=told["role"],
        messages=tuple(texts[key] for key in told["messages"]),
        tools=texts[told["tools"]] if told["tools"] else "",
        rest=canonical(rest),
    )
