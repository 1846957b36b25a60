"""tau-bench's own agents: their prompts and readings are the checkout's, their histories are kept as they keep them."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.experts import Orchestrator
from tautools.bench.agents.move import Move
from tautools.bench.sources.standing_in import Asked, answered
from tautools.errors import BenchError
from tautools.llm.types import ToolCall
from tautools.records import Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.agents.move import Ask, Speaker
    from tautools.bench.sources.tau_bench import TauBenchDomain
    from tautools.bench.types import Approach, Observation
    from tautools.llm.types import Message, Reply, ToolSpec

__all__ = ["Displays", "make_tau_bench_agent"]

_RESPOND = "respond"
_FEW_SHOTS = 5  # the default of `num_few_shots` in v1's FewShotToolCallingAgent, which nothing overrides
_one_draws = threading.Lock()


def make_tau_bench_agent(domain: TauBenchDomain, approach: Approach, seed: int) -> Speaker:
    """Return the agent of one conversation: v1's own, or an orchestrator of experts, which v1 does not have."""
    if approach.strategy is Strategy.EXPERTS:
        return Orchestrator(domain.policy, domain.tools, approach.experts)
    shared = {"tools_info": domain.tools, "wiki": domain.policy, "model": "agent", "provider": "openai"}
    if approach.strategy is Strategy.FC:
        agent = domain.checkout.module("agents.tool_calling_agent").ToolCallingAgent(**shared)
        return _Caller(_system_prompt(agent), domain.tools)
    if approach.strategy is Strategy.FEW_SHOT:
        module = domain.checkout.module("agents.few_shot_agent")
        displays = list(Displays.of(domain, approach).texts)
        agent = module.FewShotToolCallingAgent(**shared, few_shot_displays=displays, num_few_shots=_FEW_SHOTS)
        with _one_draws:
            vars(module)["random"] = random.Random(seed)  # noqa: S311 - v1 draws from the process's; it is ours alone
            return _Caller(_system_prompt(agent), domain.tools)
    module = domain.checkout.module("agents.chat_react_agent")
    agent = module.ChatReActAgent(**shared, use_reasoning=approach.strategy is Strategy.REACT)
    return _Writer(_system_prompt(agent), agent)


def _system_prompt(agent: Any) -> str:
    """Return what one of v1's agents tells its model first, by letting it begin in an env where nobody speaks."""
    opening = SimpleNamespace(observation="", info=SimpleNamespace(model_dump=dict))
    env = SimpleNamespace(reset=lambda **_: opening)
    try:
        answered([], lambda: agent.solve(env=env, task_index=0))
    except Asked as asked:
        return str(asked.messages[0]["content"])
    raise BenchError(
        f"The checkout's {type(agent).__name__} asks no model.",
        next_step="Check that the checkout is complete and unchanged (`git status`).",
    )


class _Caller:
    """v1's tool-calling agents: the first call of an answer is made, the others are dropped from the history too."""

    def __init__(self, system: str, tools: Sequence[ToolSpec]) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system}]
        self._tools = tools
        self._answer: Reply | None = None

    def hear(self, text: str) -> None:
        """Take in what the customer said."""
        self.messages.append({"role": "user", "content": text})

    async def move(self, ask: Ask) -> Move:
        """Ask once; return the first call, else the words."""
        reply = self._answer = await ask(self.messages, self._tools)
        if not reply.tool_calls:
            return Move(said=reply.text, unusable=not reply.text.strip(), wrote=reply.text)
        first = reply.tool_calls[0]
        said = _respond_by_call(first)
        if said is not None:
            return Move(said=said, unusable=not said.strip(), wrote=reply.text)
        return Move(calls=(first,), wrote=reply.text)

    def acted(self, move: Move, observations: Sequence[Observation]) -> None:
        """Append the answer and, for a call, what it gave back."""
        calls = move.calls or (self._answer.tool_calls if self._answer is not None else ())
        seen = {call.id: each for call, each in zip(move.calls, observations, strict=True)}
        message: Message = {"role": "assistant", "content": move.wrote}
        if calls:
            # An answer without words carries null beside its calls, as servers send it.
            message["content"] = move.wrote or None
            message["tool_calls"] = [_echo(call, seen[call.id].arguments if seen else call.arguments) for call in calls]
        self.messages.append(message)
        self.messages += [
            {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": seen[call.id].text}
            for call in move.calls
        ]


def _respond_by_call(call: ToolCall) -> str | None:
    """Return what a model says by calling a tool `respond`, which there is none of but v1 hears; None for others."""
    if call.name != _RESPOND:
        return None
    try:
        content = json.loads(call.arguments)["content"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return content if isinstance(content, str) else None


def _echo(call: ToolCall, arguments: str) -> Message:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


class _Writer:
    """v1's `act` and `react`: an action as text, read by v1's own agent."""

    def __init__(self, system: str, agent: Any) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system}]
        self._agent = agent

    def hear(self, text: str) -> None:
        """Take in what the customer said."""
        self.messages.append({"role": "user", "content": text})

    async def move(self, ask: Ask) -> Move:
        """Ask once; return the action, or the words where v1 reads none."""
        reply = await ask(self.messages)
        try:
            _, action, _ = answered([reply], lambda: self._agent.generate_next_step(self.messages))
        except Exception:  # noqa: BLE001 - JSON that is no action: v1 loses the conversation here
            return _as_words(reply.text)
        if action.name != _RESPOND:
            call = ToolCall(id="", name=action.name, arguments=json.dumps(action.kwargs))
            return Move(calls=(call,), wrote=reply.text)
        said = action.kwargs.get("content")
        if not isinstance(said, str):
            return _as_words(reply.text)
        return Move(said=said, unusable=not said.strip(), wrote=reply.text)

    def acted(self, move: Move, observations: Sequence[Observation]) -> None:
        """Append the answer as it was written and, for a tool, its output as a user message."""
        self.messages.append({"role": "assistant", "content": move.wrote})
        self.messages += [{"role": "user", "content": f"API output: {seen.text}"} for seen in observations]


def _as_words(text: str) -> Move:
    return Move(said=text.rsplit("Action:", maxsplit=1)[-1].strip(), unusable=True, wrote=text)


@dataclass(frozen=True, slots=True)
class Displays:
    """Solved examples for few-shot, in the order of their file."""

    texts: tuple[str, ...]

    @classmethod
    def of(cls, domain: TauBenchDomain, approach: Approach) -> Displays:
        """Read the file of an approach, or else the checkout's own for the env.

        Raises
        ------
        BenchError
            When it cannot be read, or holds too few examples to draw from.
        """
        own = domain.checkout.root / "few_shot_data" / f"Mock{domain.env.title()}DomainEnv-few_shot.jsonl"
        path = Path(approach.few_shot_displays).expanduser() if approach.few_shot_displays else own
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            texts = tuple(str(json.loads(line)["messages_display"]) for line in lines if line.strip())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BenchError(
                f"The examples for few-shot cannot be read from {path}.",
                evidence=f"{type(error).__name__}: {error}",
                next_step='Name a file with one {"messages_display": "…"} a line: `--few-shot-displays FILE`.',
            ) from error
        if len(texts) < _FEW_SHOTS:
            raise BenchError(
                f"{path} holds {len(texts)} examples; few-shot draws {_FEW_SHOTS} of them.",
                next_step="Name a file with more: `--few-shot-displays FILE`.",
            )
        return cls(texts)
