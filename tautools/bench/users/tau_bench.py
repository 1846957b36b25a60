"""tau-bench's own simulated customers: the checkout's classes speak, our loop asks the model for them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tautools.bench.agents.move import Move
from tautools.bench.sources.standing_in import Asked, answered, play
from tautools.bench.users.person import PersonCustomer
from tautools.records import UserStrategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.agents.move import Ask, Speaker
    from tautools.bench.sources.tau_bench_checkout import Checkout
    from tautools.bench.types import Approach, Observation, Task
    from tautools.llm.types import Message, Reply, ToolSpec

__all__ = ["make_tau_bench_user", "system_prompt_of"]

_CLASSES = {
    UserStrategy.LLM: "LLMUserSimulationEnv",
    UserStrategy.REACT: "ReactUserSimulationEnv",
    UserStrategy.VERIFY: "VerifyUserSimulationEnv",
    UserStrategy.REFLECTION: "ReflectionUserSimulationEnv",
}


def make_tau_bench_user(checkout: Checkout, task: Task, approach: Approach, stop_word: str) -> Speaker:
    """Return the customer of one conversation."""
    if approach.user_strategy is UserStrategy.HUMAN:
        return PersonCustomer(task.id, task.source_task.instruction, stop_word)
    return _Customer(_original(checkout, approach.user_strategy), task.source_task.instruction)


def system_prompt_of(checkout: Checkout, strategy: UserStrategy, instruction: str) -> str:
    """Return what a customer's model is told of its part; a person is told the instruction alone."""
    if strategy is UserStrategy.HUMAN:
        return instruction
    with checkout.as_expected():
        return str(_original(checkout, strategy).build_system_prompt(instruction=instruction))


def _original(checkout: Checkout, strategy: UserStrategy) -> Any:
    """Return v1's own object; its constructor is left where it would ask a model about no task."""
    module = checkout.module("envs.user")
    with checkout.as_expected():
        kind = getattr(module, _CLASSES[strategy])
        person = kind.__new__(kind)
        with contextlib.suppress(Asked):
            answered([], lambda: kind.__init__(person, model="user", provider="openai"))
    return person


class _Customer:
    """v1's customer: whom it asks what, how often, and what it keeps of it is decided by v1's own code."""

    def __init__(self, original: Any, instruction: str) -> None:
        self.messages: list[Message] = []
        self._original = original
        self._instruction = instruction
        self._heard: str | None = None

    def hear(self, text: str) -> None:
        """Take in what the agent said."""
        self._heard = text

    def wear(self, text: str) -> None:
        """Have `text` behind the system prompt, which v1 makes when the conversation begins."""
        plain = self._original.build_system_prompt
        self._original.build_system_prompt = lambda instruction: f"{plain(instruction=instruction)}{text}"

    async def move(self, ask: Ask) -> Move:
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
            said = await play(self._speak, lambda: self._put_back(before), listen)
        except (ValueError, TypeError, AttributeError):  # an answer that v1 cannot read; there it ends the task with 0
            return Move(unusable=True, wrote=last)
        self.messages = list(self._original.messages)
        return Move(said=said, unusable=not said.strip(), wrote=said)

    def acted(self, move: Move, observations: Sequence[Observation]) -> None:
        """Nothing to do: v1's own object keeps the history."""

    def _speak(self) -> str:
        if self._heard is None:
            return str(self._original.reset(instruction=self._instruction))
        return str(self._original.step(self._heard))

    def _state(self) -> dict[str, Any]:
        return {name: list(value) if isinstance(value, list) else value for name, value in vars(self._original).items()}

    def _put_back(self, state: dict[str, Any]) -> None:
        vars(self._original).update({k: list(v) if isinstance(v, list) else v for k, v in state.items()})
