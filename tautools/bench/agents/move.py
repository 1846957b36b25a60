"""What a model's answer means, and what the loop needs of whoever speaks for one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.types import Observation
    from tautools.llm.types import Message, Reply, ToolCall, ToolSpec

__all__ = ["Ask", "Move", "Speaker"]


@dataclass(frozen=True, slots=True)
class Move:
    """What a party does next: either calls, or words for the other party."""

    said: str = ""
    calls: tuple[ToolCall, ...] = ()
    unusable: bool = False
    """Empty, or meant as a call and not readable as one."""
    wrote: str = ""
    """The answer's text as the model wrote it, thinking removed."""


class Ask(Protocol):
    """One model request of a party, counted and recorded by the loop; raises what ends the conversation."""

    async def __call__(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec] | None = None,
        *,
        purpose: str = "chat",
        expert: str = "",
    ) -> Reply:
        """Ask the party's own model, or the expert of that name."""
        ...


class Speaker(Protocol):
    """One party of a conversation: its history as its model sees it, and how it comes to its next move."""

    messages: list[Message]
    """Its history, system prompt first."""

    def hear(self, text: str) -> None:
        """Take in what the other party said."""
        ...

    async def move(self, ask: Ask) -> Move:
        """Come to the next move, by as many requests as that takes."""
        ...

    def acted(self, move: Move, observations: Sequence[Observation]) -> None:
        """Take in the move and what its calls gave back, in their order; a move without calls gets none."""
        ...
