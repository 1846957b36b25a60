"""Why a conversation failed: its database, its actions and its words, compared with what the task's reference does."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from tautools.bench.analysis.replay import ReplayStep, basis_of, replay
from tautools.bench.types import Changes, Domain, ReferenceAction, Task
from tautools.records import TrajectoryAction, canonical_json

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
    def error(self) -> FieldError:
        """In which way it is not as it should be."""
        # As JSON: `2` and `2.0` are equal and make two databases.
        before, expected, actual = map(canonical_json, (self.before, self.expected, self.actual))
        if actual == before:
            return FieldError.NOT_CHANGED
        return FieldError.CHANGED if expected == before else FieldError.OTHERWISE


def field_differences(
    domain: Domain, start: Changes, expected: Changes, actual: Changes
) -> tuple[FieldDifference, ...]:
    """Return the fields in which two states of the database differ, by table, key and field.

    `start` is what the task itself changes before the conversation begins, `expected` and `actual` what each state
    changes of the database as loaded.
    """
    differences = []
    for entity in sorted(expected.keys() | actual.keys()):
        if expected.get(entity, "as loaded") != actual.get(entity, "as loaded"):
            loaded = domain.as_loaded(*entity)
            texts = (changes.get(entity, loaded) for changes in (start, expected, actual))
            values = (ABSENT if text is None else json.loads(text) for text in texts)
            differences += [FieldDifference(*entity, *differing) for differing in _differing_values("", *values)]
    return tuple(differences)


def _differing_values(path: str, before: Any, expected: Any, actual: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Walk down where both sides have the same kind of thing; yield paths and values of the innermost that differ."""
    if canonical_json(expected) == canonical_json(actual):
        return
    parts: Iterable[Any]
    if isinstance(expected, dict) and isinstance(actual, dict):
        parts = dict.fromkeys([*expected, *actual])
    elif (
        isinstance(expected, list)
        and isinstance(actual, list)
        and all(isinstance(each, dict) for each in (*expected, *actual))
    ):
        parts = range(max(len(expected), len(actual)))
    else:
        yield path, before, expected, actual
        return
    for part in parts:
        inner = f"{path}.{part}" if path else str(part)
        yield from _differing_values(inner, *(_part(value, part) for value in (before, expected, actual)))


def _part(value: Any, key: Any) -> Any:
    """Return one entry of an object or a list; `ABSENT` where there is none."""
    if isinstance(value, dict):
        return value.get(key, ABSENT)
    return value[key] if isinstance(value, list) and isinstance(key, int) and key < len(value) else ABSENT


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
    status: ActionStatus
    differs: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Argument to its expected and its actual value; None where there is none."""
    answer: str = ""
    """The tool's answer, when it refused."""


def match_actions(
    reference: Sequence[ReferenceAction], steps: Sequence[ReplayStep], refused_anyway: Collection[int]
) -> tuple[tuple[ActionMatch, ...], tuple[ReplayStep, ...]]:
    """Return what became of each reference action, in order, and the calls that wrote and are no action of it.

    Each call stands for one action. A call that the tool accepted is taken before one that it refused. Equal calls are
    matched first, so a second try with the right arguments is never taken for a wrong one. `refused_anyway` are places
    in the reference whose call is refused in the reference's own run too: there a refused call counts as made.
    """
    free = dict(enumerate(steps))
    equal = [_take(action, free, equal=True) for action in reference]
    unexpected = tuple(step for step in free.values() if step.wrote)
    matches = [
        _match(action, step or _take(action, free, equal=False), refusable=index in refused_anyway)
        for index, (action, step) in enumerate(zip(reference, equal, strict=True))
    ]
    return tuple(matches), unexpected


def _take(action: ReferenceAction, free: dict[int, ReplayStep], *, equal: bool) -> ReplayStep | None:
    """Take out the call of the action's tool that differs in the fewest arguments; with `equal` only an equal one."""
    candidates = [
        (len(_argument_differences(action, step)), step.observation.error, index)
        for index, step in free.items()
        if (step.action.call, step.action.by) == (action.name, action.requestor)
        and (not equal or _is_equal(action, step))
    ]
    return free.pop(min(candidates)[-1]) if candidates else None


