"""Strict validation, with errors that say file and line, what was given and what is allowed."""

from __future__ import annotations

import json
import re
import types
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tautools.errors import ParamsError, did_you_mean
from tautools.params.yaml import ParamsTree, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

    from tautools.params.yaml import KeyPath

P = TypeVar("P", bound=BaseModel)

_AGENT = re.compile(r"grid\.agent\.\d+")
_TYPE_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    list: "a list, such as [a, b]",
    dict: "keys with values",
}
_BOUND_WORDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


class _Mistake(NamedTuple):
    where: str
    problem: str
    keys: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.problem}"


class _SchemaNode(NamedTuple):
    """One value in a schema: the type expected there, and the field that holds it."""

    annotation: Any
    field: FieldInfo | None = None

    @property
    def keys(self) -> list[str]:
        """Names that may be written here; empty where any name may."""
        model = _model(self.annotation)
        return list(model.model_fields) if model else []


def validated(model: type[P], data: Any, tree: ParamsTree) -> P:
    """Return `data` as a value of `model`.

    Parameters
    ----------
    model : type
        What was meant to be written.
    data
        The tree's data, expanded.
    tree : ParamsTree
        Where each value came from.

    Raises
    ------
    ParamsError
        For every mistake at once: unknown keys with the nearest known one, wrong types and values.
    """
    if not isinstance(data, dict):
        raise ParamsError(
            f"{tree.where(())}: {_shown(data)} was found where keys with values belong.",
            evidence=f"Keys: {', '.join(model.model_fields)}.",
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
    # One flag may make the same mistake in every agent of a grid; it is shown once.
    distinct = {_AGENT.sub("agent", str(each)): each for each in reversed(mistakes)}
    others = [f"Also: {each}" for each in reversed(distinct.values()) if each is not first]
    return ParamsError(
        str(first),
        evidence="\n".join(line for line in (first.keys, *others) if line),
        next_step="Correct them and run again." if others else "Correct it and run again; nothing was started.",
    )


def _mistake(model: type[BaseModel], error: ErrorDetails, tree: ParamsTree) -> _Mistake:
    path: KeyPath = tuple(error["loc"])
    name, kind, given = dotted(path), error["type"], error["input"]
    if kind == "extra_forbidden":
        keys = schema_node_at(model, path[:-1]).keys
        inside = f" in `{dotted(path[:-1])}`" if path[:-1] else ""
        problem = f"unknown key `{path[-1]}`{inside}.{did_you_mean(str(path[-1]), keys)}"
        return _Mistake(tree.where(path, of_key=True), problem, f"Keys{inside}: {', '.join(keys)}.")
    if kind == "value_error":
        problem = error["msg"].removeprefix("Value error, ")
        return _Mistake(tree.where(path), f"`{name}`: {problem}." if name else f"{problem}.")
    node = schema_node_at(model, path)
    if kind == "missing":
        return _Mistake(tree.where(path, of_key=True), f"`{name}` is missing; it must be {_allowed(node)}.")
    hint = did_you_mean(given, allowed_values(node.annotation)) if isinstance(given, str) else ""
    if kind == "string_type" and isinstance(given, bool | int | float):
        hint = f" Put it in quotes: {json.dumps(str(given))}."
    return _Mistake(tree.where(path), f"`{name}` is {_shown(given)}; it must be {_allowed(node)}.{hint}")


def _silent_mistakes(model: type[BaseModel], data: Any, tree: ParamsTree) -> Iterator[_Mistake]:
    """Yield what pydantic would let pass: true for a number, and a bare `off` where anything is allowed."""
    for path, value in _leaf_values(data, ()):
        annotation = schema_node_at(model, path).annotation
        if isinstance(value, bool) and without_none(annotation) in (int, float):
            yield _Mistake(tree.where(path), f"`{dotted(path)}` is {json.dumps(value)}; it must be a number.")
        if annotation is Any and (word := tree.old_booleans.get(path)):
            problem = f'is a bare `{word}`, a boolean to some and text to others. Write true or false, or "{word}".'
            yield _Mistake(tree.where(path), f"`{dotted(path)}` {problem}")


def _leaf_values(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if not isinstance(value, dict | list):
        yield path, value
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaf_values(each, (*path, key))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def schema_node_at(model: type[BaseModel], path: KeyPath) -> _SchemaNode:
    """Return what the schema says about a path; the last known value around it when it names nothing known."""
    node = _SchemaNode(model)
    for part in path:
        bare = without_none(node.annotation)
        if (inner := _model(bare)) is not None:
            field = inner.model_fields.get(str(part))
            if field is None:
                return node
            node = _SchemaNode(field.annotation, field)
        elif get_origin(bare) in (list, dict):
            item = get_args(bare)[-1]
            if get_origin(item) is Annotated:
                item, rule = get_args(item)[:2]
                node = _SchemaNode(item, rule if isinstance(rule, FieldInfo) else None)
            else:
                node = _SchemaNode(item)
        else:
            return _SchemaNode(Any) if bare is Any else node
    return node


def _allowed(node: _SchemaNode) -> str:
    """Return what is allowed for a value, such as `a number at least 0 and at most 2`."""
    if words := allowed_values(node.annotation):
        return f"one of {', '.join(words)}"
    if node.keys:
        return f"keys with values: {', '.join(node.keys)}"
    bare = without_none(node.annotation)
    rules = node.field.metadata if node.field else []
    bounds = [
        f" {word} {getattr(rule, name):g}"
        for rule in rules
        for name, word in _BOUND_WORDS.items()
        if isinstance(getattr(rule, name, None), int | float)
    ]
    pattern = any(getattr(rule, "pattern", None) for rule in rules)
    return (
        _TYPE_WORDS.get(get_origin(bare) or bare, "another value")
        + " and".join(bounds)
        + (" of letters, digits, `.`, `_` and `-`, 100 at most" if pattern else "")
    )


def allowed_values(annotation: Any) -> list[str]:
    """Return the words of an enumeration or of a literal; empty for other types."""
    bare = without_none(annotation)
    if get_origin(bare) is Literal:
        return [str(word) for word in get_args(bare)]
    return [str(member.value) for member in bare] if isinstance(bare, type) and issubclass(bare, Enum) else []


def without_none(annotation: Any) -> Any:
    """Return the type without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [each for each in get_args(annotation) if each is not type(None)]
        return inner[0] if len(inner) == 1 else annotation
    return annotation


def _model(annotation: Any) -> type[BaseModel] | None:
    bare = without_none(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None
