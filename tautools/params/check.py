"""Strict validation, with errors that say file and line, what was given and what is allowed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from tautools.errors import ParamsError
from tautools.params.nearest import did_you_mean
from tautools.params.schema_walk import allowed_words, describe, spot_at
from tautools.params.tree import Tree, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

    from tautools.params.yaml_tree import Trail

__all__ = ["validated"]

P = TypeVar("P", bound=BaseModel)

_AGENT = re.compile(r"grid\.agent\.\d+")


class _Mistake(NamedTuple):
    where: str
    what: str
    keys: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def validated(model: type[P], data: Any, tree: Tree) -> P:
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
            f"{tree.where(())}: {_given(data)} was found where keys with values belong.",
            evidence=f"Keys: {wanted}.",
            next_step="Write `key: value` lines.",
        )
    mistakes = list(_traps(model, data, tree))
    value: P | None = None
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        # A misspelt key comes first: it is often why another is missing.
        errors = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        mistakes = [_mistake(model, each, tree) for each in errors] + mistakes
    if value is None or mistakes:
        raise _refusal(mistakes)
    return value


def _refusal(mistakes: list[_Mistake]) -> ParamsError:
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


def _mistake(model: type[BaseModel], error: ErrorDetails, tree: Tree) -> _Mistake:
    trail: Trail = tuple(error["loc"])
    name, kind = dotted(trail), error["type"]
    if kind == "extra_forbidden":
        keys = spot_at(model, trail[:-1]).keys
        inside = f" in `{dotted(trail[:-1])}`" if trail[:-1] else ""
        what = f"unknown key `{trail[-1]}`{inside}.{did_you_mean(str(trail[-1]), keys)}"
        return _Mistake(tree.where(trail, of_key=True), what, f"Keys{inside}: {', '.join(keys)}.")
    if kind == "missing":
        allowed = describe(spot_at(model, trail))
        return _Mistake(tree.where(trail, of_key=True), f"`{name}` is missing; it must be {allowed}.")
    if kind == "value_error":
        said = error["msg"].removeprefix("Value error, ")
        return _Mistake(tree.where(trail), f"`{name}`: {said}." if name else f"{said}.")
    spot = spot_at(model, trail)
    given = error["input"]
    hint = did_you_mean(given, allowed_words(spot.annotation)) if isinstance(given, str) else ""
    if kind == "string_type" and isinstance(given, bool | int | float):
        hint = f" Put it in quotes: {json.dumps(str(given))}."
    return _Mistake(tree.where(trail), f"`{name}` is {_given(given)}; it must be {describe(spot)}.{hint}")


def _traps(model: type[BaseModel], data: Any, tree: Tree) -> Iterator[_Mistake]:
    """Yield what pydantic would let pass: true for a number, and a bare `off` where anything is allowed."""
    for trail, value in _leaves(data, ()):
        annotation = spot_at(model, trail).annotation
        if isinstance(value, bool) and annotation in (int, float, int | None, float | None):
            given = json.dumps(value)
            yield _Mistake(tree.where(trail), f"`{dotted(trail)}` is {given}; it must be a number.")
        if annotation is Any and trail in tree.document.old_booleans:
            word = tree.document.old_booleans[trail]
            yield _Mistake(
                tree.where(trail),
                f"`{dotted(trail)}` is a bare `{word}`, a boolean to some and text to others. "
                f'Write true or false, or "{word}".',
            )


def _leaves(value: Any, trail: Trail) -> Iterator[tuple[Trail, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, (*trail, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _leaves(each, (*trail, index))
    else:
        yield trail, value


def _given(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
