"""What a run of one cell came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.records import Outcome, Setting

__all__ = ["CellResult"]


@dataclass(frozen=True)
class CellResult:
    """What is finished and what is still owed after a run, read from the ledger."""

    setting: Setting = field(repr=False)
    folder: Path
    planned: int
    done: int
    owed: int
    outcomes: Counter[Outcome]
    """Outcomes of the planned conversations that are finished, by this run or before."""
    model_calls: int
    """Requests to models that this run made, failed ones included."""
    faults: int = 0
    """Conversations that this run lost to the infrastructure; they are owed or were repeated, and are not scored."""
    fault_kinds: Counter[str] = field(default_factory=Counter)
    repeats: int = 0
    """Rows of the ledger that repeat a conversation that counts already; they are not counted."""
    interrupted: bool = False
    """Whether somebody asked to stop."""
    cause: str = ""
    """Why work is left, when it is known."""
    mixed: list[str] = field(default_factory=list)
    """Facts observed now that differ from those when the setting was first run, such as a version."""
    unjudged: str = ""
    """What tasks assert in natural language and nobody judged, in a sentence."""
    view: Path | None = None
    """`num_trials-<n>.json`."""

    @property
    def finished(self) -> bool:
        """Whether nothing is owed."""
        return self.owed == 0

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _repr_html_(self) -> str:
        first, *rest = self._lines()
        notes = "".join(f"<div>{escape(line)}</div>" for line in rest)
        return f"<div><b>{escape(first)}</b>{notes}</div>"

    def _lines(self) -> list[str]:
        setting = self.setting
        marked = " [SIMULATED]" if setting.simulated else ""
        lines = [
            f"{self.done} done, {self.owed} owed",
            f"{setting.env} {setting.strategy.value} {setting.agent.model}{marked}: {self._score()}",
        ]
        if self.faults:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.fault_kinds.most_common())
            lines.append(f"{self.faults} lost to the infrastructure and not scored: {kinds}")
        if self.interrupted:
            lines.append("Interrupted; run it again to go on.")
        if self.owed and self.cause:
            lines.append(self.cause)
        if self.repeats:
            lines.append(f"{self.repeats} repeated conversations in the ledger are not counted")
        if self.unjudged:
            lines.append(self.unjudged)
        lines.extend(f"Mixed under one setting: {difference}" for difference in self.mixed)
        lines.append(f"{self.model_calls} model calls; results in {self.folder}")
        return lines

    def _score(self) -> str:
        scored = sum(count for outcome, count in self.outcomes.items() if outcome.scored)
        if not scored:
            return "nothing scored (n = 0)"
        passed = sum(count for outcome, count in self.outcomes.items() if outcome.value == "passed")
        told = ", ".join(f"{count} {outcome.value}" for outcome, count in self.outcomes.most_common())
        return f"{passed} of {scored} passed ({told})"
