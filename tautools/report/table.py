"""A table that shows itself: HTML in a notebook, aligned text in a terminal, Markdown in a file."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import TypeAlias

__all__ = ["Column", "Entry", "Table"]

Entry: TypeAlias = "str | tuple[str, ...]"
"""What stands in a cell: a text, or a main text with smaller lines below it."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column's heading, and whether it holds numbers."""

    name: str
    number: bool = True


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Rows under headings, with notes below."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...] = ()
    empty: str = "n = 0: nothing to show."

    def __repr__(self) -> str:
        if not self.rows:
            return f"{self.title}\n{self.empty}"
        body = [[_flat(entry) for entry in row] for row in self.rows]
        heads = [column.name for column in self.columns]
        widths = [max(len(text) for text in texts) for texts in zip(heads, *body, strict=True)]
        lines = [self._line(heads, widths), "  ".join("-" * width for width in widths)]
        lines += [self._line(row, widths) for row in body]
        return "\n".join([self.title, *lines, *self.notes])

    def _line(self, texts: list[str], widths: list[int]) -> str:
        placed = zip(texts, widths, self.columns, strict=True)
        aligned = (text.rjust(width) if column.number else text.ljust(width) for text, width, column in placed)
        return "  ".join(aligned).rstrip()

    def _repr_html_(self) -> str:
        caption = f"<caption>{escape(self.title)}</caption>"
        if not self.rows:
            return f'<div class="tau-table"><p><b>{escape(self.title)}</b></p><p>{escape(self.empty)}</p></div>'
        heads = "".join(f'<th scope="col"{_kind(column)}>{escape(column.name)}</th>' for column in self.columns)
        body = "".join(f"<tr>{''.join(self._cells(row))}</tr>\n" for row in self.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        table = f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table>"
        return f'<div class="tau-table">{table}<div class="tau-notes">{notes}</div></div>'

    def _cells(self, row: tuple[Entry, ...]) -> list[str]:
        return [f"<td{_kind(column)}>{_html(entry)}</td>" for column, entry in zip(self.columns, row, strict=True)]

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown, with its title as a heading of the third level."""
        if not self.rows:
            return f"### {self.title}\n\n{self.empty}\n"
        heads = "| " + " | ".join(column.name for column in self.columns) + " |"
        rule = "|" + "|".join("---:" if column.number else "---" for column in self.columns) + "|"
        body = ["| " + " | ".join(_flat(entry).replace("|", "\\|") for entry in row) + " |" for row in self.rows]
        notes = list(chain.from_iterable(("", note) for note in self.notes))
        return "\n".join([f"### {self.title}", "", heads, rule, *body, *notes, ""])


def _flat(entry: Entry) -> str:
    if isinstance(entry, str):
        return entry
    main, *below = [part for part in entry if part] or [""]
    return f"{main} ({'; '.join(below)})" if below else main


def _html(entry: Entry) -> str:
    if isinstance(entry, str):
        return escape(entry)
    main, *below = entry
    return escape(main) + "".join(f"<br><small>{escape(part)}</small>" for part in below if part)


def _kind(column: Column) -> str:
    return "" if column.number else ' class="word"'
