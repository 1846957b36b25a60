"""Why a conversation failed: its database, its actions and its words, compared with what the task's reference does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tautools.bench.analysis.replay import replay
from tautools.bench.analysis.rules import basis_of
from tautools.records import TrajectoryAction, canonical_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from tautools.bench.analysis.replay import ReplayStep
    from tautools.bench.types import Changes, Domain, ReferenceAction, Task


ABSENT = "(absent)"
"""Stands for a value where there is none: an entity or a field that is not there."""


class FieldError(StrEnum):
    """In which way a field is not as it should be."""

    NOT_CHANGED = "not changed"
    """The reference changes it, the conversation left it as it was."""
    CHANGED = "changed"
    """The conversation changed it, the reference leaves it as it was."""
    OTHERWISE = "changed otherwise"
    """Both change it, to different values."""


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field whose value differs from the expected one."""

    table: str
    key: str
    """Of the entity in its table."""
    field: str
    """Path within the entity, such as `items.0.price`; empty for the entity as a whole."""
    before: Any
    """The value before the conversation; `ABSENT` where there was none."""
    expected: Any
    actual: Any

    @property
    def wrong(self) -> FieldError:
        """In which way."""
        if _canonical(self.actual) == _canonical(self.before):
            return FieldError.NOT_CHANGED
        return FieldError.CHANGED if _canonical(self.expected) == _canonical(self.before) else FieldError.OTHERWISE


def field_differences(
    domain: Domain, start: Changes, expected: Changes, actual: Changes
) -> tuple[FieldDifference, ...]:
    """Return the fields in which two states of the database differ, by table, key and field.

    Parameters
    ----------
    domain : Domain
        Knows what was loaded.
    start : Changes
        What the task itself had changed of it before the first word.
    expected, actual : Changes
        What each state changed of it.
    """
    return tuple(
        FieldDifference(table, key, path, *values)
        for table, key in sorted(expected.keys() | actual.keys())
        if expected.get((table, key), "as loaded") != actual.get((table, key), "as loaded")
        for path, values in _entity_differences(domain, (table, key), (start, expected, actual))
    )


def _entity_differences(
    domain: Domain, place: tuple[str, str], states: Sequence[Changes]
) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    text = domain.as_loaded(*place)
    loaded = ABSENT if text is None else json.loads(text)
    before, wanted, found = (_state(changes, place, loaded) for changes in states)
    yield from _differing_values("", before, wanted, found)


def _state(changes: Changes, place: tuple[str, str], loaded: Any) -> Any:
    if place not in changes:
        return loaded
    text = changes[place]
    return ABSENT if text is None else json.loads(text)


def _differing_values(path: str, before: Any, expected: Any, actual: Any) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """Walk down where both sides have the same kind of thing; yield the innermost values that differ."""
    if _canonical(expected) == _canonical(actual):
        return
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in dict.fromkeys([*expected, *actual]):
            yield from _differing_values(_join(path, name), *(_get(each, name) for each in (before, expected, actual)))
    elif isinstance(expected, list) and isinstance(actual, list) and _of_objects(expected, actual):
        for index in range(max(len(expected), len(actual))):
            yield from _differing_values(
                _join(path, index), *(_item(each, index) for each in (before, expected, actual))
            )
    else:
        yield path, (before, expected, actual)


def _of_objects(expected: list[Any], actual: list[Any]) -> bool:
    return all(isinstance(each, dict) for each in (*expected, *actual))


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _get(value: Any, name: str) -> Any:
    return value.get(name, ABSENT) if isinstance(value, dict) else ABSENT


def _item(value: Any, index: int) -> Any:
    return value[index] if isinstance(value, list) and index < len(value) else ABSENT


def _canonical(value: Any) -> str:
    # `2` and `2.0` are equal and make two databases.
    return json.dumps(value, sort_keys=True)


class ActionStatus(StrEnum):
    """What became of a reference action."""

    MADE = "made"
    REFUSED = "refused"
    """It was made, and the tool refused it."""
    OTHER_ARGUMENTS = "other arguments"
    """The tool was called, with other arguments."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class ActionMatch:
    """One reference action and the call that stands for it."""

    name: str
    by: str
    """`assistant`, or `user` for what the customer was to do."""
    expected: Mapping[str, Any]
    fate: ActionStatus
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Argument to its expected and its actual value; None where there is none."""
    answer: str = ""
    """What the tool said, when it refused."""


def match_actions(
    reference: Sequence[ReferenceAction], steps: Sequence[ReplayStep], refused_anyway: Collection[int]
) -> tuple[ActionMatch, ...]:
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
        _equal_match(action, step, fine=place in refused_anyway)
        if (step := exact[place]) is not None
        else _nearest_match(action, free)
        for place, action in enumerate(reference)
    )


def unexpected_writes(reference: Sequence[ReferenceAction], steps: Sequence[ReplayStep]) -> tuple[ReplayStep, ...]:
    """Return the calls that changed the database and are no action of the reference."""
    free = dict(enumerate(steps))
    for action in reference:
        _take_equal(action, free)
    return tuple(step for step in free.values() if step.wrote)


def _take_equal(action: ReferenceAction, free: dict[int, ReplayStep]) -> ReplayStep | None:
    wanted = canonical_json(action.compared_arguments(action.arguments))
    equal = [
        place for place, step in _of_tool(action, free) if canonical_json(_compared_arguments(action, step)) == wanted
    ]
    accepted = [place for place in equal if not free[place].seen.error]
    return free.pop((accepted or equal)[0]) if equal else None


