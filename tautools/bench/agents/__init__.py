"""How a strategy speaks to its model: what is sent, and how the answer is read."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tautools.bench.agents.experts import Orchestrator, expert_prompt_hashes
from tautools.bench.agents.fc import ToolCallingParticipant
from tautools.bench.agents.text import TextAgent, text_instructions
from tautools.records import Strategy

if TYPE_CHECKING:
    from tautools.bench.types import Approach, Domain, Participant
__all__ = ["STRATEGIES", "agent_prompt_hashes", "make_agent"]


STRATEGIES = (Strategy.FC, Strategy.ACT, Strategy.REACT, Strategy.EXPERTS)
"""What `make_agent` can play."""


def make_agent(domain: Domain, approach: Approach) -> Participant:
    """Return an agent of tau2: tool calling as the bench does it, with experts, or by text in our own words."""
    if approach.strategy is Strategy.FC:
        return ToolCallingParticipant(domain.agent_system, domain.tools)
    if approach.strategy is Strategy.EXPERTS:
        return Orchestrator(domain.agent_system, domain.tools, approach.experts)
    return TextAgent(domain, approach.strategy)


def agent_prompt_hashes(domain: Domain, approach: Approach) -> dict[str, str]:
    """Return the sha256 of each text that an agent of `make_agent` and its customer are shown."""
    if approach.strategy is Strategy.FC:
        return dict(domain.prompts)
    if approach.strategy is Strategy.EXPERTS:
        return dict(domain.prompts) | expert_prompt_hashes(approach.experts)
    own = {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in text_instructions(approach.strategy).items()
    }
    return {name: digest for name, digest in domain.prompts.items() if name != "agent_system"} | own
