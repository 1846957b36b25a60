"""The simulated customer: reads the scenario in its own system prompt, as a real model would, and answers from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["customer_words", "first_person"]

STOP = "###STOP###"
TRANSFER = "###TRANSFER###"
_PATIENCE = 30
"""Answers after which the customer ends a conversation that leads nowhere."""

_NEXT_PART = r"^[\t ]*(?:Domain|Reason for call|Known info|Unknown info|Task instructions):|</scenario>|\Z"
# What the agent's words mean to the customer; the first that fits decides.
_REPLIES = (
    (("being transferred", "transferred to a human", "transfer you to a human"), TRANSFER),
    (
        ("anything else", "have a great day", "have a nice day", "goodbye"),
        f"No, that is all. Thank you for your help. {STOP}",
    ),
    (
        ("unable to", "not able to", "cannot help", "can't help", "sorry, no"),
        f"That is a pity. Then I leave it at that. {STOP}",
    ),
    (
        ("go ahead", "confirm", "proceed", "(yes/no)", "yes or no", "would you like me to", "is that correct"),
        "Yes, please go ahead.",
    ),
)

# "you" after one of these is the person spoken of, not the one who acts.
_BEFORE_OBJECT = (
    r"\b(to|for|from|with|of|told|tell|gives?|gave|send|sent|helps?|allows?|lets?|offers?|offered|asks?|asked|charge)"
)
_PERSON = (
    (_BEFORE_OBJECT + r"\s+you\b", r"\1 me"),
    (r"\byou name is\b", "my name is"),  # so written in some scenarios
    (r"\byou're\b", "I'm"),
    (r"\byou've\b", "I've"),
    (r"\byou'd\b", "I'd"),
    (r"\byou'll\b", "I'll"),
    (r"\byou are\b", "I am"),
    (r"\bare you\b", "am I"),
    (r"\byou were\b", "I was"),
    (r"\byourself\b", "myself"),
    (r"\byours\b", "mine"),
    (r"\byour\b", "my"),
    (r"\byou\b", "I"),
)


def customer_words(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what the customer's model answers next.

    v1 asks it for more than words: with a thought before them, or what it thinks of a draft of its own.

    Parameters
    ----------
    messages : sequence of dict
        The conversation as the user model sees it: its scenario as system prompt, the agent's words with role `user`.
    """
    scenario = "\n".join(str(item.get("content") or "") for item in messages if item["role"] == "system")
    if [item["role"] for item in messages] == ["user"]:
        return _verdict(str(messages[-1].get("content") or ""))
    words = _words(scenario, messages)
    return f"Thought:\nI say what I came for.\n\nUser Response:\n{words}" if "User Response:" in scenario else words


def _verdict(asked: str) -> str:
    """Judge a draft of the customer's own: it is good; where a better one is wanted, other words."""
    if asked.rstrip().endswith("Classification:"):
        return "true"
    return "Reflection:\nIt could be shorter.\n\nResponse:\nPlease go on."


def _words(scenario: str, messages: Sequence[Mapping[str, Any]]) -> str:
    heard = [str(item.get("content") or "") for item in messages if item["role"] == "user"]
    spoken = sum(item["role"] == "assistant" for item in messages)
    if spoken == 0:
        return _opening(scenario)
    return _answer(scenario, heard[-1].lower() if heard else "", spoken)


def first_person(text: str) -> str:
    """Turn what a scenario tells its reader ("You want …") into what the customer says ("I want …")."""
    for pattern, said in _PERSON:
        text = re.sub(pattern, said, text, flags=re.IGNORECASE)
    return " ".join(sentence[:1].upper() + sentence[1:] for sentence in _sentences(text))


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", " ".join(text.split()))


def _opening(scenario: str) -> str:
    # A customer opens with the matter and does not read the whole scenario out.
    reason = " ".join(_sentences(_part(scenario, "Reason for call") or _instruction(scenario))[:2])
    return f"Hi! {first_person(reason)}" if reason else "Hi! I need some help with my account, please."


def _answer(scenario: str, heard: str, spoken: int) -> str:
    if spoken >= _PATIENCE:
        return f"This takes too long for me, I will try again another day. {STOP}"
    for phrases, reply in _REPLIES:
        if any(phrase in heard for phrase in phrases):
            return reply
    known = _part(scenario, "Known info") or _instruction(scenario)
    if known and "?" in heard:
        return first_person(known)
    return "Yes, that would be good." if "?" in heard else "All right, thank you. Please go on."


def _instruction(scenario: str) -> str:
    """Return the whole scenario of v1, which has no parts."""
    found = re.search(r"^Instruction: (.*)$", scenario, flags=re.MULTILINE)
    return found.group(1).strip() if found else ""


def _part(scenario: str, name: str) -> str:
    pattern = rf"^[\t ]*{name}:[ ]*\n?(.*?)(?={_NEXT_PART})"
    found = re.search(pattern, scenario, flags=re.DOTALL | re.MULTILINE)
    return found.group(1).strip() if found else ""
