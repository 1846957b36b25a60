"""Plans, statuses and results as text and as HTML, for terminals and notebooks; no logic."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.sweep.plan import SweepPlan
    from tautools.sweep.servers import ServerNeed
    from tautools.sweep.status import CellStatus


GLYPHS = {"done": "✔", "running": "…", "failed": "✖", "partial": "◐", "pending": "○"}
"""State of a cell as a sign; the word always stands beside it."""


def duration(seconds: float) -> str:
    """Return a length of time as people say it, rounded.

    Examples
    --------
    >>> duration(0.2), duration(95), duration(4000), duration(200000)
    ('1 s', '95 s', '67 min', '56 h')
    """
    if seconds < 120:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"


def plan_lines(plan: SweepPlan) -> list[str]:
    """Return a plan in a few lines: cells, conversations, servers, time."""
    pending = len(plan.pending_cells)
    shared = f"; trials that cells share are counted once, which saves {plan.shared}" if plan.shared else ""
    lines = [
        f"Sweep {plan.sweep.name}: {len(plan.cells)} cells, {len(plan.cells) - pending} done, {pending} with work",
        f"Conversations: {plan.conversations}, {plan.done} done, {plan.pending} pending{shared}",
    ]
    if plan.pending:
        lines.append(f"Servers: {servers_text(plan.servers)}")
        lines.append(f"Time: about {duration(plan.estimate_s)} ({plan.basis})")
        lines += dict.fromkeys(str(each) for each in plan.context)
    else:
        lines.append("Nothing to do: no server is needed and no model call will be made.")
    return lines


def plan_text(plan: SweepPlan) -> str:
    """Return a plan as text."""
    return "\n".join(plan_lines(plan))


def plan_html(plan: SweepPlan) -> str:
    """Return a plan as HTML: the lines, and a table of the cells behind a fold."""
    lines = "".join(f"<div>{escape(line)}</div>" for line in plan_lines(plan))
    rows = [
        [
            str(cell.cell.index),
            cell.cell.run.env,
            cell.cell.run.strategy.value,
            cell.model,
            str(cell.cell.run.num_trials),
            str(cell.planned),
            str(cell.shared),
            str(cell.pending),
        ]
        for cell in plan.cells
    ]
    head = ["cell", "env", "strategy", "model", "trials", "conversations", "shared", "pending"]
    return f"<div>{lines}<details><summary>cells</summary>{table_html(head, rows)}</details></div>"


def status_summary(cells: Sequence[CellStatus]) -> str:
    """Return one sentence on the cells of a sweep."""
    counts = Counter(cell.state for cell in cells)
    words = [f"{counts['done']} of {len(cells)} cells done"]
    words += [f"{counts[state]} {state}" for state in ("running", "failed", "partial", "pending") if counts[state]]
    return ", ".join(words)


def status_html(cells: Sequence[CellStatus]) -> str:
    """Return the cells as a table."""
    rows = [
        [
            str(cell.index),
            cell.env,
            cell.strategy,
            cell.model,
            str(cell.num_trials),
            f"{GLYPHS[cell.state]} {cell.state}",
            f"{cell.done} of {cell.planned}",
            cell.cause,
        ]
        for cell in cells
    ]
    head = ["cell", "env", "strategy", "model", "trials", "state", "conversations", "cause"]
    return f"<div>{escape(status_summary(cells))}{table_html(head, rows)}</div>"


def table_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a plain table; everything in it is escaped."""
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def servers_text(needs: Sequence[ServerNeed]) -> str:
    """Return the servers that are needed with what they are for and what they are doing."""
    if not needs:
        return "none of ours; the roles name addresses or hosted models"
    told = [f"{need.name} ({'/'.join(need.roles)}, {_need_state(need)})" for need in needs]
    return f"{len(needs)}: " + ", ".join(told)


def _need_state(need: ServerNeed) -> str:
    if need.running:
        return "ready"
    if need.state is not None:
        return need.state.value
    return "to start" if need.params is not None else "not there"
