"""A value that fits a JSON schema, taken from what was said where that is possible."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SchemaFiller"]

_FORMATS = {
    "date": "2024-05-15",
    "date-time": "2024-05-15T15:00:00Z",
    "time": "15:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_DEEPEST = 8


class SchemaFiller:
    """Fills schemas with the names and numbers of a text, each used once, in their order.

    Parameters
    ----------
    text : str
        What was said; "Paris" and 17 in it become arguments where the schema takes them.
    root : mapping
        The outermost schema, for `$ref`.
    """

    def __init__(self, text: str, root: Mapping[str, Any]) -> None:
        self.text = text
        self.root = root
        self._numbers = re.findall(r"-?\d+(?:\.\d+)?", text)
        quoted = [a or b for a, b in re.findall(r"\"([^\"]+)\"|'([^']+)'", text)]
        # Ids such as #W0000000 come first, then names that do not open a sentence.
        ids = re.findall(r"#?\b[A-Z]+\d+\b", text)
        self._names = quoted + ids + re.findall(r"(?<![.!?] )(?<!^)\b[A-Z][a-z]+\b", text)

    def value(self, schema: Mapping[str, Any], depth: int = 0) -> Any:
        """Return a value that `schema` accepts."""
        schema = self._resolved(schema)
        if options := [schema["const"]] if "const" in schema else schema.get("enum"):
            return self._choice(options)
        kind = self._kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind in {"integer", "number"}:
            return self._number(schema, whole=kind == "integer")
        return self._words(schema) if kind == "string" else kind == "boolean" or None

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        for _ in range(_DEEPEST):
            if "$ref" in schema:
                found: Any = self.root
                for key in filter(None, str(schema["$ref"]).lstrip("#").split("/")):
                    found = found[key]
                schema = found
            elif options := schema.get("anyOf") or schema.get("oneOf"):
                plain = [option for option in options if option.get("type") != "null"]
                schema = (plain or options)[0]
            elif schema.get("allOf"):
                schema = _merged(schema)
            else:
                break
        return schema

    def _kind(self, schema: Mapping[str, Any]) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((item for item in kind if item != "null"), "null")
        return str(kind or ("object" if "properties" in schema else "string"))

    def _choice(self, options: list[Any]) -> Any:
        said = self.text.lower()
        return next((option for option in options if str(option).lower() in said), options[0])

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required = schema.get("required", [])
        return {name: self.value(properties.get(name, {}), depth + 1) for name in required}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        # A schema that holds itself would never end.
        count = max(1, schema.get("minItems", 1)) if depth < _DEEPEST else 0
        return [self.value(schema.get("items") or {}, depth + 1) for _ in range(count)]

    def _number(self, schema: Mapping[str, Any], *, whole: bool) -> float:
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1 if "exclusiveMinimum" in schema else None)
        most = schema.get("maximum", schema.get("exclusiveMaximum", 0) - 1 if "exclusiveMaximum" in schema else None)
        said = self._numbers.pop(0) if self._numbers else "1"
        value = float(said)
        value = value if least is None else max(value, least)
        value = value if most is None else min(value, most)
        step = schema.get("multipleOf")
        if step:
            value = -(-value // step) * step
        return int(value) if whole or float(value).is_integer() else value

    def _words(self, schema: Mapping[str, Any]) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        words = self._names.pop(0) if self._names else "example"
        words = words.ljust(schema.get("minLength", 0), "x")
        return words[: schema.get("maxLength", len(words))]


def _merged(schema: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        for key, value in part.items():
            if key == "properties":
                merged["properties"] = {**merged.get("properties", {}), **value}
            elif key == "required":
                merged["required"] = [*merged.get("required", []), *value]
            else:
                merged.setdefault(key, value)
    return merged
