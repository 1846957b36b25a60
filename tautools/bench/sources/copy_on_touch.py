"""A database that shares its entities until one is touched.

One conversation looks at about ten of thousands of entities. Each conversation gets a view in which reading an entity
by key copies it first, so that the bench's tools may change it in place; everything else stays shared and is loaded
once per process. Walking over a table (`items`, `values`) gives shared entities without copying them: the bench's tools
only search that way. A test holds the shared base to its hash after thousands of random calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any


def canonical_entity(entity: Any) -> str:
    """Return the JSON text that the bench's own database hash is made of, for one entity.

    Entities can be equal (`2.0 == 2`) while these texts, and so the hashes, differ.
    """
    return json.dumps(entity.model_dump(warnings=False), sort_keys=True, default=str)


class SharedTable:
    """One table of the database as loaded: never changed, shared by all conversations of the process."""

    def __init__(self, entities: Mapping[str, Any]) -> None:
        self.entities = entities
        self._canonical: dict[str, str] = {}

    def canonical(self, key: str) -> str | None:
        """Return the canonical text of an entity as loaded; None when there is no such entity."""
        if key not in self.entities:
            return None
        if key not in self._canonical:
            self._canonical[key] = canonical_entity(self.entities[key])
        return self._canonical[key]


class TouchedTable(MutableMapping[str, Any]):
    """One conversation's view of a table: a copy of what it touched over the shared rest."""

    def __init__(self, base: SharedTable) -> None:
        self._base = base
        self._own: dict[str, Any] = {}
        self._gone: set[str] = set()

    def __contains__(self, key: object) -> bool:
        return key in self._own or (key in self._base.entities and key not in self._gone)

    def __getitem__(self, key: str) -> Any:
        if key not in self._own:
            if key in self._gone:
                raise KeyError(key)
            self._own[key] = self._base.entities[key].model_copy(deep=True)
        return self._own[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._own[key] = value

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        self._own.pop(key, None)
        self._gone.add(key)

    def __iter__(self) -> Iterator[str]:
        yield from (key for key in self._base.entities if key not in self._gone or key in self._own)
        yield from (key for key in self._own if key not in self._base.entities)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> Any:
        """Walk over the table without copying: what was not touched is shared and must not be changed."""
        return ((key, self._peek(key)) for key in self)

    def values(self) -> Any:
        """Walk over the entities without copying: what was not touched is shared and must not be changed."""
        return (self._peek(key) for key in self)

    def _peek(self, key: str) -> Any:
        return self._own[key] if key in self._own else self._base.entities[key]

    def changes(self) -> dict[str, str | None]:
        """Return the canonical text of each entity that differs from the base; None for one that is gone."""
        found: dict[str, str | None] = {
            key: None for key in self._gone if key in self._base.entities and key not in self._own
        }
        for key, entity in self._own.items():
            text = canonical_entity(entity)
            if text != self._base.canonical(key):
                found[key] = text
        return found
