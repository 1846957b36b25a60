"""v1 through its own litellm beside ours through its own client, over real HTTP: the same bodies but for fixed fields.

Needs a checkout and an interpreter with litellm and mcp; the comparison in process (`test_fidelity.py`) needs neither.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from scripted_server import Request, Say, ScriptedServer, serve_in_thread

from tautools.bench import open_source, run_conversation
from tautools.bench.fidelity.driver import canonical
from tautools.bench.fidelity.scripts import Case, make_cases
from tautools.bench.types import Approach, Domain
from tautools.llm import ModelClient
from tautools.llm.types import Endpoint
from tautools.records import Limits, ModelConfig, Role, Sampling, Strategy, UserStrategy

CHECKOUT = os.environ.get("TAUTOOLS_TAU_BENCH_PATH", "")
PYTHON = os.environ.get("TAUTOOLS_TAU_BENCH_PYTHON", "")

pytestmark = pytest.mark.skipif(
    not (CHECKOUT and PYTHON),
    reason="TAUTOOLS_TAU_BENCH_PATH and TAUTOOLS_TAU_BENCH_PYTHON name no checkout of tau-bench with its environment",
)

ORIGINAL = """
import sys
env, user, root, *tasks = sys.argv[1:]
sys.path.insert(0, root)
from tau_bench.agents.tool_calling_agent import ToolCallingAgent
from tau_bench.envs import get_env
for task in map(int, tasks):
    made = get_env(env, user, "user-model", "test", user_provider="openai", task_index=task)
    ToolCallingAgent(made.tools_info, made.wiki, "agent-model", "openai").solve(env=made, task_index=task)
"""


class Players:
    """Answer by role and by the number of that role's request, one conversation after the other."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases, self.at, self.asked = cases, 0, Counter[str]()

    def __call__(self, request: Request) -> Say:
        messages = request.body["messages"]
        constructing = "Instruction" not in str(messages[0]["content"]) and request.body["model"] == "user-model"
        if constructing:  # a new env of the original, about no task
            self.at += bool(self.asked)
            self.asked = Counter()
            return Say("true" if messages[0]["role"] == "user" else "User Response:\nHello.")
        role = "check" if messages[0]["role"] == "user" else request.body["model"].removesuffix("-model")
        lines, case = self.cases[self.at].answers[role], self.cases[self.at]
        self.asked[role] += 1
        said = lines[self.asked[role] - 1] if self.asked[role] <= len(lines) else case.after[role]
        calls = [(each["function"]["name"], each["function"]["arguments"]) for each in said.get("tool_calls") or ()]
        return Say(said["content"] or "", calls=calls)


def compared(server: ScriptedServer) -> list[Any]:
    """Return what is compared of the requests about tasks: litellm's own fields and our own are left out."""
    found = []
    for request in server.requests:
        body = dict(request.body)
        if body["model"] == "user-model" and "Instruction" not in str(body["messages"][0]["content"]):
            continue
        plain = ({k: v for k, v in each.items() if k != "provider_specific_fields"} for each in body.pop("messages"))
        messages = [re.sub(r"provider_specific_fields=(None|{[^}]*})", "", canonical(each)) for each in plain]
        rest = {k: v for k, v in body.items() if k not in {"stream", "stream_options", "seed"}}
        found.append((messages, canonical(rest)))
    return found


async def ours(domain: Domain, approach: Approach, cases: Sequence[Case]) -> list[Any]:
    parties = {
        Role.AGENT: ModelConfig(model="agent-model", sampling=Sampling(temperature=0.0)),
        Role.USER: ModelConfig(model="user-model"),
    }
    found = []
    for case in cases:
        async with (
            ScriptedServer(Players([case])) as server,
            ModelClient(lambda part: [Endpoint(server.base_url, parties[Role(part)].model)], parties) as client,
        ):
            task = domain.tasks[case.task_id]
            await run_conversation(domain, task, approach=approach, client=client, limits=Limits(), trial=0, seed=1)
            found += compared(server)
    return found


def originals(env: str, user: UserStrategy, cases: Sequence[Case]) -> list[Any]:
    with serve_in_thread(Players(cases)) as server:
        given = {"OPENAI_API_BASE": server.base_url, "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        words = [PYTHON, "-c", ORIGINAL, env, user.value, CHECKOUT, *(case.task_id for case in cases)]
        done = subprocess.run(words, env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return compared(server)


@pytest.mark.parametrize("env", ["airline", "retail"])
@pytest.mark.parametrize("user", [each for each in UserStrategy if each is not UserStrategy.HUMAN])
async def test_the_bodies_that_arrive_are_the_originals(env: str, user: UserStrategy) -> None:
    domain = open_source("tau-bench", path=CHECKOUT).domain(env)
    approach = Approach(Strategy.FC, user)
    cases = make_cases(domain, approach, ["solve"], list(domain.tasks.values())[:3])
    theirs = await asyncio.to_thread(originals, env, user, cases)
    own = await ours(domain, approach, cases)
    assert len(theirs) > 5 * len(cases)
    assert own == theirs
