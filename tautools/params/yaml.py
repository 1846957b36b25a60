"""YAML as a tree that knows where each key and value was written, with flags and `--set` values laid over it.

Plain scalars are read as in YAML 1.2: only `true`/`false` are booleans, numbers are decimal, hexadecimal (`0x`), octal
(`0o`) or floats (`1e-3` too), and everything else is text. PyYAML alone reads YAML 1.1, where `on` and `no` are
booleans, `1:30` is ninety and `2026-01-01` a date. A key written twice is an error, an alias that contains itself too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tautools.errors import ParamsError, did_you_mean

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


P = TypeVar("P", bound=BaseModel)

KeyPath: TypeAlias = tuple[str | int, ...]
"""The way from the top of a tree to one value, such as `("grid", "agent", 0)`."""

_MOST_NODES = 100_000
"""Aliases of aliases can make a small file huge; no file that a person writes has so many values."""
_MOST_BYTES = 4_000_000


class OriginKind(StrEnum):
    """What kind of place a value came from; later kinds win over earlier ones."""

    DEFAULT = "default"
    FILE = "file"
    FLAG = "flag"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from."""

    kind: OriginKind
    place: str = ""
    """`file:line:column` of its key, or the flag as it was typed."""
    value_place: str = ""
    """`file:line:column` of the value itself."""

    def __str__(self) -> str:
        return self.place or self.kind.value


DEFAULT = Origin(OriginKind.DEFAULT)


def dotted(path: KeyPath) -> str:
    """Return a path as people write it: `grid.agent.0.model`."""
    return ".".join(str(part) for part in path)


@dataclass
class ParamsTree:
    """Mappings and scalars as written in a file, changed by flags, and where each of them came from."""

    file: str
    data: Any = None
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    """Of every value that was written or noted."""
    old_booleans: dict[KeyPath, str] = field(default_factory=dict)
    """Plain `on`, `off`, `yes`, `no`: booleans to some readers of YAML, text to others."""

    def put(self, path: KeyPath, value: Any, origin: Origin) -> None:
        """Set the value at `path`, making the mappings on the way to it.

        Raises
        ------
        ParamsError
            When the way leads through something that is not a mapping or beyond the end of a list.
        """
        for table in (self.origins, self.old_booleans):
            for key in [key for key in table if key[: len(path)] == path]:
                del table[key]
        self.data = self.data if isinstance(self.data, dict) else {}
        parent: Any = self.data
        for depth, part in enumerate(path[:-1], start=1):
            key = _key_in(parent, part, path, origin)
            if isinstance(parent, dict) and parent.get(key) is None:
                parent[key] = {}
                self.origins[path[:depth]] = origin
            parent = parent[key]
            if not isinstance(parent, dict | list):
                raise ParamsError(
                    f"{origin}: `{dotted(path[:depth])}` is {parent!r} and has no `{path[depth]}`.",
                    next_step=f"Set `{dotted(path[:depth])}` itself, or correct the name.",
                )
        parent[_key_in(parent, path[-1], path, origin)] = value
        self.origins[path] = origin

    def origin(self, path: KeyPath) -> Origin:
        """Return where the value at exactly this path, or the nearest one around it, came from."""
        around = (path[:depth] for depth in range(len(path), 0, -1))
        return next((self.origins[each] for each in around if each in self.origins), DEFAULT)

    def origin_of_value(self, path: KeyPath) -> Origin:
        """Return where the value at exactly this path came from, flags that changed a part of it included."""
        places = [
            each.place
            for key, each in self.origins.items()
            if len(key) > len(path) and key[: len(path)] == path and each.kind is OriginKind.FLAG
        ]
        own = self.origins.get(path, DEFAULT)
        if not places:
            return own
        return Origin(OriginKind.FLAG, ", ".join(dict.fromkeys([str(own)] * (path in self.origins) + places)))

    def where(self, path: KeyPath, *, of_key: bool = False) -> str:
        """Return the place to name in an error about `path`."""
        around = (self.origins.get(path[:depth], DEFAULT) for depth in range(len(path), -1, -1))
        written = next((each for each in around if each.kind is not OriginKind.DEFAULT), None)
        if written is None:
            return f"{self.file}:1:1"
        return written.place if of_key else written.value_place or written.place


def _key_in(parent: Any, part: str | int, path: KeyPath, origin: Origin) -> Any:
    """Return a part of a path as the key of its mapping or the index of its list."""
    text = str(part)
    if isinstance(parent, dict):
        return text
    if text.isdecimal() and int(text) < len(parent):
        return int(text)
    raise ParamsError(
        f"{origin}: `{dotted(path)}`: {text!r} is not a place in a list of {len(parent)}.",
        next_step="Count from 0, or set the whole list: `--set key=[a, b]`.",
    )


