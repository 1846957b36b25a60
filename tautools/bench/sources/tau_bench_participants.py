"""tau-bench's own agents and customers: the checkout's classes speak, our loop asks the models for them."""

from __future__ import annotations

import contextlib
import json
import random
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.experts import Orchestrator
from tautools.bench.sources.tau_bench_checkout import ModelAsked, run_with_model, run_with_replies
from tautools.bench.types import Turn
from tautools.bench.users import PersonCustomer
from tautools.errors import BenchError
from tautools.llm.types import ToolCall
from tautools.records import Strategy, UserStrategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.sources.tau_bench_checkout import TauBenchCheckout
    from tautools.bench.types import Approach, AskModel, Domain, Observation, Participant, Task
    from tautools.llm.types import Message, Reply, ToolSpec


_RESPOND = "respond"
_FEW_SHOTS = 5  # the default of `num_few_shots` in v1's FewShotToolCallingAgent, which nothing overrides
_drawing = threading.Lock()


def make_tau_bench_agent(checkout: TauBenchCheckout, domain: Domain, approach: Approach, seed: int) -> Participant:
    """Return the agent of one conversation: v1's own, or an orchestrator of experts, which v1 does not have."""
    if approach.strategy is Strategy.EXPERTS:
        return Orchestrator(domain.policy, domain.tools, approach.experts)
    shared = {"tools_info": domain.tools, "wiki": domain.policy, "model": "agent", "provider": "openai"}
    if approach.strategy is Strategy.FC:
        agent = checkout.module("agents.tool_calling_agent").ToolCallingAgent(**shared)
        return _TauBenchToolAgent(_agent_system_prompt(agent), domain.tools)
    if approach.strategy is Strategy.FEW_SHOT:
        module = checkout.module("agents.few_shot_agent")
        displays = list(FewShotDisplays.of(checkout, domain.ref.env, approach).texts)
        agent = module.FewShotToolCallingAgent(**shared, few_shot_displays=displays, num_few_shots=_FEW_SHOTS)
        with _drawing:
            vars(module)["random"] = random.Random(seed)  # noqa: S311 - v1 draws from the process's; it is ours alone
            return _TauBenchToolAgent(_agent_system_prompt(agent), domain.tools)
    module = checkout.module("agents.chat_react_agent")
    agent = module.ChatReActAgent(**shared, use_reasoning=approach.strategy is Strategy.REACT)
    return _TauBenchTextAgent(_agent_system_prompt(agent), agent)


def _agent_system_prompt(agent: Any) -> str:
    """Return what one of v1's agents tells its model first, by letting it begin in an env where nobody speaks."""
    opening = SimpleNamespace(observation="", info=SimpleNamespace(model_dump=dict))
    env = SimpleNamespace(reset=lambda **_: opening)
    try:
        run_with_replies([], lambda: agent.solve(env=env, task_index=0))
    except ModelAsked as asked:
        return str(asked.messages[0]["content"])
    raise BenchError(
        f"The checkout's {type(agent).__name__} asks no model.",
        next_step="Check that the checkout is complete and unchanged (`git status`).",
    )


