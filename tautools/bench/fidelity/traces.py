"""What each side of a comparison did in one conversation, in a form that can be compared, and how each side is run.

The original (tau-bench's own agents, users and envs) runs in a process of its own, by `driver`. Ours is the loop of
every run, with a client that answers from the script and keeps what is asked.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tautools.bench.conversation import run_conversation
from tautools.bench.fidelity.driver import canonical, recorded
from tautools.bench.fidelity.scripts import Case
from tautools.bench.sources.tau_bench_checkout import TauBenchCheckout, first_request
from tautools.bench.sources.tau_bench_participants import agent_system_prompt
from tautools.bench.types import Approach, Domain
from tautools.errors import BenchError
from tautools.llm.request import chat_body
from tautools.llm.types import CallTag, Endpoint, Message, Reply, ToolCall, ToolSpec
from tautools.records import CallRecord, Limits, ModelConfig, Outcome, Role, Sampling
from tautools.shell import run_command


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """One request."""

    role: str
    """`agent`, `user`, or `check`: what a user model is asked about its own draft."""
    messages: Sequence[str]
    """Each as canonical JSON."""
    tools: str
    """As canonical JSON; empty when none are offered."""
    rest: str
    """Model and sampling, as canonical JSON."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One conversation."""

    case: str
    requests: Sequence[RecordedRequest]
    messages: Sequence[str]
    """The agent's history at the end, each message as canonical JSON; empty when an exception lost it."""
    reward: float | None
    db: bool | None
    """Whether the database ended as the reference leaves it; None when it was not scored."""
    outputs: Mapping[str, bool]
    """Whether each required information was said."""
    end: str = ""
    """What ended it when that was not the benchmark: an exception of the original, or an outcome of ours."""
    constructor: int = 0
    """Requests that were made while the conversation was set up, about no task."""


def fixed_texts(checkout: TauBenchCheckout) -> dict[str, list[str]]:
    """Return a package's own words around what differs between conversations, in pieces, by what they are for."""
    react = checkout.module("agents.chat_react_agent").ChatReActAgent
    few_shot = checkout.module("agents.few_shot_agent").FewShotToolCallingAgent
    user = checkout.module("envs.user")
    texts: dict[str, list[str]] = {}
    for name in ("act", "react"):
        agent = react(["\1"], "\0", "", "openai", use_reasoning=name == "react")
        texts[f"agent {name}"] = agent.prompt.replace(json.dumps(["\1"]), "\0").split("\0")
    shown = agent_system_prompt(few_shot([], "", "", "openai", few_shot_displays=["\0"], num_few_shots=1))
    texts["example"] = [shown.split("\0")[0].strip().removesuffix(" 1:")]
    plain = user.LLMUserSimulationEnv
    for name, kind in {"user llm": plain, "user react": user.ReactUserSimulationEnv}.items():
        texts[name] = str(kind.build_system_prompt(kind.__new__(kind), instruction="\0")).split("\0")

    def asked(about: Callable[..., Any], *messages: Message) -> str:
        return str(first_request(about, "", "openai", "\0", list(messages))[0]["content"])

    for name, about in {"verify": user.verify, "reflect": user.reflect}.items():
        texts[name] = asked(about, {"role": "\1", "content": ""}).replace("\1: ", "\0").split("\0")
    draft = asked(user.verify, *({"role": role, "content": "\1"} for role in ("system", "user", "assistant")))
    texts["labels"] = re.findall("(.*): \x01", draft)
    texts["opening"] = [first_request(plain, "", "openai")[1]["content"]]
    return texts


class FixedTextMask:
    """Replaces a package's fixed texts by their names, so that two packages of one shape compare."""

    def __init__(self, checkout: TauBenchCheckout) -> None:
        fixed = fixed_texts(checkout)
        pairs = [(f"\\n{fixed['example'][0]} {number}:\\n", f"\\n<example {number}>\\n") for number in range(1, 6)]
        pairs += [
            (json.dumps(piece, ensure_ascii=False)[1:-1], f"<{name} {number}>")
            for name, pieces in fixed.items()
            if name not in {"labels", "example"}
            for number, piece in enumerate(pieces)
            if piece.strip()
        ]
        # The longest first: a piece may be part of another one. A label follows a line's end, or the piece before.
        self._pairs = sorted(pairs, key=lambda pair: -len(pair[0]))
        for label, role in zip(fixed["labels"], ("system", "user", "assistant"), strict=True):
            self._pairs += [(f"{before}{label}: ", f"{before}<{role}>: ") for before in ("\\n", "0>")]

    def __call__(self, trace: Trace) -> Trace:
        """Return the trace with names in the place of texts."""
        requests = tuple(replace(each, messages=tuple(map(self._masked, each.messages))) for each in trace.requests)
        return replace(trace, requests=requests, messages=tuple(map(self._masked, trace.messages)))

    def _masked(self, text: str) -> str:
        for piece, name in self._pairs:
            text = text.replace(piece, name)
        return text