class _Yaml12Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser, with the scalars of YAML 1.2."""


_Yaml12Loader.yaml_implicit_resolvers = {}
_FLOAT = (
    r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Yaml12Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))

_OLD_BOOLEAN = re.compile(r"(?:on|off|yes|no|y|n)\Z", re.IGNORECASE)


def read_document(path: Path, *, shown: str | None = None) -> ParamsTree:
    """Read one YAML file; errors name it as `shown`, by default by its path.

    Raises
    ------
    ParamsError
        When the file cannot be read, is not UTF-8 or not YAML, or has a key twice.
    """
    name = shown or str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ParamsError(
            f"{name} cannot be read.", evidence=str(error), next_step="Check the path and its permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise ParamsError(
            f"{name} is not text in UTF-8.", evidence=str(error), next_step="Save the file as UTF-8."
        ) from error
    if len(raw) > _MOST_BYTES:
        raise ParamsError(f"{name} is larger than 4 MB.", next_step="Check that this is the file you meant.")
    return read_value(text, shown=name)


def read_value(text: str, *, shown: str) -> ParamsTree:
    """Read YAML text, such as the right side of `--set a.b=0.2`; errors name it as `shown`."""
    tree = ParamsTree(shown)
    try:
        node = yaml.compose(text, Loader=_Yaml12Loader)
        if node is not None:
            tree.data = _NodeReader(tree).read(node, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ParamsError(
            f"{shown}{_at(mark) if mark else ''}: this is not YAML: {problem}.",
            evidence=mark.get_snippet() or "" if mark else "",
            next_step="Correct the line: check indentation (spaces, no tabs), colons and quotes.",
        ) from error
    except RecursionError as error:
        raise ParamsError(f"{shown} is nested too deeply.", next_step="Write it flatter.") from error
    return tree


def _at(mark: yaml.Mark) -> str:
    return f":{mark.line + 1}:{mark.column + 1}"


class _NodeReader:
    """Turns the nodes of one document into plain data, and notes in the tree where each was written."""

    def __init__(self, tree: ParamsTree) -> None:
        self._tree = tree
        self._count = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node, path: KeyPath, key: yaml.Node | None = None) -> Any:
        places = [self._tree.file + _at(each.start_mark) for each in (key or node, node)]
        self._tree.origins[path] = Origin(OriginKind.FILE, *places)
        self._count += 1
        if id(node) in self._open or self._count > _MOST_NODES:
            raise self._error(node, "an alias here contains itself or unfolds to too much", "Write the values out.")
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        fitting = {"map"} if isinstance(node, yaml.MappingNode) else {"seq"}
        if kind not in (_SCALARS if isinstance(node, yaml.ScalarNode) else fitting):
            raise self._error(node, f"the tag {node.tag} is not understood", "Remove the tag.")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, kind, path)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        data: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            name = self._key(key)
            if name in data:
                line = self._tree.origins[(*path, name)].place.rsplit(":", 2)[1]
                raise self._error(key, f"the key `{name}` was already written in line {line}", "Keep one of the two.")
            data[name] = self.read(value, (*path, name), key)
        for each in merged:
            if not isinstance(each, yaml.MappingNode):
                raise self._error(each, "`<<` takes a mapping", "Write `<<: *name`, where `&name` marks a mapping.")
            for key, value in each.value:
                name = self._key(key)
                if name not in data:
                    data[name] = self.read(value, (*path, name), key)
        return data

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a key must be a word", "Write `key: value`.")
        return str(node.value)

    def _scalar(self, node: yaml.Node, kind: str, path: KeyPath) -> Any:
        text = str(node.value)
        if kind == "str" and getattr(node, "style", None) is None and _OLD_BOOLEAN.match(text):
            self._tree.old_booleans[path] = text
        try:
            return _SCALARS[kind](text)
        except (ValueError, KeyError) as error:
            raise self._error(node, f"`{text}` is not what its tag says", "Remove the tag.") from error

    def _error(self, node: yaml.Node, problem: str, next_step: str) -> ParamsError:
        place, snippet = self._tree.file + _at(node.start_mark), node.start_mark.get_snippet() or ""
        return ParamsError(f"{place}: {problem}.", evidence=snippet, next_step=next_step)


def _integer(text: str) -> int:
    if len(text) > 100:
        raise ValueError(text)
    return int(text, 0)


_SCALARS: dict[str, Any] = {
    "str": str,
    "null": lambda _text: None,
    "bool": lambda text: {"true": True, "false": False}[text.lower()],
    "int": _integer,
    "float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
}


_UNION_PART = re.compile(r"\[key\]|literal\[.*\]|constrained-\w+")
"""What pydantic adds to a path: which of several types it tried, or that it means the key."""
_AGENT = re.compile(r"grid\.agent\.\d+")
_TYPE_WORDS = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list, such as [a, b]",
    "object": "keys with values",
}
_BOUND_WORDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


class _Mistake(NamedTuple):
    text: str
    """Where it is and what is wrong."""
    keys: str = ""


def validated(model: type[P], data: Any, tree: ParamsTree) -> P:
    """Return `data`, the tree's data expanded, as a value of `model`.

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
    if value is not None and not mistakes:
        return value
    first, *_ = mistakes
    # One flag may make the same mistake in every agent of a grid; it is shown once.
    distinct = {_AGENT.sub("agent", each.text): each for each in reversed(mistakes)}
    others = [f"Also: {each.text}" for each in reversed(distinct.values()) if each is not first]
    raise ParamsError(
        first.text,
        evidence="\n".join(line for line in (first.keys, *others) if line),
        next_step="Correct them and run again." if others else "Correct it and run again; nothing was started.",
    )


