"""YAML as a tree that knows where each key and value stands, read by the rules people expect.

PyYAML reads YAML 1.1, where `on` and `no` are booleans, `1:30` is ninety and `2026-01-01` a date. Here plain scalars
are read as in YAML 1.2: only `true`/`false` are booleans, numbers are decimal, hexadecimal (`0x`), octal (`0o`) or
floats (`1e-3` too), and everything else is text. A key written twice is an error, an alias that contains itself too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from tautools.errors import ParamsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Document", "Place", "Trail", "read_document", "read_value"]

Trail: TypeAlias = tuple[str | int, ...]
"""The way from the top of a tree to one value, such as `("grid", "agent", 0)`."""

_MOST_NODES = 100_000
"""Aliases of aliases can make a small file huge; no file that a person writes has so many values."""

_MOST_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was written."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(slots=True)
class Document:
    """What a file says, and where it says it."""

    file: str
    data: Any = None
    values: dict[Trail, Place] = field(default_factory=dict)
    """Where each value begins."""
    keys: dict[Trail, Place] = field(default_factory=dict)
    """Where each key begins."""
    old_booleans: dict[Trail, str] = field(default_factory=dict)
    """Plain `on`, `off`, `yes`, `no`: booleans to some readers of YAML, text to others."""

    def place(self, trail: Trail, *, of_key: bool = False) -> Place:
        """Return where `trail` stands, or the nearest thing around it that stands in the file."""
        while trail:
            first, second = (self.keys, self.values) if of_key else (self.values, self.keys)
            found = first.get(trail) or second.get(trail)
            if found is not None:
                return found
            trail = trail[:-1]
        return self.values.get((), Place(self.file, 1, 1))


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner and parser, with the scalars of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {}


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
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))

_OLD_BOOLEAN = re.compile(r"(?:on|off|yes|no|y|n)\Z", re.IGNORECASE)


def read_document(path: Path, *, shown: str | None = None) -> Document:
    """Read one YAML file.

    Parameters
    ----------
    path : Path
        The file.
    shown : str, optional
        How errors name it; its path by default.

    Raises
    ------
    ParamsError
        When the file cannot be read, is not UTF-8 or not YAML, has a key twice or says nothing.
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
    return _read(text, name)


def read_value(text: str, *, shown: str) -> Document:
    """Read one value in YAML, such as the right side of `--set a.b=0.2`."""
    return _read(text, shown)


def _read(text: str, name: str) -> Document:
    document = Document(name)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ParamsError(
            f"{name}{at}: this is not YAML: {what}.",
            evidence=mark.get_snippet() or "" if mark is not None else "",
            next_step="Mend the line: check indentation (spaces, no tabs), colons and quotes.",
        ) from error
    except RecursionError as error:
        raise ParamsError(f"{name} is nested too deeply.", next_step="Write it flatter.") from error
    if node is not None:
        _Reader(document).read(node)
    return document


class _Reader:
    """Walks the nodes of one document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._count = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node) -> None:
        self.document.data = self._value(node, ())

    def _value(self, node: yaml.Node, trail: Trail) -> Any:
        self.document.values[trail] = self._place(node)
        self._count += 1
        if id(node) in self._open or self._count > _MOST_NODES:
            raise self._error(node, "an alias here contains itself or unfolds to too much", "Write the values out.")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, trail)
            if isinstance(node, yaml.SequenceNode):
                self._check_tag(node, "seq")
                return [self._value(item, (*trail, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, trail)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, trail: Trail) -> dict[str, Any]:
        self._check_tag(node, "map")
        data: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            name = self._key(key)
            if name in data:
                first = self.document.keys[(*trail, name)].line
                raise self._error(key, f"the key `{name}` was already written in line {first}", "Keep one of the two.")
            self.document.keys[(*trail, name)] = self._place(key)
            data[name] = self._value(value, (*trail, name))
        for each in merged:
            self._merge(each, data, trail)
        return data

    def _merge(self, node: yaml.Node, data: dict[str, Any], trail: Trail) -> None:
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, "`<<` takes a mapping", "Write `<<: *name`, where `&name` marks a mapping.")
        for key, value in node.value:
            name = self._key(key)
            if name not in data:
                self.document.keys[(*trail, name)] = self._place(key)
                data[name] = self._value(value, (*trail, name))

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._error(node, "a key must be a word", "Write `key: value`.")
        return str(node.value)

    def _scalar(self, node: yaml.Node, trail: Trail) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if kind == "str":
            if isinstance(node, yaml.ScalarNode) and node.style is None and _OLD_BOOLEAN.match(text):
                self.document.old_booleans[trail] = text
            return text
        readers = {"null": _null, "bool": _bool, "int": _int, "float": _float}
        if kind not in readers:
            raise self._error(node, f"the tag {node.tag} is not understood", "Remove the tag.")
        try:
            return readers[kind](text)
        except (ValueError, KeyError) as error:
            raise self._error(node, f"`{text}` is not what its tag says", "Remove the tag.") from error

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            raise self._error(node, f"the tag {node.tag} is not understood", "Remove the tag.")

    def _place(self, node: yaml.Node) -> Place:
        return Place(self.document.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _error(self, node: yaml.Node, what: str, next_step: str) -> ParamsError:
        snippet = node.start_mark.get_snippet() or ""
        return ParamsError(f"{self._place(node)}: {what}.", evidence=snippet, next_step=next_step)


def _null(_text: str) -> None:
    return None


def _bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _int(text: str) -> int:
    if len(text) > 100:
        raise ValueError(text)
    return int(text, 0)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
