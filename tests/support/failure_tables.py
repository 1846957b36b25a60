"""The tables of failures in docs/servers.md; `python tests/support/failure_tables.py` writes them into the page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import yaml

from tautools.servers.diagnose import diagnose_log, known_failures

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "servers.md"
LOGS = REPO / "tests" / "servers" / "logs"
START, END = "<!-- the tables of failures, made by tests/support/failure_tables.py -->", "<!-- end of the tables -->"
SHOWN = 90


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _table(titles: list[str], rows: Iterable[Iterable[str]]) -> str:
    return "\n".join([_row(titles), "|---" * len(titles) + "|", *map(_row, rows)])


def tables() -> str:
    """Return both tables: what each log of tests/servers/logs is told as, and every row of failures.yaml."""
    wanted = yaml.safe_load((LOGS / "wanted.yaml").read_text(encoding="utf-8"))
    logs = []
    for name in sorted(wanted):
        found = diagnose_log((LOGS / name).read_text(encoding="utf-8").splitlines())
        line = found.evidence[:SHOWN] + ("…" if len(found.evidence) > SHOWN else "")
        logs.append([f"`{name}`", f"`{line}`", f"{found.id} `{found.kind}`".strip(), found.fix])
    rows = [
        [row.id, f"`{row.kind}`", *(re.sub(r"\{\w+\}", "…", text) for text in (row.cause, row.fix))]
        for row in sorted(known_failures(), key=lambda row: _order(row.id))
    ]
    return "\n\n".join(
        [
            _table(["Log", "Line that is shown", "Row", "What to do"], logs),
            "Every row (B: harmless, C: seen by the client, W: a wrapper, told only when there is nothing else):",
            _table(["Row", "Kind", "Cause", "What to do"], rows),
        ]
    )


def _order(name: str) -> tuple[str, int]:
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0)


def page(text: str) -> str:
    """Return the page with its tables made anew."""
    head, _, rest = text.partition(START)
    return f"{head}{START}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
