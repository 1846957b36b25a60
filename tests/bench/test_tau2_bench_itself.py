"""Our loop against tau2-bench's own orchestrator, agent, user simulator and evaluator. Needs a checkout.

`TAUTOOLS_TAU2_BENCH_PATH` names it, `TAUTOOLS_TAU2_BENCH_PYTHON` its interpreter.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tau2_scripts import ENDS, make_case, normal, play

from tautools.bench import null_baseline, open_source, reference_reward
from tautools.bench.sources import tau2_checkout
from tautools.bench.types import Domain

PATH, PYTHON = (os.environ.get(f"TAUTOOLS_TAU2_BENCH_{name}", "") for name in ("PATH", "PYTHON"))
TASKS = {"airline": 50, "retail": 114, "telecom": 114}
"""Envs and their numbers of tasks."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PATH, reason="TAUTOOLS_TAU2_BENCH_PATH names no checkout of tau2-bench"),
]


@pytest.fixture(params=TASKS)
def domain(request: pytest.FixtureRequest) -> Domain:
    """One env after the other, all tasks of its base split."""
    return open_source("tau2", "tau2-bench", PATH, PYTHON or None).domain(request.param)


def play_original(domain: Domain, cases: list[dict[str, Any]], *, quick: bool = True) -> list[dict[str, Any]]:
    program = Path(__file__).parents[1] / "support" / "tau2_original.py"
    tables = str(Path(tau2_checkout.__file__).with_name("tau2_child.py")) if quick else ""
    job = {"path": domain.ref.path, "env": domain.ref.env, "cases": cases, "tables": tables}
    env = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LOGURU_LEVEL": "CRITICAL"}
    env.pop("PYTHONPATH", None)
    output = subprocess.run(
        [domain.ref.python, str(program)], input=json.dumps(job), capture_output=True, text=True, env=env, check=False
    )
    assert output.returncode == 0, output.stderr[-3000:]
    return [json.loads(line) for line in output.stdout.splitlines()]


def compare(domain: Domain, cases: list[dict[str, Any]], *, quick: bool) -> tuple[int, Counter[str]]:
    """Return how many requests were equal, and how the conversations ended."""
    ends: Counter[str] = Counter()
    requests = 0
    for case, original in zip(cases, play_original(domain, cases, quick=quick), strict=True):
        ours = asyncio.run(play(domain, case))
        for number, (wanted, made) in enumerate(zip(original["requests"], ours.requests, strict=False)):
            assert normal(made) == normal(wanted), f"{case['name']}, request {number}"
        assert len(ours.requests) == len(original["requests"]), case["name"]
        assert ours.outcome in ENDS[original["end"]], (case["name"], original["end"], ours.outcome)
        assert ours.reward == original["reward"], case["name"]
        ends[f"{original['end']} {original['reward']:g}"] += 1
        requests += len(ours.requests)
    return requests, ends


@pytest.mark.parametrize("variant", ["solve", "mixed", "mixed 2"])
def test_every_request_and_every_reward_is_the_originals(domain: Domain, variant: str) -> None:
    cases = [make_case(domain, task, variant) for task in domain.tasks.values()]
    requests, ends = compare(domain, cases, quick=True)
    print(f"\n{domain.ref.env} {variant}: {len(cases)} conversations, {requests} requests; {dict(ends)}")
    assert len(cases) == TASKS[domain.ref.env]
    assert requests > 4 * len(cases)
    assert variant != "solve" or ends == {"user_stop 1": len(cases)}


def test_too_many_errors_end_it_at_the_same_moment(domain: Domain) -> None:
    cases = [make_case(domain, task, "errors") for task in list(domain.tasks.values())[:2]]
    requests, ends = compare(domain, cases, quick=True)
    assert (requests, ends) == (2 * 5, {"too_many_errors 0": 2})


def test_the_package_with_its_own_databases_gives_the_same(domain: Domain) -> None:
    cases = [make_case(domain, task, "mixed 3") for task in list(domain.tasks.values())[::8]]
    requests, ends = compare(domain, cases, quick=False)
    print(f"\n{domain.ref.env} with its own databases: {len(cases)} conversations, {requests} requests; {dict(ends)}")
    assert len(cases) > 6


def test_every_reference_is_accepted_and_silence_is_not(domain: Domain) -> None:
    assert {reference_reward(domain, task).value for task in domain.tasks.values()} == {1.0}
    baseline = {"airline": 23, "retail": 11, "telecom": 0}
    assert sum(null_baseline(domain).values()) == baseline[domain.ref.env]
