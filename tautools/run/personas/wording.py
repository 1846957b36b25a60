"""What a customer said in one conversation, and the figures by which its wording is compared with control's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tautools.run.personas.lexicon import LEXICONS, mood_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.records import Conversation

__all__ = ["MEASURES", "customer_said", "wording"]

MEASURES = (
    "messages",
    "words per message",
    "questions per message",
    "exclamations per message",
    "capitals per 100 words",
    "repeated per 100 words",
    *(f"{mood} words per 100 words" for mood in LEXICONS),
)
"""Names of the figures of `wording`, in their order."""

_WORD = re.compile(r"\b[A-Za-z][A-Za-z']*\b")
"""Ids such as `#W123` are no words."""
_LOUD = re.compile(r"(?<![\w#-])[A-Z]{3,}(?![\w-])")
_MARK = re.compile(r"###[A-Z-]+###")
_AFTER_THOUGHT = "User Response:"
_RUN = 4
"""Words in a row that count as repeated when they were said before."""


def customer_said(conversation: Conversation) -> list[str]:
    """Return the customer's messages as the agent heard them: no calls, no thoughts, no stop words."""
    texts = [str(each.get("content") or "") for each in conversation.user_messages if each.get("role") == "assistant"]
    heard = (_MARK.sub("", text.rpartition(_AFTER_THOUGHT)[2]).strip() for text in texts)
    return [text for text in heard if text]


def wording(said: Sequence[str]) -> dict[str, float]:
    """Return the figures of one conversation's customer; one who said nothing has 0 of everything.

    Parameters
    ----------
    said : sequence of str
        The customer's messages.
    """
    text = "\n".join(said)
    words = [word.lower() for word in _WORD.findall(text)]
    messages, hundred = max(len(said), 1), max(len(words), 1) / 100
    values = (
        float(len(said)),
        len(words) / messages,
        text.count("?") / messages,
        text.count("!") / messages,
        len(_LOUD.findall(text)) / hundred,
        _repeated(words) / hundred,
        *(mood_words(text, mood) / hundred for mood in LEXICONS),
    )
    return dict(zip(MEASURES, values, strict=True))


def _repeated(words: Sequence[str]) -> int:
    """Return how many runs of words were said before in the same conversation."""
    runs = [tuple(words[start : start + _RUN]) for start in range(len(words) - _RUN + 1)]
    return len(runs) - len(set(runs))
