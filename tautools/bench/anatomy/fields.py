"""Which fields of which entities are not as the reference leaves them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.bench.types import Changes, Domain

__all__ = ["ABSENT", "FieldDifference", "Wrong", "field_differences"]

ABSENT = "(absent)"
"""Stands for a value where there is none: an entity or a field that is not there."""


class Wrong(StrEnum):
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
    def wrong(self) -> Wrong:
        """In which way."""
        if _text(self.actual) == _text(self.before):
            return Wrong.NOT_CHANGED
        return Wrong.CHANGED if _text(self.expected) == _text(self.before) else Wrong.OTHERWISE


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
        for path, values in _entity(domain, (table, key), (start, expected, actual))
    )


def _entity(
    domain: Domain, place: tuple[str, str], states: Sequence[Changes]
) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    text = domain.as_loaded(*place)
    loaded = ABSENT if text is None else json.loads(text)
    before, wanted, found = (_state(changes, place, loaded) for changes in states)
    yield from _leaves("", before, wanted, found)


def _state(changes: Changes, place: tuple[str, str], loaded: Any) -> Any:
    if place not in changes:
        return loaded
    text = changes[place]
    return ABSENT if text is None else json.loads(text)


def _leaves(path: str, before: Any, expected: Any, actual: Any) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """Walk down where both sides have the same kind of thing; yield the innermost values that differ."""
    if _text(expected) == _text(actual):
        return
    if isinstance(expected, dict) and isinstance(actual, dict):
        for name in dict.fromkeys([*expected, *actual]):
            yield from _leaves(_join(path, name), *(_get(each, name) for each in (before, expected, actual)))
    elif isinstance(expected, list) and isinstance(actual, list) and _of_objects(expected, actual):
        for index in range(max(len(expected), len(actual))):
            yield from _leaves(_join(path, index), *(_at(each, index) for each in (before, expected, actual)))
    else:
        yield path, (before, expected, actual)


def _of_objects(expected: list[Any], actual: list[Any]) -> bool:
    return all(isinstance(each, dict) for each in (*expected, *actual))


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _get(value: Any, name: str) -> Any:
    return value.get(name, ABSENT) if isinstance(value, dict) else ABSENT


def _at(value: Any, index: int) -> Any:
    return value[index] if isinstance(value, list) and index < len(value) else ABSENT


def _text(value: Any) -> str:
    # `2` and `2.0` are equal and make two databases.
    return json.dumps(value, sort_keys=True)
