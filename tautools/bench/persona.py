"""Personas in a conversation: put on the customer, and looked for in each request that its model is sent.

A text that was meant to change the customer and never reached its model would be measured as "no effect". So the loop
looks at the requests themselves, and a text that is missing there ends the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tautools.errors import PersonaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.agents.move import Speaker
    from tautools.llm.types import Message
    from tautools.params.personas import Persona

__all__ = ["Wearer", "check_worn", "put_on"]

_NEXT = "Nothing was recorded. Run it without --persona, or report how this customer's prompt is made."


@runtime_checkable
class Wearer(Protocol):
    """A customer whose system prompt is not yet there when the conversation begins, or that has none."""

    def wear(self, text: str) -> None:
        """Have `text` behind the system prompt whenever that is made, or show it to the person who plays."""
        ...


def put_on(user: Speaker, persona: Persona) -> None:
    """Append a persona to the customer's system prompt.

    Raises
    ------
    PersonaError
        When the customer has no system prompt to append it to.
    """
    if isinstance(user, Wearer):
        user.wear(persona.block)
        return
    if not user.messages or user.messages[0].get("role") != "system":
        raise PersonaError(
            f"The persona {persona.label} cannot be put on: the customer has no system prompt.",
            evidence=f"Its first message is {user.messages[0]!r:.200}." if user.messages else "It has no message yet.",
            next_step=_NEXT,
        )
    first = user.messages[0]
    user.messages[0] = {**first, "content": f"{first.get('content') or ''}{persona.block}"}


def check_worn(messages: Sequence[Message], persona: Persona, *, first: bool) -> None:
    """Refuse a request to the customer's model whose system prompt lacks the persona.

    What v1 asks a model about its own draft has no system prompt; the first request always has one.

    Raises
    ------
    PersonaError
        When the text is not in it, once and whole.
    """
    system = [str(message.get("content") or "") for message in messages if message.get("role") == "system"]
    if not system and not first:
        return
    found = sum(text.count(persona.block) for text in system)
    if found == 1:
        return
    raise PersonaError(
        f"The persona {persona.label} is {'missing from' if not found else 'more than once in'} "
        "a request to the customer's model.",
        evidence=f"The system prompt sent ends: {system[-1][-200:]!r}" if system else "No system prompt was sent.",
        next_step=_NEXT,
    )
