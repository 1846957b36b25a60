"""Write numbers, tables and summaries the same way everywhere in a report: as HTML, as text and as Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from itertools import chain
from math import floor, log10
from typing import TypeAlias

SIMULATED_NOTE = "SIMULATED models: these figures test the tools and say nothing about any real model."

Entry: TypeAlias = "str | tuple[str, ...]"
"""What stands in a table's cell: a text, or a main text with smaller lines below it."""


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
    return "< 0.1 %" if text == "0.0 %" and value > 0 else text


def significant(value: float | None) -> str:
    """Write a measured quantity with three significant digits and no exponent."""
    if not value:
        return "–" if value is None else "0"
    decimals = max(0, 2 - floor(log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}"


def count(value: int) -> str:
    """Write a count in groups of three."""
    return f"{value:,}"


def plural(number: int, noun: str) -> str:
    """Write a count with its noun, `1 task` or `2 tasks`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def short_name(model: str) -> str:
    """Return a model's name without its owner."""
    return model.rstrip("/").rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class Column:
    """One column's heading, and whether it holds numbers."""

    name: str
    number: bool = True


def text_columns(*names: str) -> tuple[Column, ...]:
    """Return columns of text."""
    return tuple(Column(name, number=False) for name in names)


def number_columns(*names: str) -> tuple[Column, ...]:
    """Return columns of numbers."""
    return tuple(Column(name) for name in names)


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Rows under headings, with notes below: HTML in a notebook, text in a terminal, Markdown in a file."""

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
        columns = zip(texts, widths, self.columns, strict=True)
        aligned = (text.rjust(width) if column.number else text.ljust(width) for text, width, column in columns)
        return "  ".join(aligned).rstrip()

    def _repr_html_(self) -> str:
        title = escape(self.title)
        if not self.rows:
            return f'<div class="tau-table"><p><b>{title}</b></p><p>{escape(self.empty)}</p></div>'
        kinds = ["" if column.number else ' class="word"' for column in self.columns]
        heads = "".join(
            f'<th scope="col"{kind}>{escape(column.name)}</th>'
            for kind, column in zip(kinds, self.columns, strict=True)
        )
        rows = (
            "".join(f"<td{kind}>{_entry_html(entry)}</td>" for kind, entry in zip(kinds, row, strict=True))
            for row in self.rows
        )
        body = "".join(f"<tr>{row}</tr>\n" for row in rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        table = f"<caption>{title}</caption><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody>"
        return f'<div class="tau-table"><table>{table}</table><div class="tau-notes">{notes}</div></div>'

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown, with its title as a heading of the third level."""
        if not self.rows:
            return f"### {self.title}\n\n{self.empty}\n"
        heads = "| " + " | ".join(column.name for column in self.columns) + " |"
        rule = "|" + "|".join("---:" if column.number else "---" for column in self.columns) + "|"
        body = ["| " + " | ".join(_plain_text(entry).replace("|", "\\|") for entry in row) + " |" for row in self.rows]
        notes = chain.from_iterable(("", note) for note in self.notes)
        return "\n".join([f"### {self.title}", "", heads, rule, *body, *notes, ""])


def _plain_text(entry: Entry) -> str:
    if isinstance(entry, str):
        return entry
    main, *below = [part for part in entry if part] or [""]
    return f"{main} ({'; '.join(below)})" if below else main


def _entry_html(entry: Entry) -> str:
    main, *below = (entry,) if isinstance(entry, str) else entry
    return escape(main) + "".join(f"<br><small>{escape(part)}</small>" for part in below if part)


@dataclass(frozen=True, slots=True, repr=False)
class Summary:
    """Two sentences that the data say, and a mark when models were simulated."""

    first: str
    second: str
    simulated: bool = False

    def __repr__(self) -> str:
        text = f"{self.first}\n{self.second}"
        return f"{SIMULATED_NOTE}\n{text}" if self.simulated else text

    def _repr_html_(self) -> str:
        mark = f'<p class="tau-simulated"><b>{escape(SIMULATED_NOTE)}</b></p>' if self.simulated else ""
        return f'<div class="tau-summary">{mark}<p>{escape(self.first)}</p><p>{escape(self.second)}</p></div>'

    def to_markdown(self) -> str:
        """Return the summary as Markdown."""
        mark = f"> **{SIMULATED_NOTE}**\n\n" if self.simulated else ""
        return f"{mark}{self.first}\n\n{self.second}\n"
