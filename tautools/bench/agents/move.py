"""What a model's answer means, and what the loop needs of whoever speaks for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import Observation
    from tautools.llm.types import Message, Reply, ToolCall, ToolSpec

__all__ = ["Move", "Speaker"]


@dataclass(frozen=True, slots=True)
class Move:
    """One answer, read: either calls, or words for the other party."""

    said: str = ""
    calls: tuple[ToolCall, ...] = ()
    unusable: bool = False
    """Empty, or meant as a call and not readable as one."""


class Speaker(Protocol):
    """One party of a conversation: its history as its model sees it, and how its answers are read."""

    messages: list[Message]
    """What is sent, system prompt first."""
    tools: Sequence[ToolSpec] | None
    """What is offered to the model; None sends no `tools` at all."""

    def hear(self, text: str) -> None:
        """Take in what the other party said."""
        ...

    def read(self, reply: Reply) -> Move:
        """Say what an answer means; change nothing."""
        ...

    def acted(self, reply: Reply, observations: Sequence[Observation]) -> None:
        """Take in an answer and what its calls gave back, in their order; a party without calls gets none."""
        ...