@dataclass(frozen=True)
class Original:
    """The original and the interpreter that runs it."""

    path: Path
    """A checkout of tau-bench."""
    domain_path: Path | None = None
    """Another package of its shape, whose tasks, tools and data the checkout's agents, users and envs play."""
    python: str = sys.executable
    jobs: int = 1
    """Processes at one time."""

    def play(
        self, env_and_split: tuple[str, str], approach: Approach, cases: Sequence[Case], displays: Sequence[str] = ()
    ) -> list[Trace]:
        """Play the scripts, in a process that ends before this returns, and return the traces in their order.

        `displays` are the solved examples that few-shot draws from. Raises `BenchError` when it could not be run.
        """
        job = {
            "path": str(self.path),
            "domain_path": str(self.domain_path) if self.domain_path else None,
            "env": env_and_split[0],
            "split": env_and_split[1],
            "strategy": approach.strategy.value,
            "user_strategy": approach.user_strategy.value,
            "displays": list(displays),
            "cases": [asdict(case) for case in cases],
        }
        driver = Path(__file__).with_name("driver.py")
        run = run_command([self.python, "-X", "utf8", str(driver)], timeout_s=1800.0, input=json.dumps(job))
        lines = run.stdout.splitlines()
        if run.exit_code or len(lines) != len(cases):
            raise BenchError(
                f"The original in {self.path} could not be run.",
                evidence=run.stderr.strip()[-1500:] or f"It wrote {len(lines)} lines for {len(cases)} scripts.",
                next_step=f"It is run by {self.python} and needs pydantic there; name another with --python.",
            )
        traces = map(json.loads, lines)
        return [Trace(**each | {"requests": [RecordedRequest(**sent) for sent in each["requests"]]}) for each in traces]


MODELS = {
    Role.AGENT: ModelConfig(model="agent-model", sampling=Sampling(temperature=0.0)),
    Role.USER: ModelConfig(model="user-model"),
}
"""As the original is asked by default: its agent at temperature 0, its user at the server's own."""


async def play_ours(domain: Domain, approach: Approach, case: Case) -> Trace:
    """Run one conversation by its script, as `run_conversation` runs any."""
    client = _ScriptedClient(case)
    task = domain.tasks[case.task_id]
    ours = await run_conversation(
        domain, task, approach=approach, client=client, limits=Limits(), trial=0, seed=case.seed
    )
    scored = ours.outcome in {Outcome.PASSED, Outcome.FAILED}
    info = ours.reward_info
    return Trace(
        case=case.name,
        requests=client.requests,
        messages=[*map(canonical, ours.messages)],
        reward=ours.reward,
        db=info["db"] if scored else None,
        outputs=info.get("outputs", {}) if scored else {},
        end="" if scored else f"{ours.outcome}: {ours.error}" if ours.outcome != Outcome.STEP_LIMIT else "step_limit",
    )


class _ScriptedClient:
    """Answers each role with the next line of its script."""

    def __init__(self, case: Case) -> None:
        self._after = case.after
        self._answers = {role: iter(answers) for role, answers in case.answers.items()}
        self.requests: list[RecordedRequest] = []

    async def complete(
        self, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None
    ) -> Reply:
        """Keep the request as it would be sent, and answer with the next line of the role."""
        role = "check" if tag.purpose == "check" else tag.role.value
        config = MODELS[tag.role]
        body = chat_body(Endpoint("", config.model), config, tag, messages, tools)
        self.requests.append(RecordedRequest(**recorded(role, body, "stream", "stream_options", "seed")))
        answer = next(self._answers.get(role, iter(())), self._after[role])
        functions = [(call["id"], call["function"]) for call in answer.get("tool_calls") or ()]
        calls = tuple(ToolCall(name, each["name"], each["arguments"]) for name, each in functions)
        finish = "tool_calls" if calls else "stop"
        return Reply(answer["content"] or "", calls, finish, "", CallRecord(role=tag.role))
