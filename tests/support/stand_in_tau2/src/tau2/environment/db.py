"""Databases are files."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel


class DB(BaseModel):
    @classmethod
    def load(cls, path: str) -> "DB":
        return cls.model_validate(json.loads(Path(path).read_text()))

    def get_hash(self) -> str:
        return json.dumps(self.model_dump(), sort_keys=True)


class Book(BaseModel):
    book_id: str
    title: str
    copies: int
    lent_to: list[str] = []


class Desk(BaseModel):
    open: bool = True
    visitor: str | None = None


class LibraryDB(DB):
    books: dict[str, Book]
    desks: list[Book] = []
    rules: dict[str, Any] = {}


class VisitorDB(DB):
    desk: Desk = Desk()
