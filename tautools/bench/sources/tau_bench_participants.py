"""tau-bench's own agents and customers: the checkout's classes speak, our loop asks the models for them."""

import contextlib
import json
import random
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tautools.bench.agents import history_messages
from tautools.bench.agents.experts import Orchestrator, expert_prompt_hashes
from tautools.bench.agents.text import RESPOND, TextAgent, text_of_respond_call
from tautools.bench.sources.tau_bench_checkout import ModelAsked, TauBenchCheckout, first_request, run_with_replies
from tautools.bench.types import (
    Approach,
    AskModel,
    Domain,
    Observation,
    Participant,
    Task,
    Turn,
    as_bench_error,
    text_hashes,
)
from tautools.bench.users import PersonCustomer
from tautools.errors import BenchError
from tautools.llm.types import Message, Reply, ToolCall, ToolSpec
from tautools.records import Strategy, UserStrategy, canonical_json

_FEW_SHOTS = 5  # the default of `num_few_shots` in v1's FewShotToolCallingAgent, which nothing overrides
_drawing = threading.Lock()
_USER_CLASSES = {
    UserStrategy.LLM: "LLMUserSimulationEnv",
    UserStrategy.REACT: "ReactUserSimulationEnv",
    UserStrategy.VERIFY: "VerifyUserSimulationEnv",
    UserStrategy.REFLECTION: "ReflectionUserSimulationEnv",
}


class TauBenchPlayers(Domain):
    """An env of tau-bench as it is played: by v1's own agents and customers, or by experts, which v1 does not have."""

    strategies = tuple(Strategy)
    user_strategies = tuple(UserStrategy)
    checkout: TauBenchCheckout

    def agent(self, approach: Approach, seed: int) -> Participant:
        """Return the agent of one conversation; the displays of few-shot are drawn by `seed`."""
        if approach.strategy is Strategy.EXPERTS:
            return Orchestrator(self.policy, self.tools, approach.experts)
        shared = {"tools_info": self.tools, "wiki": self.policy, "model": "agent", "provider": "openai"}
        if approach.strategy is Strategy.FC:
            agent = self.checkout.module("agents.tool_calling_agent").ToolCallingAgent(**shared)
            return _TauBenchToolAgent(agent_system_prompt(agent), self.tools)
        if approach.strategy is Strategy.FEW_SHOT:
            module = self.checkout.module("agents.few_shot_agent")
            displays = list(few_shot_displays(self.checkout, self.ref.env, approach))
            agent = module.FewShotToolCallingAgent(**shared, few_shot_displays=displays, num_few_shots=_FEW_SHOTS)
            with _drawing:
                # v1 draws from the process's own; this one is for its module alone.
                vars(module)["random"] = random.Random(seed)  # noqa: S311 - no secret
                return _TauBenchToolAgent(agent_system_prompt(agent), self.tools)
        module = self.checkout.module("agents.chat_react_agent")
        agent = module.ChatReActAgent(**shared, use_reasoning=approach.strategy is Strategy.REACT)
        return _TauBenchTextAgent(agent_system_prompt(agent), agent)

    def user(self, task: Task, approach: Approach) -> Participant:
        """Return the customer of one conversation."""
        instruction = task.source_task.instruction
        if approach.user_strategy is UserStrategy.HUMAN:
            return PersonCustomer(task.id, instruction, self.protocol.stop_words[0])
        return _TauBenchUser(self._original_user(approach.user_strategy), instruction)

    def instructions(self, approach: Approach) -> Mapping[str, str]:
        """Return the hashes of the texts that models are shown."""
        agent_system = str(self.agent(approach, 0).messages[0]["content"])
        if approach.strategy is Strategy.FEW_SHOT:
            agent_system = canonical_json(few_shot_displays(self.checkout, self.ref.env, approach))
        user_system = self._user_system_prompt(approach.user_strategy, self.protocol.stop_words[0])
        own = expert_prompt_hashes(approach.experts) if approach.strategy is Strategy.EXPERTS else {}
        return {**self.prompts, **text_hashes({"agent_system": agent_system, "user_system": user_system}), **own}

    def _user_system_prompt(self, strategy: UserStrategy, instruction: str) -> str:
        """Return the system prompt of a customer's model; a person gets the instruction alone."""
        if strategy is UserStrategy.HUMAN:
            return instruction
        with self.checkout.as_expected():
            return str(self._original_user(strategy).build_system_prompt(instruction=instruction))

    def _original_user(self, strategy: UserStrategy) -> Any:
        """Return v1's own object; its constructor is left where it would ask a model about no task."""
        module = self.checkout.module("envs.user")
        with self.checkout.as_expected():
            kind = getattr(module, _USER_CLASSES[strategy])
            person = kind.__new__(kind)
            with contextlib.suppress(ModelAsked):
                run_with_replies([], lambda: kind.__init__(person, model="user", provider="openai"))
        return person


def agent_system_prompt(agent: Any) -> str:
    """Return the system prompt of one of v1's agents, by letting it begin in an env that says nothing."""
    first = SimpleNamespace(observation="", info=SimpleNamespace(model_dump=dict))
    env = SimpleNamespace(reset=lambda **_: first)
    return str(first_request(agent.solve, env=env, task_index=0)[0]["content"])


