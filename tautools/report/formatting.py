"""Write numbers, tables and summaries the same way everywhere in a report: as HTML, as text and as Markdown."""

from collections.abc import Mapping, Sequence
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


_TEXT_COLUMNS = {
    *("env", "strategy", "model", "agent model", "user model", "role", "what", "source", "calls"),
    *("setting", "benchmark", "plan", "folder", "action missed most often", "the first"),
}
"""Headings of columns that hold text; all others hold numbers, which stand on the right."""


@dataclass(frozen=True, slots=True, repr=False)
class Table:
    """Rows under headings, with notes below: HTML in a notebook, text in a terminal, Markdown in a file."""

    title: str
    rows: Sequence[Mapping[str, Entry]]
    """Each from heading to entry, with the same headings."""
    notes: Sequence[str] = ()
    empty: str = "n = 0: nothing to show."

    def __repr__(self) -> str:
        if not self.rows:
            return f"{self.title}\n{self.empty}"
        columns = []
        for head in self.rows[0]:
            texts = [head, *(_plain_text(row[head]) for row in self.rows)]
            width = max(map(len, texts))
            texts.insert(1, "-" * width)
            columns.append([text.ljust(width) if head in _TEXT_COLUMNS else text.rjust(width) for text in texts])
        lines = ("  ".join(texts).rstrip() for texts in zip(*columns, strict=True))
        return "\n".join([self.title, *lines, *self.notes])

    def _repr_html_(self) -> str:
        title = escape(self.title)
        if not self.rows:
            return f'<div class="tau-table"><p><b>{title}</b></p><p>{escape(self.empty)}</p></div>'
        kinds = {head: ' class="word"' if head in _TEXT_COLUMNS else "" for head in self.rows[0]}
        heads = "".join(f'<th scope="col"{kind}>{escape(head)}</th>' for head, kind in kinds.items())
        rows = ("".join(f"<td{kinds[head]}>{_entry_html(row[head])}</td>" for head in row) for row in self.rows)
        body = "".join(f"<tr>{row}</tr>\n" for row in rows)
        notes = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        table = f"<caption>{title}</caption><thead><tr>{heads}</tr></thead><tbody>\n{body}</tbody>"
        return f'<div class="tau-table"><table>{table}</table><div class="tau-notes">{notes}</div></div>'

    def to_markdown(self) -> str:
        """Return the table in GitHub's Markdown, with its title as a heading of the third level."""
        if not self.rows:
            return f"### {self.title}\n\n{self.empty}\n"
        heads = "| " + " | ".join(self.rows[0]) + " |"
        rule = "|" + "|".join("---" if head in _TEXT_COLUMNS else "---:" for head in self.rows[0]) + "|"
        texts = ([_plain_text(entry).replace("|", "\\|") for entry in row.values()] for row in self.rows)
        body = (f"| {' | '.join(row)} |" for row in texts)
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
