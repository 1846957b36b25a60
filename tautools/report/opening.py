"""How a report begins: a word on what it is about, and two sentences that the data say."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

__all__ = ["SIMULATED_NOTE", "Opening"]

SIMULATED_NOTE = "SIMULATED models: these figures test the tools and say nothing about any real model."


@dataclass(frozen=True, slots=True, repr=False)
class Opening:
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