class _TauBenchToolAgent(Participant):
    """v1's tool-calling agents: the first call of an answer is made, the others are dropped from the history too."""

    def __init__(self, system_prompt: str, tools: Sequence[ToolSpec]) -> None:
        super().__init__(system_prompt)
        self._tools = tools
        self._reply_calls: tuple[ToolCall, ...] = ()

    async def next_turn(self, ask: AskModel) -> Turn:
        """Ask once; return the first call, else the text."""
        reply = await ask(self.messages, self._tools)
        self._reply_calls = reply.tool_calls
        if not reply.tool_calls:
            return Turn.of_text(reply.text)
        first = reply.tool_calls[0]
        text = text_of_respond_call(first.name, first.arguments)
        return Turn(calls=(first,), raw_text=reply.text) if text is None else Turn.of_text(text, reply.text)

    def observe(self, turn: Turn, observations: Sequence[Observation]) -> None:
        """Append the answer and, for a call, what it gave back."""
        message, *results = history_messages(turn, observations)
        calls = turn.calls or self._reply_calls
        if calls:
            given = [each.arguments for each in observations or self._reply_calls]
            # An answer without text carries null next to its calls, as servers send it.
            message["content"] = turn.raw_text or None
            message["tool_calls"] = [call.as_message(each) for call, each in zip(calls, given, strict=True)]
        named = [{**result, "name": call.name} for call, result in zip(turn.calls, results, strict=True)]
        self.messages += [message, *named]


class _TauBenchTextAgent(TextAgent):
    """v1's `act` and `react`: an action as text, read by v1's own agent."""

    def __init__(self, system_prompt: str, original: Any) -> None:
        super().__init__(system_prompt)
        self._original = original

    async def next_turn(self, ask: AskModel) -> Turn:
        """Ask once; return the action, or the text where v1 reads none."""
        reply = await ask(self.messages)
        unreadable = Turn(reply.text.rsplit("Action:", maxsplit=1)[-1].strip(), unusable=True, raw_text=reply.text)
        try:
            _, action, _ = run_with_replies([reply], lambda: self._original.generate_next_step(self.messages))
            arguments = json.dumps(action.kwargs)
        except Exception:  # noqa: BLE001 - JSON that is no action: v1 loses the conversation here
            return unreadable
        if action.name != RESPOND:
            call = ToolCall(id="", name=action.name, arguments=arguments)
            return Turn(calls=(call,), raw_text=reply.text)
        text = action.kwargs.get("content")
        return Turn.of_text(text, reply.text) if isinstance(text, str) else unreadable


def few_shot_displays(checkout: TauBenchCheckout, env: str, approach: Approach) -> tuple[str, ...]:
    """Return the solved examples for few-shot, in the order of their file: the approach's or the checkout's own.

    Raises
    ------
    BenchError
        When the file cannot be read, or holds too few examples to draw from.
    """
    own = checkout.root / "few_shot_data" / f"Mock{env.title()}DomainEnv-few_shot.jsonl"
    path = Path(approach.few_shot_displays).expanduser() if approach.few_shot_displays else own
    problem = f"The examples for few-shot cannot be read from {path}."
    next_step = 'Name a file with one {"messages_display": "…"} a line: `--few-shot-displays FILE`.'
    with as_bench_error(problem, next_step, OSError, ValueError, KeyError, TypeError):
        lines = path.read_text(encoding="utf-8").splitlines()
        displays = tuple(str(json.loads(line)["messages_display"]) for line in lines if line.strip())
    if len(displays) < _FEW_SHOTS:
        raise BenchError(
            f"{path} holds {len(displays)} examples; few-shot draws {_FEW_SHOTS} of them.",
            next_step="Name a file with more: `--few-shot-displays FILE`.",
        )
    return displays


class _TauBenchUser(Participant):
    """v1's customer: v1's own code decides what the model is asked, how often, and what the history keeps of it."""

    def __init__(self, original: Any, instruction: str) -> None:
        self.messages: list[Message] = []
        self._original = original
        self._instruction = instruction
        self._heard: str | None = None

    def receive(self, text: str) -> None:
        """Take in what the agent said."""
        self._heard = text

    def add_persona(self, text: str) -> None:
        """Append `text` to the system prompt, which v1 makes when the conversation begins."""
        plain = self._original.build_system_prompt
        self._original.build_system_prompt = lambda instruction: f"{plain(instruction=instruction)}{text}"

    async def next_turn(self, ask: AskModel) -> Turn:
        """Say something, after as many requests as v1 makes for it: with each answer its code runs once more."""
        before = _copied_lists(vars(self._original))
        given: list[Reply] = []
        while True:
            vars(self._original).update(_copied_lists(before))
            try:
                text = run_with_replies(given, self._speak)
            except ModelAsked as error:
                asked = error
            except (ValueError, TypeError, AttributeError):  # an answer that v1 cannot read; there the task ends with 0
                return Turn(unusable=True, raw_text=given[-1].text if given else "")
            else:
                self.messages = list(self._original.messages)
                return Turn.of_text(text)
            self.messages = list(self._original.messages)
            # What a user model is asked about its own draft comes without the conversation's system prompt.
            purpose = "chat" if asked.messages[0]["role"] == "system" else "check"
            given.append(await ask(asked.messages, asked.tools, purpose=purpose))

    def observe(self, turn: Turn, observations: Sequence[Observation]) -> None:
        """Do nothing: v1's own object keeps the history."""

    def _speak(self) -> str:
        if self._heard is None:
            return str(self._original.reset(instruction=self._instruction))
        return str(self._original.step(self._heard))


def _copied_lists(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, list) else value for name, value in state.items()}
