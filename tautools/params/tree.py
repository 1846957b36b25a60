"""What was written for one set of params, laid over each other: a file, then flags; and where each value came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tautools.errors import ParamsError

if TYPE_CHECKING:
    from tautools.params.yaml_tree import Document, Trail

__all__ = ["DEFAULT", "Origin", "OriginKind", "Tree", "dotted"]


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


def dotted(trail: Trail) -> str:
    """Return a trail as people write it: `grid.agent.0.model`."""
    return ".".join(str(part) for part in trail)


@dataclass
class Tree:
    """Mappings and scalars as written, with the flags that changed them."""

    document: Document
    flags: dict[Trail, Origin] = field(default_factory=dict)
    noted: dict[Trail, Origin] = field(default_factory=dict)
    """Values that neither a file nor a flag gave, such as a name taken from the file's."""

    @property
    def data(self) -> Any:
        """The tree itself."""
        return self.document.data

    def put(self, trail: Trail, value: Any, origin: Origin) -> None:
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
            around[_index(around, last, trail, origin)] = value
        else:
            around[str(last)] = value
        self.flags[trail] = origin

    def origin(self, trail: Trail) -> Origin:
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

    def origin_of_value(self, trail: Trail) -> Origin:
        """Return where the value at exactly this trail came from; the default when nobody wrote it."""
        written = trail in self.flags or trail in self.noted or trail in self.document.values
        origin = self.origin(trail) if written else DEFAULT
        below = [each for key, each in self.flags.items() if len(key) > len(trail) and key[: len(trail)] == trail]
        if not below:
            return origin
        places = ([str(origin)] if written else []) + [str(each) for each in below]
        return Origin(OriginKind.FLAG, ", ".join(dict.fromkeys(places)))

    def where(self, trail: Trail, *, of_key: bool = False) -> str:
        """Return the place to name in an error about `trail`."""
        origin = self.origin(trail)
        if origin.kind is OriginKind.FLAG:
            return origin.place
        return str(self.document.place(trail, of_key=of_key))

    def _around(self, trail: Trail, origin: Origin) -> Any:
        if not isinstance(self.document.data, dict):
            self.document.data = {}
        around: Any = self.document.data
        for depth, part in enumerate(trail[:-1], start=1):
            if isinstance(around, list):
                around = around[_index(around, part, trail, origin)]
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

    def _forget(self, trail: Trail) -> None:
        depth = len(trail)
        below = {key for places in self._places() for key in places if key[:depth] == trail}
        for places in self._places():
            for key in below:
                places.pop(key, None)

    def _places(self) -> tuple[dict[Trail, Any], ...]:
        document = self.document
        return (document.values, document.keys, document.old_booleans, self.flags)


def _index(around: list[Any], part: str | int, trail: Trail, origin: Origin) -> int:
    text = str(part)
    if text.isdecimal() and int(text) < len(around):
        return int(text)
    raise ParamsError(
        f"{origin}: `{dotted(trail)}`: {text!r} is not a place in a list of {len(around)}.",
        next_step="Count from 0, or set the whole list: `--set key=[a, b]`.",
    )
