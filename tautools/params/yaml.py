"""YAML as a tree that knows where each key and value was written, with flags and `--set` values laid over it.

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
_DOTTED_NAME = re.compile(r"[^\s.=]+(?:\.[^\s.=]+)*\Z")


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
        parent = self._parent(path, origin)
        for table in (self.origins, self.old_booleans):
            for key in [key for key in table if key[: len(path)] == path]:
                del table[key]
        parent[_key_in(parent, path[-1], path, origin)] = value
        self.origins[path] = origin

    def origin(self, path: KeyPath) -> Origin:
        """Return where the value at exactly this path, or the nearest one around it, came from."""
        while path:
            if path in self.origins:
                return self.origins[path]
            path = path[:-1]
        return DEFAULT

    def origin_of_value(self, path: KeyPath) -> Origin:
        """Return where the value at exactly this path came from; the default when nobody wrote it."""
        own = self.origins.get(path, DEFAULT)
        flags = [
            each.place
            for key, each in self.origins.items()
            if len(key) > len(path) and key[: len(path)] == path and each.kind is OriginKind.FLAG
        ]
        if not flags:
            return own
        return Origin(OriginKind.FLAG, ", ".join(dict.fromkeys([str(own), *flags] if path in self.origins else flags)))

    def where(self, path: KeyPath, *, of_key: bool = False) -> str:
        """Return the place to name in an error about `path`."""
        for depth in range(len(path), -1, -1):
            origin = self.origins.get(path[:depth], DEFAULT)
            if origin.kind is not OriginKind.DEFAULT:
                return origin.place if of_key or not origin.value_place else origin.value_place
        return f"{self.file}:1:1"

    def _parent(self, path: KeyPath, origin: Origin) -> Any:
        if not isinstance(self.data, dict):
            self.data = {}
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
        return parent


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


def apply_overrides(tree: ParamsTree, overrides: Sequence[str]) -> None:
    """Lay `--set` values, `name.of.key=value` with a value in YAML, over a tree.

    In a sweep, `agent.…` means every agent of the grid.

    Raises
    ------
    ParamsError
        When a text has no `=`, its name is not a dotted name, or its value is not YAML.
    """
    for text in overrides:
        name, equals, value = text.partition("=")
        shown = f"--set {text}" if text.isprintable() else f"--set {text!r}"
        if not equals or not _DOTTED_NAME.match(name):
            raise ParamsError(
                f"{shown}: this does not read `key=value`.",
                next_step="Write it like `--set agent.temperature=0.2` or `--set grid.env=[airline]`.",
            )
        written = read_value(value, shown=shown)
        path = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
        for target in _override_targets(tree, path):
            tree.put(target, written.data, Origin(OriginKind.FLAG, shown))
            tree.old_booleans |= {target + below: word for below, word in written.old_booleans.items()}


def apply_flags(tree: ParamsTree, flags: Mapping[str, Any], options: Mapping[str, str]) -> None:
    """Lay the values of named options over a tree; None means that the option was not given.

    Parameters
    ----------
    tree : ParamsTree
        What a file said.
    flags : mapping
        Dotted name to value, such as `{"agent.model": "m"}`.
    options : mapping
        Dotted name to the option's own name, such as `{"agent.model": "--model"}`.
    """
    for name, value in flags.items():
        if value is not None:
            tree.put(tuple(name.split(".")), value, Origin(OriginKind.FLAG, options.get(name, f"--{name}")))


def _override_targets(tree: ParamsTree, path: KeyPath) -> list[KeyPath]:
    grid = tree.data.get("grid") if isinstance(tree.data, dict) else None
    agents = grid.get("agent") if isinstance(grid, dict) else None
    if len(path) > 1 and path[0] == "agent" and isinstance(agents, list):
        return [("grid", "agent", index, *path[1:]) for index in range(len(agents))]
    return [path]


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
    try:
        node = yaml.compose(text, Loader=_Yaml12Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise ParamsError(
            f"{shown}{at}: this is not YAML: {problem}.",
            evidence=mark.get_snippet() or "" if mark is not None else "",
            next_step="Correct the line: check indentation (spaces, no tabs), colons and quotes.",
        ) from error
    except RecursionError as error:
        raise ParamsError(f"{shown} is nested too deeply.", next_step="Write it flatter.") from error
    tree = ParamsTree(shown)
    if node is not None:
        tree.data = _NodeReader(tree).read(node, ())
    return tree


class _NodeReader:
    """Turns the nodes of one document into plain data, and notes in the tree where each was written."""

    def __init__(self, tree: ParamsTree) -> None:
        self._tree = tree
        self._count = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node, path: KeyPath, key: yaml.Node | None = None) -> Any:
        self._tree.origins[path] = Origin(OriginKind.FILE, self._place(key or node), self._place(node))
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

    def _place(self, node: yaml.Node) -> str:
        return f"{self._tree.file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"

    def _error(self, node: yaml.Node, problem: str, next_step: str) -> ParamsError:
        snippet = node.start_mark.get_snippet() or ""
        return ParamsError(f"{self._place(node)}: {problem}.", evidence=snippet, next_step=next_step)


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
