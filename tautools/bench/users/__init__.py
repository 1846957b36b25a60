"""Who plays the customer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.bench.agents.fc import ToolCaller

if TYPE_CHECKING:
    from tautools.bench.agents.move import Speaker
    from tautools.bench.types import Domain, Task

__all__ = ["make_user"]


def make_user(domain: Domain, task: Task) -> Speaker:
    """Return the LLM customer of one conversation: the bench's guidelines and scenario, and what opens the talk."""
    user = ToolCaller(task.user_system, domain.user_tools)
    opening = domain.protocol.user_opening or domain.protocol.agent_opening
    if opening:
        user.hear(opening)
    return user
