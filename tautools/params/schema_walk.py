"""What a model of params says about the value at a trail: its type, its bounds, its neighbours."""

from __future__ import annotations

import types
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from tautools.params.yaml_tree import Trail

__all__ = ["Spot", "allowed_words", "describe", "spot_at"]


class Spot:
    """One place in a schema: the type expected there, and the field that holds it."""

    def __init__(self, annotation: Any, field: FieldInfo | None) -> None:
        self.annotation = annotation
        self.field = field

    @property
    def keys(self) -> list[str]:
        """Names that may be written here; empty where any name may."""
        model = _model(self.annotation)
        return list(model.model_fields) if model else []


def spot_at(model: type[BaseModel], trail: Trail) -> Spot:
    """Return what the schema says about `trail`; the last known place around it when it names nothing known."""
    spot = Spot(model, None)
    for part in trail:
        inner = _model(spot.annotation)
        if inner is not None:
            field = inner.model_fields.get(str(part))
            if field is None:
                return spot
            spot = Spot(field.annotation, field)
            continue
        bare = _bare(spot.annotation)
        if get_origin(bare) in (list, dict):
            spot = _item(get_args(bare)[-1])
        else:
            return Spot(Any, None) if bare is Any else spot
    return spot


def allowed_words(annotation: Any) -> list[str]:
    """Return the words of an enumeration or of a literal; empty for other types."""
    bare = _bare(annotation)
    if get_origin(bare) is Literal:
        return [str(word) for word in get_args(bare)]
    if isinstance(bare, type) and issubclass(bare, Enum):
        return [str(member.value) for member in bare]
    return []


def describe(spot: Spot) -> str:
    """Return what is allowed at a place, such as `a number from 0 to 2`."""
    words = allowed_words(spot.annotation)
    if words:
        return f"one of {', '.join(words)}"
    bare = _bare(spot.annotation)
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


def _item(annotation: Any) -> Spot:
    if get_origin(annotation) is Annotated:
        inner, rule = get_args(annotation)[:2]
        return Spot(inner, rule if isinstance(rule, FieldInfo) else None)
    return Spot(annotation, None)


def _bare(annotation: Any) -> Any:
    """Return the type without `| None`."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [each for each in get_args(annotation) if each is not type(None)]
        return inner[0] if len(inner) == 1 else annotation
    return annotation


def _model(annotation: Any) -> type[BaseModel] | None:
    bare = _bare(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None
