"""Strict validation, with errors that say file and line, what was given and what is allowed."""

from __future__ import annotations

import json
import re
import types
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tautools.errors import ParamsError
from tautools.params.find import did_you_mean
from tautools.params.yaml import ParamsTree, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

    from tautools.params.yaml import KeyPath


class SchemaNode:
    """One place in a schema: the type expected there, and the field that holds it."""

    def __init__(self, annotation: Any, field: FieldInfo | None) -> None:
        self.annotation = annotation
        self.field = field

    @property
    def keys(self) -> list[str]:
        """Names that may be written here; empty where any name may."""
        model = _model(self.annotation)
        return list(model.model_fields) if model else []


def schema_node_at(model: type[BaseModel], trail: KeyPath) -> SchemaNode:
    """Return what the schema says about `trail`; the last known place around it when it names nothing known."""
    spot = SchemaNode(model, None)
    for part in trail:
        inner = _model(spot.annotation)
        if inner is not None:
            field = inner.model_fields.get(str(part))
            if field is None:
                return spot
            spot = SchemaNode(field.annotation, field)
            continue
        bare = without_none(spot.annotation)
        if get_origin(bare) in (list, dict):
            spot = _item_node(get_args(bare)[-1])
        else:
            return SchemaNode(Any, None) if bare is Any else spot
    return spot


def allowed_values(annotation: Any) -> list[str]:
    """Return the words of an enumeration or of a literal; empty for other types."""
    bare = without_none(annotation)
    if get_origin(bare) is Literal:
        return [str(word) for word in get_args(bare)]
    if isinstance(bare, type) and issubclass(bare, Enum):
        return [str(member.value) for member in bare]
    return []


def describe_allowed(spot: SchemaNode) -> str:
    """Return what is allowed at a place, such as `a number from 0 to 2`."""
    words = allowed_values(spot.annotation)
    if words:
        return f"one of {', '.join(words)}"
    bare = without_none(spot.annotation)
    kind = get_origin(bare) or bare
    names = {
        int: "a whole number",
        float: "a number",
        str: "text",
        bool: "true or false",
        list: "a list, such as [a, b]",
        dict: "keys with values",
    }
    if _model(spot.annotation) is not None:
        return f"keys with values: {', '.join(spot.keys)}"
    return names.get(kind, "another value") + _bounds(spot.field)


def _bounds(field: FieldInfo | None) -> str:
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    found = [
        f" {word} {getattr(rule, name):g}"
        for rule in (field.metadata if field else [])
        for name, word in words.items()
        if isinstance(getattr(rule, name, None), int | float)
    ]
    patterns = [str(rule.pattern) for rule in (field.metadata if field else []) if getattr(rule, "pattern", None)]
    return " and".join(found) + (" of letters, digits, `.`, `_` and `-`, 100 at most" if patterns else "")


def _item_node(annotation: Any) -> SchemaNode:
    if get_origin(annotation) is Annotated:
        inner, rule = get_args(annotation)[:2]
        return SchemaNode(inner, rule if isinstance(rule, FieldInfo) else None)
    return SchemaNode(annotation, None)


def without_none(annotation: Any) -> Any:
    """Return the type without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [each for each in get_args(annotation) if each is not type(None)]
        return inner[0] if len(inner) == 1 else annotation
    return annotation


def _model(annotation: Any) -> type[BaseModel] | None:
    bare = without_none(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


P = TypeVar("P", bound=BaseModel)

_AGENT = re.compile(r"grid\.agent\.\d+")


class _Mistake(NamedTuple):
    where: str
    what: str
    keys: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def validated(model: type[P], data: Any, tree: ParamsTree) -> P:
    """Return `data` as a value of `model`.

    Parameters
    ----------
    model : type
        What was meant to be written.
    data
        The tree's data, expanded.
    tree : Tree
        Where each value came from.

    Raises
    ------
    ParamsError
        For every mistake at once: unknown keys with the nearest known one, wrong types and values.
    """
    if not isinstance(data, dict):
        wanted = ", ".join(model.model_fields)
        raise ParamsError(
            f"{tree.where(())}: {_shown(data)} was found where keys with values belong.",
            evidence=f"Keys: {wanted}.",
            next_step="Write `key: value` lines.",
        )
    mistakes = list(_silent_mistakes(model, data, tree))
    value: P | None = None
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        # A misspelt key comes first: it is often why another is missing.
        errors = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        mistakes = [_mistake(model, each, tree) for each in errors] + mistakes
    if value is None or mistakes:
        raise _error_of(mistakes)
    return value


def _error_of(mistakes: list[_Mistake]) -> ParamsError:
    first = mistakes[0]
    # One flag may make the same mistake in every agent of a grid; it is told once.
    told = {_AGENT.sub("agent", str(each)): each for each in reversed(mistakes)}
    others = [each for each in reversed(told.values()) if each is not first]
    evidence = [first.keys, *(f"Also: {each}" for each in others)]
    return ParamsError(
        str(first),
        evidence="\n".join(line for line in evidence if line),
        next_step="Correct it and run again; nothing was started." if not others else "Correct them and run again.",
    )


def _mistake(model: type[BaseModel], error: ErrorDetails, tree: ParamsTree) -> _Mistake:
    trail: KeyPath = tuple(error["loc"])
    name, kind = dotted(trail), error["type"]
    if kind == "extra_forbidden":
        keys = schema_node_at(model, trail[:-1]).keys
        inside = f" in `{dotted(trail[:-1])}`" if trail[:-1] else ""
        what = f"unknown key `{trail[-1]}`{inside}.{did_you_mean(str(trail[-1]), keys)}"
        return _Mistake(tree.where(trail, of_key=True), what, f"Keys{inside}: {', '.join(keys)}.")
    if kind == "missing":
        allowed = describe_allowed(schema_node_at(model, trail))
        return _Mistake(tree.where(trail, of_key=True), f"`{name}` is missing; it must be {allowed}.")
    if kind == "value_error":
        said = error["msg"].removeprefix("Value error, ")
        return _Mistake(tree.where(trail), f"`{name}`: {said}." if name else f"{said}.")
    spot = schema_node_at(model, trail)
    given = error["input"]
    hint = did_you_mean(given, allowed_values(spot.annotation)) if isinstance(given, str) else ""
    if kind == "string_type" and isinstance(given, bool | int | float):
        hint = f" Put it in quotes: {json.dumps(str(given))}."
    return _Mistake(tree.where(trail), f"`{name}` is {_shown(given)}; it must be {describe_allowed(spot)}.{hint}")


def _silent_mistakes(model: type[BaseModel], data: Any, tree: ParamsTree) -> Iterator[_Mistake]:
    """Yield what pydantic would let pass: true for a number, and a bare `off` where anything is allowed."""
    for trail, value in _leaf_values(data, ()):
        annotation = schema_node_at(model, trail).annotation
        if isinstance(value, bool) and annotation in (int, float, int | None, float | None):
            given = json.dumps(value)
            yield _Mistake(tree.where(trail), f"`{dotted(trail)}` is {given}; it must be a number.")
        if annotation is Any and trail in tree.old_booleans:
            word = tree.old_booleans[trail]
            yield _Mistake(
                tree.where(trail),
                f"`{dotted(trail)}` is a bare `{word}`, a boolean to some and text to others. "
                f'Write true or false, or "{word}".',
            )


def _leaf_values(value: Any, trail: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaf_values(each, (*trail, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaf_values(each, (*trail, index))
    else:
        yield trail, value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
