"""The nearest known word to one that is not known, for errors that help."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(word: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """Return up to `most` of the known words that `word` may have been meant for, best first."""
    by_plain = {_plain(each): each for each in known}
    return [by_plain[each] for each in difflib.get_close_matches(_plain(word), by_plain, n=most, cutoff=0.6)]


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean `x`?`, or nothing when no known word is near."""
    found = nearest(word, known)
    return f" Did you mean `{found[0]}`?" if found else ""


def _plain(word: str) -> str:
    return word[:200].lower().replace("-", "_")
