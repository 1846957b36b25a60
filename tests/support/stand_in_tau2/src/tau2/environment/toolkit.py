"""Tools, some of which behave badly."""

import inspect
import os
import sys
import time
from typing import Any

from tau2.environment.db import LibraryDB, VisitorDB


class Tool:
    def __init__(self, function: Any) -> None:
        self.name = function.__name__
        self.openai_schema = {
            "type": "function",
            "function": {
                "name": self.name,
                "description": function.__doc__,
                "parameters": {
                    "type": "object",
                    "properties": {name: {"type": "string"} for name in inspect.signature(function).parameters},
                },
            },
        }


class ToolKitBase:
    def __init__(self, db: Any) -> None:
        self.db = db

    def get_tools(self, include: list[str] | None = None) -> dict[str, Tool]:
        found = {name: Tool(getattr(self, name)) for name in vars(type(self)) if not name.startswith("_")}
        return {name: tool for name, tool in found.items() if include is None or name in include}

    def get_db_hash(self) -> str:
        return str(self.db.get_hash())


class LibraryTools(ToolKitBase):
    db: LibraryDB

    def find_book(self, title: str) -> Any:
        """Find a book."""
        found = [book for book in self.db.books.values() if book.title == title]
        if not found:
            raise ValueError(f"No book is called {title}")
        return found[0]

    def get_book(self, book_id: str) -> Any:
        """Read a book's entry."""
        return self.db.books[book_id]

    def lend_book(self, book_id: str, visitor: str, copies: int = 1) -> Any:
        """Lend a book."""
        book = self.db.books[book_id]
        book.copies -= copies
        book.lent_to.append(visitor)
        return book

    def remove_book(self, book_id: str) -> str:
        """Take a book out of the library."""
        return str(self.db.books.pop(book_id).title)

    def shout(self, text: str) -> str:
        """Print, and ask the terminal."""
        print(text)
        os.write(1, text.encode() + b"\n")
        try:
            return input("Who is there? ")
        except EOFError:
            return "Nobody."

    def leave(self) -> None:
        """End the program politely."""
        sys.exit(3)

    def crash(self) -> None:
        """End the program at once."""
        sys.stderr.write("The library is on fire.\n")
        sys.stderr.flush()
        os._exit(7)

    def sleep(self) -> None:
        """Never answer."""
        time.sleep(3600)


class VisitorTools(ToolKitBase):
    db: VisitorDB

    def enter(self, name: str) -> str:
        """Come to the desk."""
        self.db.desk.visitor = name
        return "You stand at the desk."

    def ring(self) -> str:
        """Ring the bell."""
        return "Ding."
