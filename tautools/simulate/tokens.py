"""Tokens of the simulated model: how many there are, when each one is due, and the prefix cache.

There is no tokenizer: a token of a prompt is four characters of its JSON, a token of an answer three to five
characters. What matters is that the counts grow as a real server's do and that they are the same each time.
"""

import asyncio
import contextlib
import itertools
import math
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from tautools.params.models import SimulateParams

CHARS_PER_TOKEN = 4
BLOCK_TOKENS = 16
"""Prefixes are cached in whole blocks; vLLM's default block on GPUs."""
_PIECE_LENGTHS = (4, 3, 5, 4, 4, 3, 5)


def split_tokens(text: str) -> list[str]:
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
        self._cached = 0

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
        # The last token is always computed: its logits are needed.
        return total, min(cached, total - 1) // BLOCK_TOKENS * BLOCK_TOKENS

    def _remember(self, chain: int, size: int) -> None:
        if chain in self._tokens:
            self._tokens.move_to_end(chain)
            return
        self._tokens[chain] = size
        self._cached += size
        while self._cached > self.capacity_tokens and len(self._tokens) > 1:
            _, gone = self._tokens.popitem(last=False)
            self._cached -= gone


def due_times(params: SimulateParams, *, tokens: int, uncached_tokens: int, seed: str) -> list[float]:
    """Return when each token is due, counted from the request's arrival [s]; the same seed gives the same times.

    An empty answer still has one moment, its end. `uncached_tokens` are those of the prompt that are not in the prefix
    cache. With a speed of 0 all times are 0.
    """
    count = max(1, tokens)
    if params.speed == 0:
        return [0.0] * count
    # The same conversation takes the same time each run.
    dice = random.Random(seed)  # noqa: S311 - a simulation, not cryptography
    prefill_ms = params.prefill_ms_per_1k_tokens * uncached_tokens / 1000
    medians_ms = [params.ttft_ms, *[params.itl_ms] * (count - 1)]
    gaps_ms = [median_ms * math.exp(params.jitter * dice.gauss(0, 1)) for median_ms in medians_ms]
    gaps_ms[0] += prefill_ms
    return [at_ms / 1000 / params.speed for at_ms in itertools.accumulate(gaps_ms)]


class PendingWaits:
    """All waits of a server, so that they can be broken off together."""

    def __init__(self) -> None:
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Break off all waits, and those still to come."""
        self._ending.set()

    async def until(self, moment: float) -> bool:
        """Wait until the event loop's clock shows `moment` [s]; return whether it came before the server's end."""
        if not self._ending.is_set() and moment > asyncio.get_running_loop().time():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(moment):
                    await self._ending.wait()
        return not self._ending.is_set()
