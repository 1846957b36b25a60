"""What one side of a comparison did in one conversation: its requests in a form that can be compared, and its end."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Anonymous", "Asked", "Trace", "canonical", "fingerprint"]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    role: str
    """`agent`, `user`, or `check`: what a user model is asked about its own draft."""
    messages: tuple[str, ...]
    """Each as canonical JSON."""
    tools: str
    """As canonical JSON; empty when none are offered."""
    rest: str
    """Model and sampling, as canonical JSON."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One conversation."""

    case: str
    requests: tuple[Asked, ...]
    messages: tuple[str, ...]
    """The agent's history at the end, each message as canonical JSON; empty when an exception lost it."""
    reward: float | None
    db: bool | None
    """Whether the database ended as the reference leaves it; None when it was not scored."""
    outputs: Mapping[str, bool]
    """Whether each thing that must be said was said."""
    end: str = ""
    """What ended it when that was not the benchmark: an exception of the original, or an outcome of ours."""
    constructor: int = 0
    """Requests that were made while the conversation was set up, about no task."""


def canonical(value: Any) -> str:
    """Return JSON that is equal for equal values; a field that is null is a field that is not there."""
    return json.dumps(_without_null(value), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(each) for key, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_null(each) for each in value]
    return value


class Anonymous:
    """Replaces a benchmark's own fixed texts by their names, so that two benchmarks of one shape can be compared.

    Parameters
    ----------
    fixed : mapping of str to sequence of str
        Name and the text's pieces, around what differs between conversations, as the driver tells them.
    """

    def __init__(self, fixed: Mapping[str, Sequence[str]]) -> None:
        labels = zip(fixed["labels"], ("system", "user", "assistant"), strict=True)
        pairs = [(f"\\n{fixed['example'][0]} {number}:\\n", f"\\n<example {number}>\\n") for number in range(1, 6)]
        pairs += [
            (json.dumps(piece, ensure_ascii=False)[1:-1], f"<{name} {number}>")
            for name, pieces in fixed.items()
            if name not in {"labels", "example"}
            for number, piece in enumerate(pieces)
            if piece.strip()
        ]
        # The longest first: a piece may be part of another one. A label follows a line's end, or the piece before.
        self._pairs = sorted(pairs, key=lambda pair: -len(pair[0]))
        for label, role in labels:
            self._pairs += [(f"{before}{label}: ", f"{before}<{role}>: ") for before in ("\\n", "0>")]

    def __call__(self, trace: Trace) -> Trace:
        """Return the trace with names in the place of texts."""
        requests = tuple(replace(asked, messages=tuple(map(self._cut, asked.messages))) for asked in trace.requests)
        return replace(trace, requests=requests, messages=tuple(map(self._cut, trace.messages)))

    def _cut(self, text: str) -> str:
        for piece, name in self._pairs:
            text = text.replace(piece, name)
        return text


def fingerprint(trace: Trace, requests: int, *, end: bool) -> str:
    """Return one sha256 over the first requests of a conversation and, if `end`, its reward and end too."""
    asked = [[each.role, each.messages, each.tools, each.rest] for each in trace.requests[:requests]]
    ended = [trace.end, trace.reward, trace.db, dict(trace.outputs), trace.messages] if end else []
    return hashlib.sha256(json.dumps([trace.case, asked, ended], sort_keys=True).encode()).hexdigest()
