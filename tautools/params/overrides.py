"""`--set agent.temperature=0.2`: a dotted name and a value in YAML."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tautools.errors import ParamsError
from tautools.params.tree import Origin, OriginKind, Tree
from tautools.params.yaml_tree import read_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.params.yaml_tree import Trail

__all__ = ["Override", "apply_flags", "apply_overrides", "parse_override"]

_NAME = re.compile(r"[^\s.=]+(?:\.[^\s.=]+)*\Z")


@dataclass(frozen=True, slots=True)
class Override:
    """One value given on the command line."""

    trail: Trail
    value: Any
    origin: Origin
    old_booleans: tuple[tuple[Trail, str], ...] = ()


def parse_override(text: str) -> Override:
    """Read `name.of.key=value`, where the value is YAML.

    Raises
    ------
    ParamsError
        When there is no `=`, the name is not a dotted name, or the value is not YAML.
    """
    name, equals, value = text.partition("=")
    shown = f"--set {text}" if text.isprintable() else f"--set {text!r}"
    if not equals or not _NAME.match(name):
        raise ParamsError(
            f"{shown}: this does not read `key=value`.",
            next_step="Write it like `--set agent.temperature=0.2` or `--set grid.env=[airline]`.",
        )
    document = read_value(value, shown=shown)
    trail = tuple(int(part) if part.isdecimal() else part for part in name.split("."))
    old = tuple((trail + below, word) for below, word in document.old_booleans.items())
    return Override(trail, document.data, Origin(OriginKind.FLAG, shown), old)


def apply_overrides(tree: Tree, overrides: Sequence[str]) -> None:
    """Lay `--set` values over a tree; in a sweep, `agent.…` means every agent of the grid."""
    for text in overrides:
        override = parse_override(text)
        for trail in _trails(tree, override.trail):
            tree.put(trail, override.value, override.origin)
            shift = len(override.trail)
            tree.document.old_booleans |= {trail + below[shift:]: word for below, word in override.old_booleans}


def apply_flags(tree: Tree, flags: Mapping[str, Any], options: Mapping[str, str]) -> None:
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


def _trails(tree: Tree, trail: Trail) -> list[Trail]:
    grid = tree.data.get("grid") if isinstance(tree.data, dict) else None
    agents = grid.get("agent") if isinstance(grid, dict) else None
    if len(trail) > 1 and trail[0] == "agent" and isinstance(agents, list):
        return [("grid", "agent", index, *trail[1:]) for index in range(len(agents))]
    return [trail]
