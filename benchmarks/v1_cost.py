"""Processor time that one conversation of tau-bench v1 takes, ours next to the original's, on the same scripted server.

Retail tasks whose reference has five to seven calls; the server, a process of its own, answers at once and the same to
both: the user asks, the agent makes the reference's calls one by one and says it is done, the user stops. The original
runs from its checkout in a process of its own: its `get_env` and its agent's `solve`, as its `run` does for each task,
through the real litellm, one after the other. Taken is the processor time over all conversations, rewards included;
imports and a first conversation on each side are not counted.

Run `TAUTOOLS_TAU_BENCH_PATH=CHECKOUT python benchmarks/v1_cost.py [--json]`; without a checkout it says so and ends.
The original needs litellm and, for requests with tools, `mcp`; TAUTOOLS_TAU_BENCH_PYTHON names such an interpreter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from harness_cost import SUPPORT, lowest, ours, scripts, server

if TYPE_CHECKING:
    from pathlib import Path

ORIGINALS = 12
"""Conversations of the original; it takes a third of a second for each."""
BUDGET_MS = 15.0
VARIABLE, INTERPRETER = "TAUTOOLS_TAU_BENCH_PATH", "TAUTOOLS_TAU_BENCH_PYTHON"


def measure(checkout: str) -> dict[str, Any]:
    """Run both and return the figures."""
    from tautools.bench.sources.tau_bench import TauBench, TauBenchDomain
    from tautools.bench.sources.tau_bench_checkout import find_tau_bench

    root = find_tau_bench(checkout)

    def retail() -> TauBenchDomain:
        return TauBench(root).domain("retail")

    domain = retail()
    played = passing(domain, scripts(domain.tasks))
    names = list(played)
    with server(played) as base_url:
        asyncio.run(ours(retail(), base_url, names, "fc", "whole"))  # warm
        costs = {strategy: lowest(retail, base_url, names, strategy, "whole") for strategy in ("fc", "act", "react")}
        original = originals(root, base_url, names[: ORIGINALS + 1])
    return {
        "tasks": len(names),
        "conversation_ms": {strategy: round(cost.cpu_ms, 2) for strategy, cost in costs.items()},
        "calls": {strategy: round(cost.calls, 1) for strategy, cost in costs.items()},
        "original": original,
    }


def passing(domain: Any, played: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Leave out what v1's own scorer does not accept: both sides shall end the same way."""
    from tautools.bench import reference_reward

    return {name: each for name, each in played.items() if reference_reward(domain, domain.tasks[name]).value == 1.0}


def originals(root: Path, base_url: str, names: list[str]) -> dict[str, Any]:
    """Return what the original's conversations cost, in a process of its own, or why they could not be run."""
    env = {**os.environ, "OPENAI_API_BASE": base_url, "OPENAI_API_KEY": "none", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    words = [os.environ.get(INTERPRETER) or sys.executable, __file__, "--original", str(root), *names]
    done = subprocess.run(words, env=env, check=False, capture_output=True, text=True)
    if done.returncode:
        why = done.stderr.strip().rsplit("\n", 1)[-1]
        return {"why_not": f"{why}; name an interpreter with litellm and mcp by {INTERPRETER}"}
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def run_originals(root: str, names: list[str]) -> dict[str, Any]:
    """Run conversations as the original's `run` does; the first one only warms it."""
    sys.path.insert(0, root)
    from tau_bench.agents.tool_calling_agent import ToolCallingAgent
    from tau_bench.envs import get_env

    rewards = []
    for number, name in enumerate(names):
        if number == 1:
            before = time.process_time()
        env = get_env("retail", "llm", "whole", "test", user_provider="openai", task_index=int(name))
        agent = ToolCallingAgent(env.tools_info, env.wiki, "whole", "openai")
        rewards.append(agent.solve(env=env, task_index=int(name)).reward)
    spent = time.process_time() - before
    assert set(rewards) == {1.0}, rewards
    return {"conversations": len(names) - 1, "conversation_ms": round(spent * 1000 / (len(names) - 1), 1)}


def print_figures(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    original = figures["original"]
    print(f"processor time per conversation of v1, {figures['tasks']} retail tasks, rewards included")
    print(f"{'harness':<24}{'model calls':>12}{'ms':>10}")
    for strategy, ms in figures["conversation_ms"].items():
        print(f"{'tautools, ' + strategy:<24}{figures['calls'][strategy]:>12}{ms:>10}")
    if "why_not" in original:
        print(f"tau-bench, tool-calling: not measured ({original['why_not']})")
    else:
        print(f"{'tau-bench, tool-calling':<24}{figures['calls']['fc'] + 1:>12}{original['conversation_ms']:>10}")
    worst = max(figures["conversation_ms"].values())
    kept = "kept" if worst <= BUDGET_MS else "MISSED"
    print(f"budget per conversation: {BUDGET_MS:g} ms; spent: {worst} ms ({kept})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--original", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.original:
        print(json.dumps(run_originals(options.original[0], options.original[1:])))
        return
    checkout = os.environ.get(VARIABLE)
    if not checkout:
        print(f"v1 next to the original: left out, {VARIABLE} names no checkout of tau-bench")
        return
    sys.path.insert(0, str(SUPPORT))
    figures = measure(checkout)
    print(json.dumps(figures, indent=1)) if options.json else print_figures(figures)


if __name__ == "__main__":
    main()