def _is_equal(action: ReferenceAction, step: ReplayStep) -> bool:
    wanted, made = map(action.compared_arguments, (action.arguments, step.arguments))
    return canonical_json(wanted) == canonical_json(made)


def _match(action: ReferenceAction, step: ReplayStep | None, *, refusable: bool) -> ActionMatch:
    made = ActionMatch(action.name, action.requestor, action.arguments, ActionStatus.MADE)
    if step is None:
        return replace(made, status=ActionStatus.MISSING)
    answer = step.observation.text if step.observation.error else ""
    if not _is_equal(action, step):
        differs = _argument_differences(action, step)
        return replace(made, status=ActionStatus.OTHER_ARGUMENTS, differs=differs, answer=answer)
    if step.observation.error and not refusable:
        return replace(made, status=ActionStatus.REFUSED, answer=answer)
    return made


def _argument_differences(action: ReferenceAction, step: ReplayStep) -> dict[str, tuple[Any, Any]]:
    expected, actual = action.compared_arguments(action.arguments), action.compared_arguments(step.arguments)
    actual = actual if isinstance(actual, dict) else {}
    pairs = {name: (expected.get(name), actual.get(name)) for name in dict.fromkeys([*expected, *actual])}
    return {name: pair for name, pair in pairs.items() if canonical_json(pair[0]) != canonical_json(pair[1])}


@dataclass(frozen=True, slots=True)
class FailureAnalysis:
    """Why a conversation got its reward."""

    fields: tuple[FieldDifference, ...]
    """Of the database, where it differs from the one that the reference leaves, whether the task scores it or not."""
    actions: tuple[ActionMatch, ...]
    """Every reference action and what became of it."""
    unexpected_writes: tuple[str, ...]
    """Calls that changed the database and are not in the reference, as `name(arguments)`."""
    missing_information: tuple[str, ...]
    """What the agent should have said to the user and did not."""
    failed_assertions: tuple[str, ...]
    """Assertions about the environment that do not hold."""
    missing_actions: tuple[str, ...]
    """Reference actions that the task's score requires and that were not made."""
    scores_database: bool
    """Whether the task's score rests on the database; in telecom it does not."""
    scorer_reward: float
    """The bench's reward for the state reached and the agent's texts."""

    @property
    def missed(self) -> tuple[ActionMatch, ...]:
        """Reference actions that were not made."""
        return tuple(match for match in self.actions if match.status is not ActionStatus.MADE)

    @property
    def causes(self) -> tuple[str, ...]:
        """What the score was lost by: of `database`, `information`, `environment`, `actions`; empty when it passes."""
        by_cause = {
            "database": self.fields if self.scores_database else (),
            "information": self.missing_information,
            "environment": self.failed_assertions,
            "actions": self.missing_actions,
        }
        return tuple(cause for cause, shown in by_cause.items() if shown)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain JSON values."""
        row = asdict(self)
        for field_row, difference in zip(row["fields"], self.fields, strict=True):
            field_row["error"] = difference.error.value
        return row | {"causes": list(self.causes)}


def analyze_failure(domain: Domain, task: Task, actions: Sequence[TrajectoryAction]) -> FailureAnalysis:
    """Return why a conversation got its reward, from a replay of what it did: `Conversation.actions`."""
    done = replay(domain, task, actions)
    start, expected = dict(domain.env_state(task).changes()), domain.expected(task)
    info = done.reward.info
    _, answers = domain.play_reference(task)
    refused_anyway = [index for index, answer in enumerate(answers) if answer.error]
    matches, writes = match_actions(task.reference, done.steps, refused_anyway)
    return FailureAnalysis(
        fields=() if expected is None else field_differences(domain, start, expected, done.changes),
        actions=matches,
        unexpected_writes=tuple(f"{step.action.call}({step.action.arguments})" for step in writes),
        missing_information=tuple(map(str, info.get("missing_info") or ())),
        failed_assertions=tuple(
            str(assertion.get("assertion") or assertion)
            for assertion in info.get("assertions") or ()
            if isinstance(assertion, Mapping) and not assertion.get("met")
        ),
        missing_actions=tuple(map(str, info.get("missing_actions") or ())),
        scores_database="DB" in basis_of(task),
        scorer_reward=done.reward.value,
    )
