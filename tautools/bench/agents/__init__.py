"""How a strategy speaks to its model: what is sent, and how the answer is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.agents.experts import Orchestrator, expert_prompt_hashes
from tautools.bench.agents.fc import ToolCallingParticipant
from tautools.bench.agents.text import TEXT_PROMPTS, TEXT_PROMPTS_VERSION, TextAgent, text_system_prompt
from tautools.bench.types import Domain, text_hashes
from tautools.records import Strategy

if TYPE_CHECKING:
    from tautools.bench.types import Approach, Participant, Task

STRATEGIES = (Strategy.FC, Strategy.ACT, Strategy.REACT, Strategy.EXPERTS)


class Tau2Domain(Domain):
    """An env of tau2: it calls tools as the benchmark does, and plays by text and with experts by our own prompts."""

    strategies = STRATEGIES

    def agent(self, approach: Approach, seed: int) -> Participant:  # noqa: ARG002 - nothing is drawn here
        """Return the agent of one conversation."""
        if approach.strategy is Strategy.FC:
            return ToolCallingParticipant(self.agent_system, self.tools)
        if approach.strategy is Strategy.EXPERTS:
            return Orchestrator(self.agent_system, self.tools, approach.experts)
        return TextAgent(text_system_prompt(self, approach.strategy))

    def user(self, task: Task, approach: Approach) -> Participant:  # noqa: ARG002 - there is one way only
        """Return the customer of one conversation: the bench's guidelines and scenario, and the message that opens."""
        names = task.user_tools
        tools = [tool for tool in self.user_tools if names is None or tool["function"]["name"] in names]
        user = ToolCallingParticipant(task.user_system, tools)
        opening = self.protocol.user_opening or self.protocol.agent_opening
        if opening:
            user.receive(opening)
        return user

    def instructions(self, approach: Approach) -> dict[str, str]:
        """Return the hashes of the texts that models are shown."""
        prompts, strategy = dict(self.prompts), approach.strategy
        if strategy is Strategy.EXPERTS:
            return prompts | expert_prompt_hashes(approach.experts)
        if strategy in TEXT_PROMPTS:
            del prompts["agent_system"]
            prompts |= text_hashes({f"{strategy}-v{TEXT_PROMPTS_VERSION}": TEXT_PROMPTS[strategy]})
        return prompts
