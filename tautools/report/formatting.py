"""Write numbers, tables and summaries the same way everywhere in a report: as HTML, as text and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import chain
from typing import TypeAlias


def share(value: float | None) -> str:
    """Write a score in [0, 1] with three decimals; a dash when there is none."""
    return "–" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """Write a share in [0, 1] as percent; 100 % and 0 % only when they are exact."""
    if value is None:
        return "–"
    text = f"{100 * value:.1f} %"
    if text == "100.0 %" and value < 1:
        return "> 99.9 %"
    if text == "0.0 %" and value > 0:
        return "< 0.1 %"
    return text


def significant(value: float | None) -> str:
    """Write a measured quantity with three significant digits and no exponent."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    magnitude = abs(value)
    decimals = max(0, 2 - _exponent(magnitude))
    return f"{value:.{min(decimals, 6)}f}"


def count(value: int) -> str:
    """Write a count in groups of three."""
    return f"{value:,}"


def plural(number: int, noun: str) -> str:
    """Write a count with its noun, `1 task` or `2 tasks`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def _exponent(magnitude: float) -> int:
    from math import floor, log10

    return floor(log10(magnitude))


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
        body = [[_plain_text(entry) for entry in row] for row in self.rows]
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
        heads = "".join(f'<th scope="col"{_class_of(column)}>{escape(column.name)}</th>' for column in self.columns)
        body = "".join(f"<tr>{''.join(self._cells(row))}</tr>\n" for row in self.rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        table = f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody></table>"
        return f'<div class="tau-table">{table}<div class="tau-notes">{notes}</div></div>'

    def _cells(self, row: tuple[Entry, ...]) -> list[str]:
        return [
            f"<td{_class_of(column)}>{_entry_html(entry)}</td>" for column, entry in zip(self.columns, row, strict=True)
        ]

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown, with its title as a heading of the third level."""
        if not self.rows:
            return f"### {self.title}\n\n{self.empty}\n"
        heads = "| " + " | ".join(column.name for column in self.columns) + " |"
        rule = "|" + "|".join("---:" if column.number else "---" for column in self.columns) + "|"
        body = ["| " + " | ".join(_plain_text(entry).replace("|", "\\|") for entry in row) + " |" for row in self.rows]
        notes = list(chain.from_iterable(("", note) for note in self.notes))
        return "\n".join([f"### {self.title}", "", heads, rule, *body, *notes, ""])


def _plain_text(entry: Entry) -> str:
    if isinstance(entry, str):
        return entry
    main, *below = [part for part in entry if part] or [""]
    return f"{main} ({'; '.join(below)})" if below else main


def _entry_html(entry: Entry) -> str:
    if isinstance(entry, str):
        return escape(entry)
    main, *below = entry
    return escape(main) + "".join(f"<br><small>{escape(part)}</small>" for part in below if part)


def _class_of(column: Column) -> str:
    return "" if column.number else ' class="word"'


SIMULATED_NOTE = "SIMULATED models: these figures test the tools and say nothing about any real model."


@dataclass(frozen=True, slots=True, repr=False)
class Summary:
    """Two true sentences, and a mark when models were simulated."""

    first: str
    second: str
    simulated: bool = False

    def __repr__(self) -> str:
        text = f"{self.first}\n{self.second}"
        return f"{SIMULATED_NOTE}\n{text}" if self.simulated else text

    def _repr_html_(self) -> str:
        mark = f'<p class="tau-simulated"><b>{escape(SIMULATED_NOTE)}</b></p>' if self.simulated else ""
        return f'<div class="tau-opening">{mark}<p>{escape(self.first)}</p><p>{escape(self.second)}</p></div>'

    def to_markdown(self) -> str:
        """Return the opening as Markdown."""
        mark = f"> **{SIMULATED_NOTE}**\n\n" if self.simulated else ""
        return f"{mark}{self.first}\n\n{self.second}\n"
