"""YAML as a tree that knows where each key and value stands, with flags and `--set` values laid over it.

Plain scalars are read as in YAML 1.2: only `true`/`false` are booleans, numbers are decimal, hexadecimal (`0x`), octal
(`0o`) or floats (`1e-3` too), and everything else is text. PyYAML alone reads YAML 1.1, where `on` and `no` are
booleans, `1:30` is ninety and `2026-01-01` a date. A key written twice is an error, an alias that contains itself too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from tautools.errors import ParamsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


KeyPath: TypeAlias = tuple[str | int, ...]
"""The way from the top of a tree to one value, such as `("grid", "agent", 0)`."""

_MOST_NODES = 100_000
"""Aliases of aliases can make a small file huge; no file that a person writes has so many values."""

_MOST_BYTES = 4_000_000


@dataclass(frozen=True, slots=True)
class SourceLocation:
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
    values: dict[KeyPath, SourceLocation] = field(default_factory=dict)
    """Where each value begins."""
    keys: dict[KeyPath, SourceLocation] = field(default_factory=dict)
    """Where each key begins."""
    old_booleans: dict[KeyPath, str] = field(default_factory=dict)
    """Plain `on`, `off`, `yes`, `no`: booleans to some readers of YAML, text to others."""

    def place(self, trail: KeyPath, *, of_key: bool = False) -> SourceLocation:
        """Return where `trail` stands, or the nearest thing around it that stands in the file."""
        while trail:
            first, second = (self.keys, self.values) if of_key else (self.values, self.keys)
            found = first.get(trail) or second.get(trail)
            if found is not None:
                return found
            trail = trail[:-1]
        return self.values.get((), SourceLocation(self.file, 1, 1))


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
    return _parse(text, name)


def read_value(text: str, *, shown: str) -> Document:
    """Read one value in YAML, such as the right side of `--set a.b=0.2`."""
    return _parse(text, shown)


def _parse(text: str, name: str) -> Document:
    document = Document(name)
    try:
        loader = _Yaml12Loader(text)
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
        _NodeReader(document).read(node)
    return document


class _NodeReader:
    """Walks the nodes of one document."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self._count = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node) -> None:
        self.document.data = self._value(node, ())

    def _value(self, node: yaml.Node, trail: KeyPath) -> Any:
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

    def _mapping(self, node: yaml.MappingNode, trail: KeyPath) -> dict[str, Any]:
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

    def _merge(self, node: yaml.Node, data: dict[str, Any], trail: KeyPath) -> None:
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

    def _scalar(self, node: yaml.Node, trail: KeyPath) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        text = str(node.value)
        if kind == "str":
            if isinstance(node, yaml.ScalarNode) and node.style is None and _OLD_BOOLEAN.match(text):
                self.document.old_booleans[trail] = text
            return text
        readers = {"null": _read_null, "bool": _read_bool, "int": _read_int, "float": _read_float}
        if kind not in readers:
            raise self._error(node, f"the tag {node.tag} is not understood", "Remove the tag.")
        try:
            return readers[kind](text)
        except (ValueError, KeyError) as error:
            raise self._error(node, f"`{text}` is not what its tag says", "Remove the tag.") from error

    def _check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            raise self._error(node, f"the tag {node.tag} is not understood", "Remove the tag.")

    def _place(self, node: yaml.Node) -> SourceLocation:
        return SourceLocation(self.document.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def _error(self, node: yaml.Node, what: str, next_step: str) -> ParamsError:
        snippet = node.start_mark.get_snippet() or ""
        return ParamsError(f"{self._place(node)}: {what}.", evidence=snippet, next_step=next_step)


def _read_null(_text: str) -> None:
    return None


def _read_bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _read_int(text: str) -> int:
    if len(text) > 100:
        raise ValueError(text)
    return int(text, 0)


def _read_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


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
    """`file:line:column`, or the flag as it was typed."""

    def __str__(self) -> str:
        return self.place or self.kind.value


DEFAULT = Origin(OriginKind.DEFAULT)


def dotted(trail: KeyPath) -> str:
    """Return a trail as people write it: `grid.agent.0.model`."""
    return ".".join(str(part) for part in trail)


@dataclass
class ParamsTree:
    """Mappings and scalars as written, with the flags that changed them."""

    document: Document
    flags: dict[KeyPath, Origin] = field(default_factory=dict)
    noted: dict[KeyPath, Origin] = field(default_factory=dict)
    """Values that neither a file nor a flag gave, such as a name taken from the file's."""

    @property
    def data(self) -> Any:
        """The tree itself."""
        return self.document.data

    def put(self, trail: KeyPath, value: Any, origin: Origin) -> None:
        """Set the value at `trail`, making the mappings on the way to it.

        Raises
        ------
        ParamsError
            When the way leads through something that is not a mapping or beyond the end of a list.
        """
        around = self._around(trail, origin)
        last = trail[-1]
        self._forget(trail)
        if isinstance(around, list):
            around[_list_index(around, last, trail, origin)] = value
        else:
            around[str(last)] = value
        self.flags[trail] = origin

    def origin(self, trail: KeyPath) -> Origin:
        """Return where the value at exactly this trail, or the nearest one around it, came from."""
        while trail:
            if trail in self.flags:
                return self.flags[trail]
            if trail in self.noted:
                return self.noted[trail]
            if trail in self.document.values:
                return Origin(OriginKind.FILE, str(self.document.place(trail, of_key=True)))
            trail = trail[:-1]
        return DEFAULT

    def origin_of_value(self, trail: KeyPath) -> Origin:
        """Return where the value at exactly this trail came from; the default when nobody wrote it."""
        written = trail in self.flags or trail in self.noted or trail in self.document.values
        origin = self.origin(trail) if written else DEFAULT
        below = [each for key, each in self.flags.items() if len(key) > len(trail) and key[: len(trail)] == trail]
        if not below:
            return origin
        places = ([str(origin)] if written else []) + [str(each) for each in below]
        return Origin(OriginKind.FLAG, ", ".join(dict.fromkeys(places)))

    def where(self, trail: KeyPath, *, of_key: bool = False) -> str:
        """Return the place to name in an error about `trail`."""
        origin = self.origin(trail)
        if origin.kind is OriginKind.FLAG:
            return origin.place
        return str(self.document.place(trail, of_key=of_key))

    def _around(self, trail: KeyPath, origin: Origin) -> Any:
        if not isinstance(self.document.data, dict):
            self.document.data = {}
        around: Any = self.document.data
        for depth, part in enumerate(trail[:-1], start=1):
            if isinstance(around, list):
                around = around[_list_index(around, part, trail, origin)]
            else:
                if around.get(str(part)) is None:
                    around[str(part)] = {}
                    self.flags[trail[:depth]] = origin
                around = around[str(part)]
            if not isinstance(around, dict | list):
                raise ParamsError(
                    f"{origin}: `{dotted(trail[:depth])}` is {around!r} and has no `{trail[depth]}`.",
                    next_step=f"Set `{dotted(trail[:depth])}` itself, or correct the name.",
                )
        return around

    def _forget(self, trail: KeyPath) -> None:
        depth = len(trail)
        below = {key for places in self._places() for key in places if key[:depth] == trail}
        for places in self._places():
            for key in below:
                places.pop(key, None)

    def _places(self) -> tuple[dict[KeyPath, Any], ...]:
        document = self.document
        return (document.values, document.keys, document.old_booleans, self.flags)


def _list_index(around: list[Any], part: str | int, trail: KeyPath, origin: Origin) -> int:
    text = str(part)
    if text.isdecimal() and int(text) < len(around):
        return int(text)
    raise ParamsError(
        f"{origin}: `{dotted(trail)}`: {text!r} is not a place in a list of {len(around)}.",
        next_step="Count from 0, or set the whole list: `--set key=[a, b]`.",
    )


_DOTTED_NAME = re.compile(r"[^\s.=]+(?:\.[^\s.=]+)*\Z")


@dataclass(frozen=True, slots=True)
class Override:
    """One value given on the command line."""

    trail: KeyPath
    value: Any
    origin: Origin
    old_booleans: tuple[tuple[KeyPath, str], ...] = ()


def parse_override(text: str) -> Override:
    """Read `name.of.key=value`, where the value is YAML.

    Raises
    ------
    ParamsError
        When there is no `=`, the name is not a dotted name, or the value is not YAML.
    """
    name, equals, value = text.partition("=")
    shown = f"--set {text}" if text.isprintable() else f"--set {text!r}"
    if not equals or not _DOTTED_NAME.match(name):
        raise ParamsError(
            f"{shown}: this does not read `key=value`.",
            next_step="Write it like `--set agent.temperature=0.2` or `--set grid.env=[airline]`.",
        )
    document = read_value(value, shown=shown)
    trail = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
    old = tuple((trail + below, word) for below, word in document.old_booleans.items())
    return Override(trail, document.data, Origin(OriginKind.FLAG, shown), old)


def apply_overrides(tree: ParamsTree, overrides: Sequence[str]) -> None:
    """Lay `--set` values over a tree; in a sweep, `agent.…` means every agent of the grid."""
    for text in overrides:
        override = parse_override(text)
        for trail in _override_paths(tree, override.trail):
            tree.put(trail, override.value, override.origin)
            shift = len(override.trail)
            tree.document.old_booleans |= {trail + below[shift:]: word for below, word in override.old_booleans}


def apply_flags(tree: ParamsTree, flags: Mapping[str, Any], options: Mapping[str, str]) -> None:
    """Lay the values of named options over a tree; None means that the option was not given.

    Parameters
    ----------
    tree : Tree
        What a file said.
    flags : mapping
        Dotted name to value, such as `{"agent.model": "m"}`.
    options : mapping
        Dotted name to the option's own name, such as `{"agent.model": "--model"}`.
    """
    for name, value in flags.items():
        if value is not None:
            option = options.get(name, f"--{name}")
            tree.put(tuple(name.split(".")), value, Origin(OriginKind.FLAG, option))


def _override_paths(tree: ParamsTree, trail: KeyPath) -> list[KeyPath]:
    grid = tree.data.get("grid") if isinstance(tree.data, dict) else None
    agents = grid.get("agent") if isinstance(grid, dict) else None
    if len(trail) > 1 and trail[0] == "agent" and isinstance(agents, list):
        return [("grid", "agent", index, *trail[1:]) for index in range(len(agents))]
    return [trail]
