"""Processor time that the harness takes for one conversation, next to inspect's own tau2 on the same server.

Retail tasks whose reference has five to seven calls are played by a scripted server in a process of its own, which
answers at once: the user asks, the agent makes the reference's calls one by one and says it is done, the user stops.
That is about ten model calls; in telecom more, as the customer does its part by calls of its own when the agent asks.
Processor time of this process is taken over all of them, rewards included, each task's expected database computed
inside the measured time. Then the same conversations with answers cut in many chunks: the slope is what a chunk costs.
inspect runs a few of the same tasks under its own `eval`, without streaming, through a model that converts with
inspect's functions and posts with httpx; what `eval` takes for no conversation is left out by taking the difference
between one sample and several.

Run `python benchmarks/harness_cost.py [--json] [--no-inspect]`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tautools.bench.types import Domain, Task

SUPPORT = Path(__file__).parents[1] / "tests" / "support"
CONCURRENT = 8
ROUNDS = 3
INSPECT_SAMPLES = 3
BUDGET = 1 / 1000
"""A retail conversation may take so much of the processor time that inspect's takes in the same run."""
FC = ("fc", "fc, telecom")
CUTS = {"whole": (0, 0.0), "spaced": (1, 2.0), "burst": (1, 0.0)}
"""Model name to characters per chunk (0: one chunk) and milliseconds between chunks."""


class Cost(NamedTuple):
    cpu_ms: float
    calls: float
    chunks: float


def scripts(tasks: Mapping[str, Task]) -> dict[str, dict[str, Any]]:
    """Return, by task id, what the server needs to play it; of tasks whose customers have the same instruction, one."""
    tasks = {task.id: task for task in {task.user_system: task for task in tasks.values()}.values()}
    return {
        task.id: {
            "user_system": task.user_system,
            "calls": [[action.requestor, action.name, dict(action.arguments)] for action in task.reference],
            "said": "It is all done now. " + " ".join(task.communicate),
        }
        for task in tasks.values()
        if 5 <= len(task.reference) <= 7
    }


async def serve(played: dict[str, dict[str, Any]]) -> None:
    """Answer as both roles, statelessly: the place in the script is read off the messages."""
    from scripted_server import Request, Say, ScriptedServer

    by_system = {script["user_system"]: name for name, script in played.items()}

    def answer(request: Request) -> Say:
        messages = request.body["messages"]
        chars, gap_ms = CUTS[request.body["model"]]
        form = {"chunk_chars": chars, "gap_s": gap_ms / 1000}
        turns = sum(message["role"] == "assistant" for message in messages)
        name = by_system.get(messages[0]["content"])
        if name is not None:
            said = customers_line(name, played[name], turns)
            return Say(said, **form) if isinstance(said, str) else Say(calls=[said], **form)
        if (script := played.get(messages[1]["content"].split()[3])) is None:
            return Say("Hello.", **form)  # v1's constructors ask about no task
        as_text = not request.body.get("tools")
        if turns >= len(script["calls"]):
            return Say(_action("respond", {"content": script["said"]}) if as_text else script["said"], **form)
        by, tool, arguments = script["calls"][turns]
        if by == "user":
            said = f"Please do this on your side: {tool}"
            return Say(_action("respond", {"content": said}) if as_text else said, **form)
        return Say(_action(tool, arguments), **form) if as_text else Say(calls=[(tool, arguments)], **form)

    async with ScriptedServer(answer) as server:
        server.requests = _Forgetful()
        print("READY", server.port, flush=True)
        await asyncio.Event().wait()


def customers_line(name: str, script: dict[str, Any], turns: int) -> str | tuple[str, dict[str, Any]]:
    """Return what the customer does next: its task, each of its own calls and that it is done, and the stop word."""
    own = [(tool, arguments) for by, tool, arguments in script["calls"] if by == "user"]
    lines = [f"Please solve task {name} for me.", *(line for call in own for line in (call, "Done.")), "###STOP###"]
    return lines[turns]


class _Forgetful(list[Any]):
    def append(self, _: Any) -> None:
        """Keep nothing: a benchmark's requests would fill the memory."""


def _action(name: str, arguments: dict[str, Any]) -> str:
    return f"Action:\n{json.dumps({'name': name, 'arguments': arguments})}"


