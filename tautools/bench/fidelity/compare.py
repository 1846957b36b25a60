"""Says where two sides of one conversation differ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from tautools.bench.fidelity.deviations import Deviation, deviation_of, raised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.bench.fidelity.scripts import Case
    from tautools.bench.fidelity.trace import Asked, Trace

__all__ = ["Verdict", "compare"]

_SHOWN = 300
"""Characters shown on each side of the place where two texts part."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one comparison."""

    case: str
    requests: int
    """Requests that were compared."""
    rewarded: bool
    """Whether the end and the reward were compared too."""
    deviations: tuple[Deviation, ...] = ()
    difference: str = ""
    """The first one, for people; empty when there is none."""


def compare(case: Case, original: Trace, ours: Trace) -> Verdict:
    """Compare every request in its order, then the end.

    Where an intended difference ends one side before the other, what came before it is compared.

    Parameters
    ----------
    case : Case
        The script.
    original, ours : Trace
        What each side made of it.
    """
    known = deviation_of(case, original, ours)
    theirs, own = original.requests, ours.requests
    if known is not None:
        shorter = len(theirs) if raised(original) else len(own)
        theirs, own = theirs[:shorter], own[:shorter]
    difference = _requests(theirs, own) or ("" if known else _end(original, ours))
    return Verdict(
        case=original.case,
        requests=len(theirs),
        rewarded=known is None,
        deviations=((Deviation.CONSTRUCTOR,) if original.constructor else ()) + ((known,) if known else ()),
        difference=difference,
    )


def _requests(theirs: Sequence[Asked], own: Sequence[Asked]) -> str:
    for number, (wanted, made) in enumerate(zip_longest(theirs, own)):
        if wanted is None:
            return f"request {number}: ours asks its {made.role} once more than the original: {_last(made)}"
        if made is None:
            return f"request {number}: only the original makes it, of its {wanted.role}: {_last(wanted)}"
        if wanted != made:
            return f"request {number}, of the {wanted.role}: {_request(wanted, made)}"
    return ""


def _request(wanted: Asked, made: Asked) -> str:
    if wanted.role != made.role:
        return f"ours asks its {made.role} in its place"
    for name, left, right in (("tools", wanted.tools, made.tools), ("model and sampling", wanted.rest, made.rest)):
        if left != right:
            return f"{name}: {_parted(left, right)}"
    return _histories(wanted.messages, made.messages)


def _histories(wanted: Sequence[str], made: Sequence[str]) -> str:
    for number, (left, right) in enumerate(zip_longest(wanted, made, fillvalue="(no message)")):
        if left != right:
            return f"message {number}: {_parted(left, right)}"
    return ""


def _end(original: Trace, ours: Trace) -> str:
    for name in ("end", "reward", "db", "outputs"):
        left, right = getattr(original, name), getattr(ours, name)
        if left != right:
            return f"{name}: the original {left!r}, ours {right!r}"
    found = _histories(original.messages, ours.messages)
    return found and f"the agent's history at the end, {found}"


def _parted(left: str, right: str) -> str:
    at = next(
        (place for place, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right))
    )
    start = max(0, at - 60)
    return f"they part at character {at}\n    original: {_piece(left, start)}\n    ours:     {_piece(right, start)}"


def _piece(text: str, start: int) -> str:
    return f"{'…' if start else ''}{text[start : start + _SHOWN]}{'…' if len(text) > start + _SHOWN else ''}"


def _last(asked: Asked) -> str:
    return json.loads(asked.messages[-1]).get("content", "")[-_SHOWN:] if asked.messages else "(no message)"