def _equal_match(action: ReferenceAction, step: ReplayStep, *, fine: bool) -> ActionMatch:
    if step.seen.error and not fine:
        return ActionMatch(action.name, action.requestor, action.arguments, ActionStatus.REFUSED, answer=step.seen.text)
    return ActionMatch(action.name, action.requestor, action.arguments, ActionStatus.MADE)


def _nearest_match(action: ReferenceAction, free: dict[int, ReplayStep]) -> ActionMatch:
    """Take the call of the same tool that differs in the fewest arguments."""
    candidates = [
        (len(_argument_differences(action, step)), step.seen.error, place) for place, step in _of_tool(action, free)
    ]
    if not candidates:
        return ActionMatch(action.name, action.requestor, action.arguments, ActionStatus.MISSING)
    *_, place = min(candidates)
    step = free.pop(place)
    answer = step.seen.text if step.seen.error else ""
    differs = _argument_differences(action, step)
    return ActionMatch(action.name, action.requestor, action.arguments, ActionStatus.OTHER_ARGUMENTS, differs, answer)


def _of_tool(action: ReferenceAction, free: Mapping[int, ReplayStep]) -> list[tuple[int, ReplayStep]]:
    wanted = (action.name, action.requestor)
    return [(place, step) for place, step in free.items() if (step.deed.call, step.deed.by) == wanted]


def _argument_differences(action: ReferenceAction, step: ReplayStep) -> dict[str, tuple[Any, Any]]:
    given = _compared_arguments(action, step)
    expected, actual = action.compared_arguments(action.arguments), given if isinstance(given, Mapping) else {}
    names = dict.fromkeys([*expected, *actual])
    pairs = {name: (expected.get(name), actual.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if canonical_json(pair[0]) != canonical_json(pair[1])}


def _compared_arguments(action: ReferenceAction, step: ReplayStep) -> Any:
    given = _call_arguments(step)
    return action.compared_arguments(given) if isinstance(given, Mapping) else given


def _call_arguments(step: ReplayStep) -> Any:
    try:
        return json.loads(step.deed.arguments or "{}")
    except ValueError:
        return step.deed.arguments


@dataclass(frozen=True, slots=True)
class FailureAnalysis:
    """Why a conversation got its reward."""

    fields: tuple[FieldDifference, ...]
    """Of the database, where it differs from the one that the reference leaves, whether the task scores it or not."""
    actions: tuple[ActionMatch, ...]
    """Every reference action and what became of it."""
    unasked: tuple[str, ...]
    """Calls that changed the database and are not in the reference, as `name(arguments)`."""
    missing_information: tuple[str, ...]
    """What the user should have been told and was not."""
    failed_assertions: tuple[str, ...]
    """Assertions about the environment that do not hold."""
    unmade: tuple[str, ...]
    """Reference actions that the task's score asks for and that nobody made."""
    scores_database: bool
    """Whether the task's score rests on the database; in telecom it does not."""
    scorer_reward: float
    """The bench's verdict on the state reached and the words said."""

    @property
    def missed(self) -> tuple[ActionMatch, ...]:
        """Reference actions that were not made."""
        return tuple(each for each in self.actions if each.fate is not ActionStatus.MADE)

    @property
    def causes(self) -> tuple[str, ...]:
        """What the score was lost by: of `database`, `information`, `environment`, `actions`; empty when it passes."""
        found = {
            "database": self.fields if self.scores_database else (),
            "information": self.missing_information,
            "environment": self.failed_assertions,
            "actions": self.unmade,
        }
        return tuple(name for name, each in found.items() if each)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        told = asdict(self)
        for row, each in zip(told["fields"], self.fields, strict=True):
            row["wrong"] = each.wrong.value
        for row, fate in zip(told["actions"], self.actions, strict=True):
            row["expected"] = dict(fate.expected)
        return told | {"causes": list(self.causes)}


def analyze_failure(domain: Domain, task: Task, actions: Sequence[TrajectoryAction]) -> FailureAnalysis:
    """Return the anatomy of a conversation, from a replay of what it did.

    Parameters
    ----------
    domain, task
        The env and the task of the conversation.
    actions : sequence of Deed
        What was done, in order: `Conversation.actions`.
    """
    done = replay(domain, task, actions)
    start, expected = dict(domain.env_state(task).changes()), domain.expected(task)
    info = done.reward.info
    return FailureAnalysis(
        fields=() if expected is None else field_differences(domain, start, expected, done.changes),
        actions=match_actions(task.reference, done.steps, _refused_anyway(domain, task)),
        unasked=tuple(
            f"{step.deed.call}({step.deed.arguments})" for step in unexpected_writes(task.reference, done.steps)
        ),
        missing_information=tuple(str(each) for each in info.get("missing_info") or ()),
        failed_assertions=tuple(_failed_assertions(info.get("assertions") or ())),
        unmade=tuple(str(each) for each in info.get("missing_actions") or ()),
        scores_database="DB" in basis_of(task),
        scorer_reward=done.reward.value,
    )


def _refused_anyway(domain: Domain, task: Task) -> list[int]:
    """Return the places of the reference's calls that the tools refuse even in its own run."""
    own = [
        TrajectoryAction(
            by="user" if each.requestor == "user" else "assistant", call=each.name, arguments=_as_json(each.arguments)
        )
        for each in task.reference
    ]
    return [place for place, step in enumerate(replay(domain, task, own).steps) if step.seen.error]


def _as_json(arguments: Mapping[str, Any]) -> str:
    return json.dumps(dict(arguments))


def _failed_assertions(assertions: Sequence[Any]) -> list[str]:
    """Return the assertions that do not hold, in words."""
    return [
        str(each.get("assertion") or each) for each in assertions if isinstance(each, Mapping) and not each.get("met")
    ]
