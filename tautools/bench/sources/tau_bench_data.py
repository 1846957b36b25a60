"""v1's database: loaded once, each entity copied for a conversation when it is touched.

v1 loads and hashes the whole database for each reward. Here a conversation sees dictionaries that are v1's to all
appearances, in which reading an entity by its key copies it first. Walking over a table gives shared entities: v1's
tools only search that way. What differs is compared as the text that v1 hashes, in which `2` and `2.0` differ, and `[]`
and `{}` do not.
"""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tautools.bench.types import Changes

__all__ = ["Database", "LoadedData"]

_WHOLE = ""
"""Key of a table that is not a dictionary of entities and is held as one."""


class LoadedData:
    """The database as loaded: never changed, shared by all conversations of the process.

    Parameters
    ----------
    data : mapping
        Table to entities by key, as v1's `load_data` returns them.
    hashable : callable
        v1's `to_hashable`, whose result's text v1 hashes.
    """

    def __init__(self, data: Mapping[str, Any], hashable: Callable[[Any], Any]) -> None:
        self.data = data
        self.hashable = hashable
        self._texts: dict[tuple[str, str], str | None] = {}

    def entity(self, table: str, key: str) -> Any:
        """Return an entity, None when there is none."""
        found = self.data.get(table)
        return found.get(key) if isinstance(found, dict) else found

    def text(self, table: str, key: str) -> str | None:
        """Return the text of an entity that v1 would hash; None when there is no such entity."""
        if (table, key) not in self._texts:
            found = self.entity(table, key)
            self._texts[table, key] = None if found is None else str(self.hashable(found))
        return self._texts[table, key]

    def canonical(self, table: str, key: str) -> str | None:
        """Return an entity as canonical JSON; None when there is no such entity."""
        found = self.entity(table, key)
        return None if found is None else _canonical(found)


class Database:
    """One conversation's database; `data` is what v1's tools work on."""

    def __init__(self, loaded: LoadedData) -> None:
        self._loaded = loaded
        self.data: dict[str, Any] = {
            name: _Table(table) if isinstance(table, dict) else copy.deepcopy(table)
            for name, table in loaded.data.items()
        }

    def changed(self) -> dict[tuple[str, str], Any]:
        """Return the entities that v1's hash would tell from those loaded, None for one that is gone."""
        found = {}
        for name, table in self.data.items():
            own = ((key, dict.get(table, key)) for key in table.own) if isinstance(table, _Table) else [(_WHOLE, table)]
            for key, entity in own:
                text = None if entity is None else str(self._loaded.hashable(entity))
                if text != self._loaded.text(name, key):
                    found[name, key] = entity
        return found

    def texts(self) -> dict[tuple[str, str], str | None]:
        """Return what changed, as the texts that v1 would hash."""
        hashable = self._loaded.hashable
        return {place: None if each is None else str(hashable(each)) for place, each in self.changed().items()}

    def changes(self) -> Changes:
        """Return what changed, as canonical JSON."""
        return {place: None if each is None else _canonical(each) for place, each in self.changed().items()}


class _Table(dict[str, Any]):
    """A table that copies an entity when it is read by its key, and knows what was touched."""

    __slots__ = ("own",)

    def __init__(self, loaded: Mapping[str, Any]) -> None:
        super().__init__(loaded)
        self.own: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        entity = super().__getitem__(key)
        if key not in self.own:
            entity = _copied(entity)
            self[key] = entity
        return entity

    def __setitem__(self, key: str, entity: Any) -> None:
        super().__setitem__(key, entity)
        self.own.add(key)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.own.add(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an entity, copied first."""
        return self[key] if key in self else default  # noqa: SIM401 - this is `get`

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return an entity, copied first, or put one there."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        """Take an entity out."""
        if key not in self and default:
            return default[0]
        entity = self[key]
        del self[key]
        return entity

    def update(self, *others: Any, **named: Any) -> None:
        """Put entities there."""
        for key, entity in dict(*others, **named).items():
            self[key] = entity


def _copied(value: Any) -> Any:
    """Return a deep copy of what came from JSON; `copy.deepcopy` takes ten times as long."""
    if isinstance(value, dict):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_copied(each) for each in value]
    return value


def _canonical(entity: Any) -> str:
    return json.dumps(entity, sort_keys=True, default=str)
