"""How the simulated customer shows a mood: as a persona in its system prompt tells it, in words around the matter.

It reads the persona's heading and degree as a model would read the text; what it has to say stays word for word, so
that a conversation's reward does not depend on the mood. A mood it does not know changes nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["in_mood", "label_of"]

_HEADING = re.compile(r"^# Your mood in this conversation: (.+?)(?: \(([a-z0-9-]+)\))?$", re.MULTILINE)
_QUESTION = re.compile(r"^Moods: (.+)$.*?^What the customer said:$(.*)", re.MULTILINE | re.DOTALL)
_DEGREES = {"mild": 1, "moderate": 2, "strong": 3}
_USUAL_DEGREE = 2
_AFTER_THOUGHT = "User Response:\n"
"""What stands before the words when v1 asks for a thought too."""


class _Style(NamedTuple):
    before: tuple[str, ...]
    after: tuple[str, ...]


_STYLES = {
    "frustration": _Style(
        ("Honestly, this is tedious.", "Sigh, here we go.", "I am fed up with how slow this is."),
        ("This is so frustrating.", "I am tired of this.", "Why is this so complicated?"),
    ),
    "anxiety": _Style(
        ("I am a bit nervous about this.", "Sorry, I am really worried.", "I hope nothing goes wrong."),
        ("Will it be all right?", "Are you sure it is safe?", "I am so anxious, can you reassure me?"),
    ),
    "anger": _Style(
        ("I am angry!", "This is OUTRAGEOUS!", "This is completely UNACCEPTABLE!"),
        ("Get on with it!", "I am furious!", "Just fix it NOW!"),
    ),
    "confusion": _Style(
        ("Hmm, I am a little lost.", "I am not sure I understand.", "Wait, I am confused."),
        ("What does that mean?", "How does this work?", "Could you explain what happens next?"),
    ),
}


def in_mood(messages: Sequence[Mapping[str, Any]], answer: str) -> str:
    """Return the customer's answer as the mood in its system prompt would have it said.

    Parameters
    ----------
    messages : sequence of dict
        The conversation as the user model sees it.
    answer : str
        What it would say without a mood.
    """
    system = "\n".join(str(each.get("content") or "") for each in messages if each["role"] == "system")
    found = _HEADING.search(system)
    style = _STYLES.get(found[1]) if found else None
    if found is None or style is None:
        return answer
    turn = sum(each["role"] == "assistant" for each in messages)
    thought, mark, words = answer.rpartition(_AFTER_THOUGHT)
    said, stop, rest = words.partition("###")
    if not said.strip():
        return answer
    return f"{thought}{mark}{_styled(said, style, _DEGREES.get(found[2] or '', _USUAL_DEGREE), turn)}{stop}{rest}"


def label_of(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the mood that a simulated judge sees in a customer's words; None when it is asked something else."""
    asked = str(messages[-1].get("content") or "")
    found = _QUESTION.search(asked)
    return _name(found[2], [name.strip() for name in found[1].split(",")]) if found else None


def _name(said: str, moods: Sequence[str]) -> str:
    """Return which of `moods` shows by the phrases above; one that has no such phrases when none does."""
    counts = {name: sum(said.count(words) for words in style.before + style.after) for name, style in _STYLES.items()}
    best = max((name for name in moods if name in counts), key=lambda name: counts[name], default="")
    if best and counts[best]:
        return best
    return next((name for name in moods if name not in counts), moods[0] if moods else "")


def _styled(said: str, style: _Style, degree: int, turn: int) -> str:
    """Put the mood's words around what is said: now and then, on one side each time, or on both sides."""
    before, after = style.before[turn % len(style.before)], style.after[turn % len(style.after)]
    space = " " if said.endswith(" ") else ""
    bare = said.rstrip()
    if degree == 1:
        return f"{before} {bare}{space}" if turn % 3 == 0 else said
    if degree == _USUAL_DEGREE:
        return f"{before} {bare}{space}" if turn % 2 == 0 else f"{bare} {after}{space}"
    return f"{before} {bare} {after}{space}"