def _mistake(model: type[BaseModel], error: ErrorDetails, tree: ParamsTree) -> _Mistake:
    path: KeyPath = tuple(part for part in error["loc"] if not _UNION_PART.fullmatch(str(part)))
    name, kind, given = dotted(path), error["type"], error["input"]
    if kind == "extra_forbidden":
        keys = list(schema_at(model, path[:-1]).get("properties", ()))
        inside = f" in `{dotted(path[:-1])}`" if path[:-1] else ""
        problem = f"unknown key `{path[-1]}`{inside}.{did_you_mean(str(path[-1]), keys)}"
        return _Mistake(f"{tree.where(path, of_key=True)}: {problem}", f"Keys{inside}: {', '.join(keys)}.")
    if kind == "value_error":
        problem = error["msg"].removeprefix("Value error, ")
        return _Mistake(f"{tree.where(path)}: {f'`{name}`: ' if name else ''}{problem}.")
    # pydantic's word for a name that is no key of a mapping
    schema = {"type": "string", "pattern": ""} if error["loc"][-1:] == ("[key]",) else schema_at(model, path)
    if kind == "missing":
        return _Mistake(f"{tree.where(path, of_key=True)}: `{name}` is missing; it must be {_allowed(schema)}.")
    hint = did_you_mean(given, schema.get("enum", ())) if isinstance(given, str) else ""
    if kind == "string_type" and isinstance(given, bool | int | float):
        hint = f" Put it in quotes: {json.dumps(str(given))}."
    return _Mistake(f"{tree.where(path)}: `{name}` is {_shown(given)}; it must be {_allowed(schema)}.{hint}")


def _silent_mistakes(model: type[BaseModel], data: Any, tree: ParamsTree) -> Iterator[_Mistake]:
    """Yield what pydantic would let pass: true for a number, and a bare `off` where anything is allowed."""
    for path, value in _booleans(data, ()):
        if schema_at(model, path).get("type") in {"integer", "number"}:
            yield _Mistake(f"{tree.where(path)}: `{dotted(path)}` is {json.dumps(value)}; it must be a number.")
    for path, word in tree.old_booleans.items():
        if not schema_at(model, path):
            problem = f'is a bare `{word}`, a boolean to some and text to others. Write true or false, or "{word}".'
            yield _Mistake(f"{tree.where(path)}: `{dotted(path)}` {problem}")


def _booleans(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, bool]]:
    if isinstance(value, bool):
        yield path, value
    elif isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _booleans(each, (*path, key))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def schema_at(model: type[BaseModel], path: KeyPath) -> dict[str, Any]:
    """Return the JSON schema of the value at a path, references and `| None` resolved.

    It is empty where anything is allowed, and that of the last known value around a path that names nothing known.
    """
    whole = _schema(model)
    node = whole
    for part in path:
        if node.get("type") not in {"object", "array"}:
            break
        others = (node.get("items"), node.get("additionalProperties"), *node.get("patternProperties", {}).values())
        inner = node.get("properties", {}).get(part) or next(filter(None, others), None)
        if not inner:
            break
        node = {} if inner is True else inner
        kinds = [each for each in node.get("anyOf", ()) if each.get("type") != "null"]
        if len(kinds) == 1:
            node = kinds[0] | {name: each for name, each in node.items() if name != "anyOf"}
        if "$ref" in node:
            node = whole["$defs"][node["$ref"].rpartition("/")[2]] | node
    return node


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _allowed(schema: dict[str, Any]) -> str:
    """Return what is allowed for a value, such as `a number at least 0 and at most 2`."""
    if "enum" in schema:
        return f"one of {', '.join(schema['enum'])}"
    if "const" in schema:
        return str(schema["const"])
    if "properties" in schema:
        return f"keys with values: {', '.join(schema['properties'])}"
    if "anyOf" in schema:
        return " or ".join(_allowed(each) for each in schema["anyOf"] if each.get("type") != "null")
    bounds = [f" {word} {schema[name]:g}" for name, word in _BOUND_WORDS.items() if name in schema]
    pattern = " of letters, digits, `.`, `_` and `-`, 100 at most" if "pattern" in schema else ""
    return _TYPE_WORDS.get(schema.get("type", ""), "another value") + " and".join(bounds) + pattern
