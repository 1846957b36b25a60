"""tau-bench's own agents, users and envs, driven by a script, with every request they make."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tautools.bench.sources.tau_bench_checkout import PrivateImport

STAND_IN = Path(__file__).parent / "stand_in_tau_bench"
CHECKOUT = os.environ.get("TAUTOOLS_TAU_BENCH_PATH")

ROOTS = [
    pytest.param(STAND_IN, id="stand-in"),
    pytest.param(
        Path(CHECKOUT or ""),
        id="checkout",
        marks=pytest.mark.skipif(not CHECKOUT, reason="TAUTOOLS_TAU_BENCH_PATH names no checkout of tau-bench"),
    ),
]
"""The stand-in always, a real checkout where there is one."""

Line = str | list[tuple[str, str]]


@dataclass
class Solved:
    """What the original did."""

    requests: list[dict[str, Any]]
    """Role, messages and tools of each request, nulls left out."""
    reward: float | None
    """None when it ended in an exception."""
    error: str = ""


@dataclass
class _Script:
    agent: Sequence[Line]
    user: Sequence[Line]
    requests: list[dict[str, Any]] = field(default_factory=list)

    def completion(self, *, messages: list[Any], **given: Any) -> Any:
        """Answer as litellm does; only agents give a temperature."""
        import litellm

        role = "agent" if "temperature" in given else "user"
        lines = self.agent if role == "agent" else self.user
        line = lines[min(sum(each["role"] == role for each in self.requests), len(lines) - 1)]
        self.requests.append(
            {"role": role, "messages": copy.deepcopy(list(map(plain, messages))), "tools": given.get("tools")}
        )
        words = line if isinstance(line, str) else None
        calls = [] if isinstance(line, str) else [_call(index, *each) for index, each in enumerate(line)]
        message = litellm.Message(content=words, role="assistant", tool_calls=calls or None)
        return SimpleNamespace(choices=[SimpleNamespace(message=message)], _hidden_params={"response_cost": 0.0})


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as a server reads it: what is null is not there, but for the words."""
    return {name: value for name, value in message.items() if value is not None or name == "content"}


def _call(index: int, name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}


class Original:
    """One checkout, driven as it is."""

    def __init__(self, root: Path) -> None:
        self.script = _Script([], [])
        litellm = ModuleType("litellm")
        vars(litellm)["completion"] = self._completion
        self.package = PrivateImport(root, "tau_bench", {"litellm": litellm})

    def env(self, name: str, split: str, index: int, user_strategy: str = "human") -> Any:
        """Make an env."""
        get_env = self.package.module("tau_bench.envs").get_env
        return get_env(name, user_strategy, "user", split, "openai", index)

    def solve(
        self,
        place: tuple[str, str, int],
        agent: Callable[[Any], Any],
        user_strategy: str,
        lines: tuple[Sequence[Line], Sequence[Line]],
    ) -> Solved:
        """Let the agent that `agent` makes for an env solve a task; what constructors ask is not kept."""
        self.script = _Script(["Hi"], ["Thought: true"])
        env = self.env(*place, user_strategy)
        self.script = _Script(*lines)
        try:
            reward = agent(env).solve(env=env, task_index=place[2]).reward
        except Exception as error:
            return Solved(self.script.requests, None, f"{type(error).__name__}: {error}")
        return Solved(self.script.requests, reward)

    def _completion(self, **given: Any) -> Any:
        return self.script.completion(**given)

    def caller(self, env: Any) -> Any:
        """Make the tool-calling agent."""
        return self.package.module("tau_bench.agents.tool_calling_agent").ToolCallingAgent(**_shared(env))

    def writer(self, env: Any, *, thinks: bool) -> Any:
        """Make `act` or `react`."""
        kind = self.package.module("tau_bench.agents.chat_react_agent").ChatReActAgent
        return kind(**_shared(env), use_reasoning=thinks)

    def shown(self, env: Any, displays: Sequence[str]) -> Any:
        """Make the few-shot agent."""
        kind = self.package.module("tau_bench.agents.few_shot_agent").FewShotToolCallingAgent
        return kind(**_shared(env), few_shot_displays=list(displays))


def _shared(env: Any) -> dict[str, Any]:
    return {"tools_info": env.tools_info, "wiki": env.wiki, "model": "agent", "provider": "openai"}