class _TauBenchToolAgent:
    """v1's tool-calling agents: the first call of an answer is made, the others are dropped from the history too."""

    def __init__(self, system: str, tools: Sequence[ToolSpec]) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system}]
        self._tools = tools
        self._answer: Reply | None = None

    def receive(self, text: str) -> None:
        """Take in what the customer said."""
        self.messages.append({"role": "user", "content": text})

    async def next_turn(self, ask: AskModel) -> Turn:
        """Ask once; return the first call, else the words."""
        reply = self._answer = await ask(self.messages, self._tools)
        if not reply.tool_calls:
            return Turn(said=reply.text, unusable=not reply.text.strip(), wrote=reply.text)
        first = reply.tool_calls[0]
        said = _respond_by_call(first)
        if said is not None:
            return Turn(said=said, unusable=not said.strip(), wrote=reply.text)
        return Turn(calls=(first,), wrote=reply.text)

    def observe(self, next_turn: Turn, observations: Sequence[Observation]) -> None:
        """Append the answer and, for a call, what it gave back."""
        calls = next_turn.calls or (self._answer.tool_calls if self._answer is not None else ())
        seen = {call.id: each for call, each in zip(next_turn.calls, observations, strict=True)}
        message: Message = {"role": "assistant", "content": next_turn.wrote}
        if calls:
            # An answer without words carries null beside its calls, as servers send it.
            message["content"] = next_turn.wrote or None
            message["tool_calls"] = [
                _sent_call(call, seen[call.id].arguments if seen else call.arguments) for call in calls
            ]
        self.messages.append(message)
        self.messages += [
            {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": seen[call.id].text}
            for call in next_turn.calls
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


def _sent_call(call: ToolCall, arguments: str) -> Message:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


class _TauBenchTextAgent:
    """v1's `act` and `react`: an action as text, read by v1's own agent."""

    def __init__(self, system: str, agent: Any) -> None:
        self.messages: list[Message] = [{"role": "system", "content": system}]
        self._agent = agent

    def receive(self, text: str) -> None:
        """Take in what the customer said."""
        self.messages.append({"role": "user", "content": text})

    async def next_turn(self, ask: AskModel) -> Turn:
        """Ask once; return the action, or the words where v1 reads none."""
        reply = await ask(self.messages)
        try:
            _, action, _ = run_with_replies([reply], lambda: self._agent.generate_next_step(self.messages))
        except Exception:  # noqa: BLE001 - JSON that is no action: v1 loses the conversation here
            return _unreadable_turn(reply.text)
        if action.name != _RESPOND:
            call = ToolCall(id="", name=action.name, arguments=json.dumps(action.kwargs))
            return Turn(calls=(call,), wrote=reply.text)
        said = action.kwargs.get("content")
        if not isinstance(said, str):
            return _unreadable_turn(reply.text)
        return Turn(said=said, unusable=not said.strip(), wrote=reply.text)

    def observe(self, next_turn: Turn, observations: Sequence[Observation]) -> None:
        """Append the answer as it was written and, for a tool, its output as a user message."""
        self.messages.append({"role": "assistant", "content": next_turn.wrote})
        self.messages += [{"role": "user", "content": f"API output: {seen.text}"} for seen in observations]


def _unreadable_turn(text: str) -> Turn:
    return Turn(said=text.rsplit("Action:", maxsplit=1)[-1].strip(), unusable=True, wrote=text)


@dataclass(frozen=True, slots=True)
class FewShotDisplays:
    """Solved examples for few-shot, in the order of their file."""

    texts: tuple[str, ...]

    @classmethod
    def of(cls, checkout: TauBenchCheckout, env: str, approach: Approach) -> FewShotDisplays:
        """Read the file of an approach, or else the checkout's own for the env.

        Raises
        ------
        BenchError
            When it cannot be read, or holds too few examples to draw from.
        """
        own = checkout.root / "few_shot_data" / f"Mock{env.title()}DomainEnv-few_shot.jsonl"
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


_USER_CLASSES = {
    UserStrategy.LLM: "LLMUserSimulationEnv",
    UserStrategy.REACT: "ReactUserSimulationEnv",
    UserStrategy.VERIFY: "VerifyUserSimulationEnv",
    UserStrategy.REFLECTION: "ReflectionUserSimulationEnv",
}


def make_tau_bench_user(checkout: TauBenchCheckout, task: Task, approach: Approach, stop_word: str) -> Participant:
    """Return the customer of one conversation."""
    if approach.user_strategy is UserStrategy.HUMAN:
        return PersonCustomer(task.id, task.source_task.instruction, stop_word)
    return _TauBenchUser(_original_user(checkout, approach.user_strategy), task.source_task.instruction)


def user_system_prompt(checkout: TauBenchCheckout, strategy: UserStrategy, instruction: str) -> str:
    """Return what a customer's model is told of its part; a person is told the instruction alone."""
    if strategy is UserStrategy.HUMAN:
        return instruction
    with checkout.as_expected():
        return str(_original_user(checkout, strategy).build_system_prompt(instruction=instruction))


def _original_user(checkout: TauBenchCheckout, strategy: UserStrategy) -> Any:
    """Return v1's own object; its constructor is left where it would ask a model about no task."""
    module = checkout.module("envs.user")
    with checkout.as_expected():
        kind = getattr(module, _USER_CLASSES[strategy])
        person = kind.__new__(kind)
        with contextlib.suppress(ModelAsked):
            run_with_replies([], lambda: kind.__init__(person, model="user", provider="openai"))
    return person


class _TauBenchUser:
    """v1's customer: whom it asks what, how often, and what it keeps of it is decided by v1's own code."""

    def __init__(self, original: Any, instruction: str) -> None:
        self.messages: list[Message] = []
        self._original = original
        self._instruction = instruction
        self._heard: str | None = None

    def receive(self, text: str) -> None:
        """Take in what the agent said."""
        self._heard = text

    def add_persona(self, text: str) -> None:
        """Have `text` behind the system prompt, which v1 makes when the conversation begins."""
        plain = self._original.build_system_prompt
        self._original.build_system_prompt = lambda instruction: f"{plain(instruction=instruction)}{text}"

    async def next_turn(self, ask: AskModel) -> Turn:
        """Come to the next words, by as many requests as v1 makes for them."""
        before = self._state()
        last = ""

        async def listen(
            messages: Sequence[Message],
            tools: Sequence[ToolSpec] | None = None,
            *,
            purpose: str = "chat",
            expert: str = "",
        ) -> Reply:
            nonlocal last
            self.messages = list(self._original.messages)
            reply = await ask(messages, tools, purpose=purpose, expert=expert)
            last = reply.text
            return reply

        try:
            said = await run_with_model(self._speak, lambda: self._put_back(before), listen)
        except (ValueError, TypeError, AttributeError):  # an answer that v1 cannot read; there it ends the task with 0
            return Turn(unusable=True, wrote=last)
        self.messages = list(self._original.messages)
        return Turn(said=said, unusable=not said.strip(), wrote=said)

    def observe(self, next_turn: Turn, observations: Sequence[Observation]) -> None:
        """Nothing to do: v1's own object keeps the history."""

    def _speak(self) -> str:
        if self._heard is None:
            return str(self._original.reset(instruction=self._instruction))
        return str(self._original.step(self._heard))

    def _state(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, list) else value for name, value in vars(self._original).items()}

    def _put_back(self, state: dict[str, Any]) -> None:
        vars(self._original).update({k: list(v) if isinstance(v, list) else v for k, v in state.items()})
