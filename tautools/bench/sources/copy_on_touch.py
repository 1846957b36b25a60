"""A database that shares its entities until one is touched.

One conversation looks at about ten of thousands of entities. Each conversation gets tables in which reading an entity
by its key copies it first, so that the bench's tools may change it in place; everything else stays shared and is loaded
once per process. Walking over a table (`items`, `values`) gives shared entities without copying them: the tools only
search that way. Tests compare the shared database with its hash after thousands of random calls.

The standard library is all that this module needs: the program in a tau2-bench checkout's environment loads it too.
"""

import json
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

UNWRITABLE = (ValueError, ArithmeticError, RecursionError)
"""What is raised by values that a model wrote and that have no text."""


def plain(value: Any) -> Any:
    """Return an entity, or a list of them, as JSON can hold it."""
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value.model_dump(warnings=False) if hasattr(value, "model_dump") else value


def canonical_text(entity: Any) -> str:
    """Return the JSON text that tau2's database hash is made of, for one entity.

    Entities can be equal (`2.0 == 2`) while these texts, and so the hashes, differ. An entity that cannot be written,
    such as one with an integer of more digits than Python writes, has a text that no other has.
    """
    try:
        return json.dumps(plain(entity), sort_keys=True, default=str)
    except UNWRITABLE as error:
        return json.dumps(f"It cannot be written: {error}")


class LoadedTable:
    """One table of the database as loaded: never changed, shared by all conversations of the process.

    `copied` returns a deep copy of an entity, `text` the text by which entities are compared.
    """

    def __init__(
        self,
        entities: Mapping[str, Any],
        copied: Callable[[Any], Any] = lambda entity: entity.model_copy(deep=True),
        text: Callable[[Any], str] = canonical_text,
    ) -> None:
        self.entities = entities
        self.copied = copied
        self.text = text
        self._texts: dict[str, str] = {}

    def text_of(self, key: str) -> str | None:
        """Return the text of an entity as loaded; None when there is no such entity."""
        if key not in self._texts and key in self.entities:
            self._texts[key] = self.text(self.entities[key])
        return self._texts.get(key)


class TouchedTable(dict[str, Any]):
    """One conversation's table: a copy of what it touched, and the shared rest."""

    __slots__ = ("loaded", "touched")

    def __init__(self, loaded: LoadedTable) -> None:
        super().__init__(loaded.entities)
        self.loaded = loaded
        self.touched: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        entity = super().__getitem__(key)
        if key not in self.touched:
            entity = self[key] = self.loaded.copied(entity)
        return entity

    def __setitem__(self, key: str, entity: Any) -> None:
        super().__setitem__(key, entity)
        self.touched.add(key)

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self.touched.add(key)

    # Those of `dict` do not go through the three above; these do.
    get = MutableMapping.get  # type: ignore[assignment]
    setdefault = MutableMapping.setdefault
    update = MutableMapping.update

    def pop(self, key: str, *default: Any) -> Any:
        """Take an entity out, copied first."""
        if key not in self and default:
            return default[0]
        entity = self[key]
        del self[key]
        return entity

    def changes(self) -> dict[str, str | None]:
        """Return the text of each entity that is not as loaded; None for one that is gone."""
        loaded = self.loaded
        texts = {key: loaded.text(dict.__getitem__(self, key)) if key in self else None for key in self.touched}
        return {key: text for key, text in texts.items() if text != loaded.text_of(key)}
