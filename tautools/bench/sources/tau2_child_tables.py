"""Makes the databases of a tau2-bench checkout cheap; runs there, beside `tau2_child`.

An environment is made and scored in milliseconds when entities are shared until they are touched, and when only those
that were are compared; the package loads and hashes megabytes each time. What it compares is the same: the canonical
JSON that its hash is made of.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
import json
from typing import Any


class ChildTable(dict):  # type: ignore[type-arg]
    """A table that copies an entity when it is read by its key, so that changing it leaves the loaded one alone.

    Walking over the table gives shared entities: the package's tools only search that way.
    """

    def __init__(self, loaded: dict[str, Any]) -> None:
        super().__init__(loaded)
        self.loaded = loaded
        self._own: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        if key in self.loaded and key not in self._own and key in self:
            self[key] = self.loaded[key].model_copy(deep=True)
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._own.add(key)
        super().__setitem__(key, value)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an entity that may be changed."""
        return self[key] if key in self else default  # noqa: SIM401 - `get` is what this is

    def pop(self, key: str, *default: Any) -> Any:
        """Take an entity out; it may be changed."""
        if key in self:
            self[key]
        return super().pop(key, *default)

    def changes(self) -> dict[str, str | None]:
        """Return the canonical text of each entity that is no longer as loaded; None for one that is gone."""
        found = {key: _canonical(self[key]) for key in self._own if key in self}
        changed: dict[str, str | None] = {
            key: text for key, text in found.items() if key not in self.loaded or text != _canonical(self.loaded[key])
        }
        return changed | {key: None for key in self.loaded if key not in self}


def hold_databases() -> None:
    """Let the package's databases be loaded once and share their entities."""
    database = importlib.import_module("tau2.environment.db").DB
    kit = importlib.import_module("tau2.environment.toolkit").ToolKitBase
    load = functools.cache(database.load.__func__)
    whole_hash = kit.get_db_hash

    def shared(cls: Any, path: Any) -> Any:
        held = load(cls, path)
        return held.model_copy(update={name: _view(value) for name, value in vars(held).items()})

    def quick_hash(self: Any) -> str:
        tables = vars(self.db) if self.db is not None else {}
        if not any(isinstance(table, ChildTable) for table in tables.values()):
            return str(whole_hash(self))
        parts = {
            name: table.changes() if isinstance(table, ChildTable) else _plain(table) for name, table in tables.items()
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    database.load = classmethod(shared)
    kit.get_db_hash = quick_hash


def _view(value: Any) -> Any:
    if isinstance(value, dict) and all(hasattr(entity, "model_copy") for entity in value.values()):
        return ChildTable(value)
    if isinstance(value, list):
        return [_view(each) for each in value]
    return copy.deepcopy(value)


def changes(environment: Any, loaded: dict[tuple[str, str], str]) -> list[tuple[str, str, str | None]]:
    """List what differs from the databases as loaded: table, key and canonical text, None for what is gone."""
    found: list[tuple[str, str, str | None]] = []
    rest: dict[tuple[str, str], str] = {}
    touched = set()
    for table, value in _tables(environment):
        if isinstance(value, ChildTable):
            touched.add(table)
            found += [(table, key, text) for key, text in sorted(value.changes().items())]
        else:
            rest.update(_entities(table, value))
    found += [(*place, text) for place, text in rest.items() if loaded.get(place) != text]
    found += [(*place, None) for place in loaded if place[0] not in touched and place not in rest]
    return found


def all_entities(environment: Any) -> dict[tuple[str, str], str]:
    """Return the canonical text of each entity by table and key."""
    found: dict[tuple[str, str], str] = {}
    for table, value in _tables(environment):
        found.update(_entities(table, value))
    return found


def _tables(environment: Any) -> list[tuple[str, Any]]:
    """List the tables of both sides by name; the customer's is `user`, with its parts by their names."""
    kits = [kit for kit in (environment.tools, environment.user_tools) if kit is not None and kit.db is not None]
    found = [(name, value) for kit in kits if kit is environment.tools for name, value in vars(kit.db).items()]
    return found + [("user", dict(vars(kit.db))) for kit in kits if kit is not environment.tools]


def _entities(table: str, value: Any) -> dict[tuple[str, str], str]:
    """Return a table's entities: of a list by the entity's own id, of a single value without a key."""
    if isinstance(value, dict):
        return {(table, str(key)): _canonical(entity) for key, entity in value.items()}
    if isinstance(value, list):
        return {(table, _id_of(entity, place)): _canonical(entity) for place, entity in enumerate(value)}
    return {(table, ""): _canonical(value)}


def _id_of(entity: Any, place: int) -> str:
    names = (
        [name for name in vars(entity) if name == "id" or name.endswith("_id")] if hasattr(entity, "__dict__") else []
    )
    return str(getattr(entity, names[0])) if names else str(place)


def _canonical(entity: Any) -> str:
    return json.dumps(_plain(entity), sort_keys=True, default=str)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.model_dump(warnings=False) if hasattr(value, "model_dump") else value
