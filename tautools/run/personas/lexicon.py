"""Words by which a mood shows in English customer talk: small lists of our own, beginnings of words and expressions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LEXICONS", "mood_words"]

LEXICONS: Mapping[str, tuple[str, ...]] = {
    "frustration": (
        "annoy", "disappoint", "exasperat", "fed up", "frustrat", "hassle", "sigh", "sick of", "slow", "tedious",
        "tired of", "ugh", "waste of", "wasted", "wasting", "weary",
    ),
    "anxiety": (
        "afraid", "anxi", "concerned", "fear", "hope nothing", "nervous", "panic", "reassur", "scared", "stress",
        "unsafe", "what if", "will it be all right", "worr",
    ),
    "anger": (
        "absurd", "anger", "angry", "disgrace", "furious", "get on with it", "incompeten", "mad", "outrag", "rage",
        "ridiculous", "terrible", "unacceptable", "unbelievable",
    ),
    "confusion": (
        "confus", "do not follow", "do not understand", "don't follow", "don't understand", "explain", "how does",
        "i'm lost", "lost", "not sure", "puzzl", "unclear", "what do you mean", "what does that mean",
    ),
}  # fmt: skip
"""Mood to beginnings of words; an expression of several words is looked for as it stands."""

_WHOLE = frozenset({"mad", "rage", "lost", "slow", "ugh", "sigh", "fear"})
"""Beginnings of other words too (`made`, `slowly` aside): only the word itself counts."""

_PATTERNS = {
    mood: re.compile("|".join(rf"\b{re.escape(word)}{chr(92) + 'b' if word in _WHOLE else ''}" for word in words))
    for mood, words in LEXICONS.items()
}


def mood_words(text: str, mood: str) -> int:
    """Return how often a mood's words occur in a text."""
    return len(_PATTERNS[mood].findall(text.lower().replace("\u2019", "'")))