@contextlib.contextmanager
def server(played: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Start the server's process and give its address."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scripts.json"
        path.write_text(json.dumps(played))
        process = subprocess.Popen([sys.executable, __file__, "--serve", str(path)], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().split()[1]}/v1"
        finally:
            process.terminate()
            process.wait()


async def ours(domain: Domain, base_url: str, names: list[str], strategy_name: str, cut: str) -> Cost:
    """Return what one conversation costs on average, `CONCURRENT` of them at a time."""
    from tautools.bench import conversation_seed, run_conversation
    from tautools.bench.types import Approach
    from tautools.llm import ModelClient
    from tautools.llm.types import Endpoint
    from tautools.records import CallRecord, Limits, ModelConfig, Role, Strategy

    seen: list[CallRecord] = []
    models = {role: ModelConfig(model=cut) for role in (Role.AGENT, Role.USER)}
    left = iter(names)

    async def work() -> None:
        for name in left:
            seed = conversation_seed(0, name, 0)
            task, limits = domain.tasks[name], Limits()
            strategy = Strategy(strategy_name)
            done = await run_conversation(
                domain, task, approach=Approach(strategy), client=client, limits=limits, trial=0, seed=seed
            )
            assert done.reward == 1.0, (name, done.outcome, done.reward_info)

    async with ModelClient(lambda _: [Endpoint(base_url, cut)], models, on_call=seen.append) as client:
        before = time.process_time()
        await asyncio.gather(*(work() for _ in range(CONCURRENT)))
        spent = time.process_time() - before
    return Cost(spent * 1000 / len(names), len(seen) / len(names), sum(call.chunks for call in seen) / len(names))


def tau2_retail() -> Domain:
    """Return tau2's retail, a new one: nothing of the rewards is known yet."""
    from tautools.bench.sources.inspect_tau2 import load_env

    return load_env("retail").of_split("base")


def tau2_telecom() -> Domain:
    """Return tau2's telecom, a new one."""
    from tautools.bench.sources.inspect_tau2 import load_env

    return load_env("telecom").of_split("base")


def lowest(make: Callable[[], Domain], base_url: str, names: list[str], strategy: str, cut: str) -> Cost:
    """Return the lowest of several measurements: other work on the machine only ever adds."""
    return min(asyncio.run(ours(make(), base_url, names, strategy, cut)) for _ in range(ROUNDS))


def inspects(base_url: str, names: list[str]) -> float:
    """Return the milliseconds that inspect's own tau2 takes per conversation."""
    one = _eval_s(base_url, names[:1])
    several = _eval_s(base_url, names[: 1 + INSPECT_SAMPLES])
    return (several - one) * 1000 / INSPECT_SAMPLES


def _eval_s(base_url: str, names: list[str]) -> float:
    import inspect_wire
    from inspect_ai import eval as inspect_eval
    from inspect_ai.model import get_model
    from inspect_evals.tau2 import tau2_retail

    model = get_model(f"{inspect_wire.PROVIDER}/whole", base_url=base_url, memoize=False)
    with tempfile.TemporaryDirectory() as folder:
        before = time.process_time()
        logs = inspect_eval(tau2_retail(), model=model, sample_id=names, log_dir=folder, display="none")
        spent = time.process_time() - before
        scores = [sample.scores for sample in logs[0].samples or []]
    assert len(scores) == len(names), logs[0].error
    assert all(score["retail_scorer"].value == "C" for score in scores if score), scores
    return spent


def measure(with_inspect: bool) -> dict[str, Any]:
    """Run everything and return the figures."""
    from tautools.bench import open_source

    played = scripts(open_source().domain("retail").tasks)
    names = list(played)
    with server(played) as base_url:
        asyncio.run(ours(tau2_retail(), base_url, names, "fc", "whole"))  # warm
        strategies = ("fc", "act", "react")
        costs = {strategy: lowest(tau2_retail, base_url, names, strategy, "whole") for strategy in strategies}
        cut = {mode: lowest(tau2_retail, base_url, names, "fc", mode) for mode in ("spaced", "burst")}
        whole = costs["fc"]
        original = inspects(base_url, names) if with_inspect else math.nan
        if with_inspect:  # before and after it: the machine may be busier at one of the two
            costs["fc"] = min(costs["fc"], lowest(tau2_retail, base_url, names, "fc", "whole"))
    with server(telecom := scripts(open_source().domain("telecom").tasks)) as base_url:
        asyncio.run(ours(tau2_telecom(), base_url, list(telecom), "fc", "whole"))  # warm
        costs["fc, telecom"] = lowest(tau2_telecom, base_url, list(telecom), "fc", "whole")
    chunk_us = {mode: (cost.cpu_ms - whole.cpu_ms) * 1000 / (cost.chunks - whole.chunks) for mode, cost in cut.items()}
    return {
        "tasks": len(names),
        "conversation_ms": {strategy: round(cost.cpu_ms, 2) for strategy, cost in costs.items()},
        "calls": {strategy: round(cost.calls, 1) for strategy, cost in costs.items()},
        "chunk_us": {mode: round(value, 2) for mode, value in chunk_us.items()},
        "inspect_ms": round(original, 1) if with_inspect else None,
    }


def print_figures(figures: dict[str, Any]) -> None:
    """Print the figures as a table."""
    print(f"processor time per conversation, {figures['tasks']} retail tasks or telecom's, rewards included")
    print(f"{'harness':<24}{'model calls':>12}{'ms':>10}")
    for strategy, ms in figures["conversation_ms"].items():
        print(f"{'tautools, ' + strategy:<24}{figures['calls'][strategy]:>12}{ms:>10}")
    if figures["inspect_ms"] is not None:
        print(f"{'inspect tau2, fc':<24}{figures['calls']['fc']:>12}{figures['inspect_ms']:>10}")
        ratio = figures["conversation_ms"]["fc"] / figures["inspect_ms"]
        print(f"ours is 1/{1 / ratio:.0f} of inspect's; budget 1/{1 / BUDGET:.0f} ({_kept(ratio, BUDGET)})")
    call_us = {strategy: 1000 * figures["conversation_ms"][strategy] / figures["calls"][strategy] for strategy in FC}
    retail, telecom = call_us.values()
    print(f"per model call: telecom {telecom:.0f} us, retail {retail:.0f} us ({_kept(telecom, retail)})")
    chunk_us = figures["chunk_us"]
    print(f"per streamed chunk: {chunk_us['spaced']} us when chunks come one by one, {chunk_us['burst']} us in bursts")


def _kept(spent: float, budget: float) -> str:
    return "kept" if spent <= budget else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--no-inspect", action="store_true", help="leave inspect's own tau2 out (it takes a minute)")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(SUPPORT))
    if options.serve:
        asyncio.run(serve(json.loads(options.serve.read_text())))
        return
    figures = measure(not options.no_inspect)
    print(json.dumps(figures, indent=1)) if options.json else print_figures(figures)


if __name__ == "__main__":
    main()
