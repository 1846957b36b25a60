"""Plays scripts with tau2-bench's own orchestrator, agent and user simulator; runs in the checkout's environment.

It reads one JSON object from standard input and writes one JSON line per conversation. The answers come from the
script: `completion` is replaced where the package bound it. A judge that is asked finds every assertion met. With
`tables`, the path of our own module for that, the databases are shared until they are touched, which is ten times as
quick; without it nothing of the package but `completion` is another one.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from importlib import util
from types import SimpleNamespace
from typing import Any


class Response:
    """As much of litellm's answer as the package reads."""

    def __init__(self, answer: dict[str, Any]) -> None:
        calls = [
            SimpleNamespace(id=each["id"], function=SimpleNamespace(**each["function"]))
            for each in answer.get("tool_calls") or ()
        ]
        message = SimpleNamespace(role="assistant", content=answer["content"], tool_calls=calls or None)
        self.choices = [SimpleNamespace(message=message, finish_reason="stop")]
        self.model = "scripted"

    def get(self, name: str) -> None:
        """There is no usage."""

    def to_dict(self) -> dict[str, Any]:
        """There is no raw answer."""
        return {}


class Script:
    """Answers each role by the number of its request, and keeps the requests."""

    def begin(self, case: dict[str, Any]) -> None:
        self.case = case
        self.requests: list[dict[str, Any]] = []

    def completion(self, *, model: str, messages: list[Any], tools: Any = None, **rest: Any) -> Response:
        role = model.removesuffix("-model")
        if role not in {"agent", "user"}:
            return Response({"content": self._judged(messages)})
        index = sum(each["role"] == role for each in self.requests)
        kept = {"role": role, "messages": copy.deepcopy(messages), "tools": tools, "seed": rest.get("seed")}
        self.requests.append(kept)
        lines = self.case["answers"][role]
        return Response(lines[index] if index < len(lines) else self.case["after"][role])

    @staticmethod
    def _judged(messages: list[Any]) -> str:
        asked = {"expectedOutcome": messages[-1]["content"][-200:], "metExpectation": True, "reasoning": "scripted"}
        return json.dumps({"results": [asked]})


def main() -> None:
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    sys.path.insert(0, f"{job['path']}/src")
    from tau2.data_model.simulation import TextRunConfig
    from tau2.registry import registry
    from tau2.runner.build import build_text_orchestrator
    from tau2.runner.simulation import run_simulation
    from tau2.utils import llm_utils

    if job.get("tables"):
        spec = util.spec_from_file_location("tables", job["tables"])
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.hold_databases()
    script = Script()
    llm_utils.completion = script.completion
    llm_utils.get_response_cost = lambda _response: 0.0
    tasks = {task.id: task for task in registry.get_tasks_loader(job["env"])(None)}
    config = TextRunConfig(
        domain=job["env"],
        agent="llm_agent",
        llm_agent="agent-model",
        llm_args_agent={},
        user="user_simulator",
        llm_user="user-model",
        llm_args_user={},
    )
    for case in job["cases"]:
        script.begin(case)
        try:
            run = run_simulation(build_text_orchestrator(config, tasks[case["task_id"]], seed=case["seed"]))
            end = {"reward": run.reward_info.reward, "end": run.termination_reason.value, "messages": len(run.messages)}
        except Exception as error:
            end = {"reward": None, "end": f"{type(error).__name__}: {error}", "messages": None}
        wire.write(json.dumps({"case": case["name"], "requests": script.requests, **end}) + "\n")
        wire.flush()


if __name__ == "__main__":
    main()
