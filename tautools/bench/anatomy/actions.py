"""What became of each reference action: made, made with other arguments, refused by the tool, or never tried."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tautools.records import canonical_json

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tautools.bench.replay import Step
    from tautools.bench.types import Action

__all__ = ["ActionFate", "Fate", "action_fates", "unasked_writes"]


class Fate(StrEnum):
    """What became of a reference action."""

    MADE = "made"
    REFUSED = "refused"
    """It was made, and the tool refused it."""
    OTHER_ARGUMENTS = "other arguments"
    """The tool was called, with other arguments."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class ActionFate:
    """One reference action and the call that stands for it."""

    name: str
    by: str
    """`assistant`, or `user` for what the customer was to do."""
    expected: Mapping[str, Any]
    fate: Fate
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Argument to its expected and its actual value; None where there is none."""
    answer: str = ""
    """What the tool said, when it refused."""


def action_fates(
    reference: Sequence[Action], steps: Sequence[Step], refused_anyway: Collection[int]
) -> tuple[ActionFate, ...]:
    """Return the fate of each reference action, in the reference's order; each call stands for one action.

    A call that the tool accepted is taken before one that it refused. Equal calls are matched first, so a second try
    with the right arguments is never taken for a wrong one.

    Parameters
    ----------
    reference : sequence of Action
        What solves the task.
    steps : sequence of Step
        The conversation's calls.
    refused_anyway : collection of int
        Places in the reference whose call is refused in the reference's own run too: made is made there.
    """
    free = dict(enumerate(steps))
    exact = {place: _take_equal(action, free) for place, action in enumerate(reference)}
    return tuple(
        _told(action, step, fine=place in refused_anyway)
        if (step := exact[place]) is not None
        else _nearest(action, free)
        for place, action in enumerate(reference)
    )


def unasked_writes(reference: Sequence[Action], steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the calls that changed the database and are no action of the reference."""
    free = dict(enumerate(steps))
    for action in reference:
        _take_equal(action, free)
    return tuple(step for step in free.values() if step.wrote)


def _take_equal(action: Action, free: dict[int, Step]) -> Step | None:
    wanted = canonical_json(action.matter(action.arguments))
    equal = [place for place, step in _of_tool(action, free) if canonical_json(_that_matters(action, step)) == wanted]
    accepted = [place for place in equal if not free[place].seen.error]
    return free.pop((accepted or equal)[0]) if equal else None


def _told(action: Action, step: Step, *, fine: bool) -> ActionFate:
    if step.seen.error and not fine:
        return ActionFate(action.name, action.requestor, action.arguments, Fate.REFUSED, answer=step.seen.text)
    return ActionFate(action.name, action.requestor, action.arguments, Fate.MADE)


def _nearest(action: Action, free: dict[int, Step]) -> ActionFate:
    """Take the call of the same tool that differs in the fewest arguments."""
    candidates = [(len(_differs(action, step)), step.seen.error, place) for place, step in _of_tool(action, free)]
    if not candidates:
        return ActionFate(action.name, action.requestor, action.arguments, Fate.MISSING)
    *_, place = min(candidates)
    step = free.pop(place)
    answer = step.seen.text if step.seen.error else ""
    differs = _differs(action, step)
    return ActionFate(action.name, action.requestor, action.arguments, Fate.OTHER_ARGUMENTS, differs, answer)


def _of_tool(action: Action, free: Mapping[int, Step]) -> list[tuple[int, Step]]:
    wanted = (action.name, action.requestor)
    return [(place, step) for place, step in free.items() if (step.deed.call, step.deed.by) == wanted]


def _differs(action: Action, step: Step) -> dict[str, tuple[Any, Any]]:
    given = _that_matters(action, step)
    expected, actual = action.matter(action.arguments), given if isinstance(given, Mapping) else {}
    names = dict.fromkeys([*expected, *actual])
    pairs = {name: (expected.get(name), actual.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if canonical_json(pair[0]) != canonical_json(pair[1])}


def _that_matters(action: Action, step: Step) -> Any:
    given = _read(step)
    return action.matter(given) if isinstance(given, Mapping) else given


def _read(step: Step) -> Any:
    try:
        return json.loads(step.deed.arguments or "{}")
    except ValueError:
        return step.deed.arguments
