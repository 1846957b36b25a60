"""Tokens of the simulated model, and its prefix cache.

There is no tokenizer: a token of a prompt is four characters of its JSON, a token of an answer three to five
characters. What matters is that the counts grow as a real server's do and that they are the same each time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BLOCK_TOKENS", "PrefixCache", "pieces", "prompt_parts"]

CHARS_PER_TOKEN = 4
BLOCK_TOKENS = 16
"""Prefixes are cached in whole blocks; vLLM's default block on GPUs."""
_PIECE_LENGTHS = (4, 3, 5, 4, 4, 3, 5)


def pieces(text: str) -> list[str]:
    """Cut a text into tokens of three to five characters; joined they are the text."""
    cut: list[str] = []
    at = 0
    while at < len(text):
        length = _PIECE_LENGTHS[len(cut) % len(_PIECE_LENGTHS)]
        cut.append(text[at : at + length])
        at += length
    return cut


def prompt_parts(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Return the prompt's parts in the order in which a chat template lays them out: tools, then each message."""
    head = [orjson.dumps(tools)] if tools else []
    return head + [orjson.dumps(message) for message in messages]


class PrefixCache:
    """Which prompt prefixes were seen before, up to a number of tokens; the oldest are forgotten first."""

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self._tokens: OrderedDict[int, int] = OrderedDict()
        self._held = 0

    def admit(self, parts: Sequence[bytes]) -> tuple[int, int]:
        """Take a prompt in; return its tokens and how many of them a former prompt had computed already."""
        total = cached = chain = 0
        unbroken = True
        for part in parts:
            # A part's place in the chain stands for itself and all before it, as vLLM's block hashes do.
            chain = hash((chain, part))
            size = len(part) // CHARS_PER_TOKEN + 1
            total += size
            unbroken = unbroken and chain in self._tokens
            if unbroken:
                cached += size
            self._remember(chain, size)
        # The last token is always computed anew: its logits are needed.
        return total, min(cached, total - 1) // BLOCK_TOKENS * BLOCK_TOKENS

    def _remember(self, chain: int, size: int) -> None:
        if chain in self._tokens:
            self._tokens.move_to_end(chain)
            return
        self._tokens[chain] = size
        self._held += size
        while self._held > self.capacity_tokens and len(self._tokens) > 1:
            _, gone = self._tokens.popitem(last=False)
            self._held -= gone
