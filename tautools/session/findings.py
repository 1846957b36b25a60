"""What the doctor finds: a status, what was seen, and what to do about it."""

from __future__ import annotations

import html
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["Diagnosis", "Finding", "Status"]


class Status(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    """Some work will not go, or not well."""
    FAIL = "fail"
    """The work of this site cannot be done here as it is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Status
    found: str
    remedy: str = ""
    """What to do; empty when all is well."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All findings of one look."""

    site: str
    workspace: str
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Status:
        """The worst status among the findings."""
        order = list(Status)
        return max((finding.status for finding in self.findings), key=order.index, default=Status.OK)

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON data."""
        return {
            "site": self.site,
            "workspace": self.workspace,
            "worst": self.worst.value,
            "findings": [
                {"name": each.name, "status": each.status.value, "found": each.found, "remedy": each.remedy}
                for each in self.findings
            ],
        }

    def __str__(self) -> str:
        lines = []
        for each in self.findings:
            lines.append(f"{each.status.value:<5} {each.name:<13} {each.found}")
            if each.remedy:
                lines.append(f"{'':<20}-> {each.remedy}")
        counts = {status: sum(each.status is status for each in self.findings) for status in Status}
        total = ", ".join(f"{count} {status.value}" for status, count in counts.items())
        return "\n".join([*lines, f"{total}; site {self.site}, workspace {self.workspace}"])

    def _repr_html_(self) -> str:
        colours = {Status.OK: "#2e7d32", Status.WARN: "#b26a00", Status.FAIL: "#c62828"}
        rows = "".join(
            f'<tr><td style="color:{colours[each.status]};font-weight:600">{each.status.value}</td>'
            f"<td>{html.escape(each.name)}</td><td style='text-align:left'>{html.escape(each.found)}</td>"
            f"<td style='text-align:left'>{html.escape(each.remedy)}</td></tr>"
            for each in self.findings
        )
        head = "<tr><th></th><th>checked</th><th>found</th><th>remedy</th></tr>"
        place = html.escape(f"site {self.site}, workspace {self.workspace}")
        return f"<table><caption>{place}</caption>{head}{rows}</table>"
