"""How a strategy speaks to its model: what is sent, and how the answer is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.agents.fc import ToolCaller
from tautools.bench.agents.text import TextAgent, instructions_of
from tautools.records import Strategy

if TYPE_CHECKING:
    from tautools.bench.agents.move import Speaker
    from tautools.bench.types import Domain

__all__ = ["agent_instructions", "make_agent"]


def make_agent(domain: Domain, strategy: Strategy) -> Speaker:
    """Return the agent of one conversation, its system prompt in place."""
    if strategy is Strategy.FC:
        return ToolCaller(domain.agent_system, domain.tools)
    return TextAgent(domain, strategy)


def agent_instructions(strategy: Strategy) -> dict[str, str]:
    """Return the texts that a strategy adds to the bench's own, by name and version; fc adds none."""
    return {} if strategy is Strategy.FC else instructions_of(strategy)
