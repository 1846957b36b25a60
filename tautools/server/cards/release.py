"""After a stop: wait until the cards can be taken again.

A card's memory comes back some time after its process has ended, on Gaudi up to minutes; a server that starts before
fails to acquire it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tautools.server.cards.node import Card, CardDoor

__all__ = ["RELEASE_TIMEOUT_S", "wait_released"]

RELEASE_TIMEOUT_S = 240.0
"""Most seconds to wait where no server file says otherwise; on Gaudi it takes up to minutes."""

_EVERY_S = 1.0


def wait_released(
    indices: Collection[int],
    door: CardDoor,
    *,
    timeout_s: float = RELEASE_TIMEOUT_S,
    every_s: float = _EVERY_S,
    tell: Callable[[str], None] | None = None,
) -> bool:
    """Wait until the memory of the cards is back at idle; return whether it is.

    Parameters
    ----------
    indices : collection of int
        The cards, by index.
    door : CardDoor
        Reads them.
    timeout_s : float
        Most seconds to wait. Another process that is seen to hold the card ends the wait for it: it will not be idle.
    every_s : float
        Seconds between two looks.
    tell : callable, optional
        Told what is waited for, when it changes, and what is still held at the end.
    """
    say, told = tell or (lambda _text: None), ""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            held = [card for card in door.read() if card.index in indices and not card.idle]
        except TautoolsError as error:
            say(f"the cards cannot be read: {error.problem}")
            return False
        waited_for = [card for card in held if not card.holders]
        if not held:
            return True
        if not waited_for or time.monotonic() >= deadline:
            say(f"not idle after the stop: {_names(held)}")
            return False
        if (text := _names(waited_for)) != told:
            told = text
            say(f"waiting until released: {text}")
        time.sleep(every_s)


def _names(cards: list[Card]) -> str:
    return ", ".join(f"card {card.index} ({card.used_mib} MiB)" for card in cards)
