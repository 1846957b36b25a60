"""How a strategy speaks to its model: what is sent, and how the answer is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.agents.experts import Orchestrator, expert_prompt_hashes
from tautools.bench.agents.fc import ToolCallingParticipant
from tautools.bench.agents.text import TEXT_PROMPTS, TEXT_PROMPTS_VERSION, TextAgent, text_system_prompt
from tautools.bench.types import text_hashes
from tautools.records import Strategy

if TYPE_CHECKING:
    from tautools.bench.types import Approach, Domain, Participant

__all__ = ["STRATEGIES", "agent_prompt_hashes", "make_agent"]

STRATEGIES = (Strategy.FC, Strategy.ACT, Strategy.REACT, Strategy.EXPERTS)
"""What `make_agent` can play."""


def make_agent(domain: Domain, approach: Approach) -> Participant:
    """Return an agent of tau2: tool calling as the bench does it, with experts, or by text with our own prompts."""
    if approach.strategy is Strategy.FC:
        return ToolCallingParticipant(domain.agent_system, domain.tools)
    if approach.strategy is Strategy.EXPERTS:
        return Orchestrator(domain.agent_system, domain.tools, approach.experts)
    return TextAgent(text_system_prompt(domain, approach.strategy))


def agent_prompt_hashes(domain: Domain, approach: Approach) -> dict[str, str]:
    """Return the sha256 of each text that an agent of `make_agent` and its customer are shown."""
    prompts, strategy = dict(domain.prompts), approach.strategy
    if strategy is Strategy.EXPERTS:
        return prompts | expert_prompt_hashes(approach.experts)
    if strategy in TEXT_PROMPTS:
        del prompts["agent_system"]
        prompts |= text_hashes({f"{strategy}-v{TEXT_PROMPTS_VERSION}": TEXT_PROMPTS[strategy]})
    return prompts
