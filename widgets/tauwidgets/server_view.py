"""The server panel as HTML and text: a pure function of a snapshot."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tauwidgets.panel import Notice, Rendered, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.records import Rung

__all__ = ["ServerRow", "ServerSnapshot", "render_servers"]

GLYPHS = {
    "ready": ("✔", "tau-ok"),
    "failed": ("✖", "tau-bad"),
    "degraded": ("!", "tau-bad"),
    "timeout": ("✖", "tau-bad"),
    "preempted": ("✖", "tau-bad"),
    "out_of_memory": ("✖", "tau-bad"),
    "node_fail": ("✖", "tau-bad"),
    "stopped": ("○", ""),
    "unknown": ("?", ""),
}
"""Every other state is on its way somewhere: … and blue."""


@dataclass(frozen=True, slots=True)
class ServerRow:
    """One server of the list."""

    name: str
    state: str
    detail: str
    model: str
    base_url: str
    simulated: bool
    verified_at: float | None
    """Unix time of the certificate [s]."""


@dataclass(frozen=True, slots=True)
class ServerSnapshot:
    """What the panel shows at one moment."""

    rows: Sequence[ServerRow]
    chosen: str
    """Name of the server whose ladder and log are shown."""
    rungs: Sequence[Rung]
    log: Sequence[str]
    log_path: str
    notice: Notice
    as_of: float
    """Unix time [s]."""
    workspace: str = "."
    """As the panel was given it."""


def render_servers(snapshot: ServerSnapshot) -> Rendered:
    """Turn a snapshot into HTML for the page and text for a terminal."""
    parts = [f"<div class='tau-meta'>as of {_clock(snapshot.as_of)}</div>", _table(snapshot.rows)]
    if snapshot.notice.text:
        kind = "tau-error" if snapshot.notice.error else "tau-meta"
        parts.append(f"<div class='{kind} tau-said'>{escape(snapshot.notice.text)}</div>")
    if any(row.name == snapshot.chosen and row.state == "ready" for row in snapshot.rows):
        parts.append(_code(snapshot.chosen, snapshot.workspace))
    if snapshot.rungs:
        parts.append(_ladder(snapshot.chosen, snapshot.rungs))
    if snapshot.log:
        lines = escape("\n".join(snapshot.log))
        parts.append(
            f"<div class='tau-meta'>log of {escape(snapshot.chosen)}: {escape(snapshot.log_path)}</div>"
            f"<pre class='tau-log' aria-label='log of {escape(snapshot.chosen)}'>{lines}</pre>"
        )
    return Rendered("".join(parts), _text(snapshot))


def _table(rows: Sequence[ServerRow]) -> str:
    if not rows:
        return "<p>No server in this workspace. Choose one above and press <b>Launch</b>.</p>"
    body = "".join(
        f"<tr><td><button type='button' data-pick='{escape(row.name)}'>{escape(row.name)}</button>"
        f"{' SIMULATED' if row.simulated else ''}</td>"
        f"<td class='tau-state' data-server='{escape(row.name)}'>{_state(row)}</td>"
        f"<td>{escape(row.model)}</td><td>{escape(row.base_url)}</td>"
        f"<td>{_clock(row.verified_at) if row.verified_at else 'no'}</td></tr>"
        for row in rows
    )
    heads = "".join(f"<th scope='col'>{name}</th>" for name in ("server", "state", "model", "address", "verified"))
    return f"<table class='tau-servers'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _state(row: ServerRow) -> str:
    glyph, kind = GLYPHS.get(row.state, ("…", "tau-busy"))
    detail = f" <span class='tau-meta'>{escape(row.detail)}</span>" if row.detail else ""
    return f"<span class='{kind}'>{glyph} {escape(row.state.upper())}</span>{detail}"


def _code(name: str, workspace: str) -> str:
    """Return what a person pastes into a cell to use the server; its key is found by its name."""
    imports = "from pathlib import Path\nfrom tautools.server import open_server\n"
    code = f"{imports}open_server({name!r}, workspace=Path({workspace!r})).endpoint()"
    return (
        f"<div class='tau-meta'>{escape(name)} in a cell:</div>"
        f"<pre class='tau-code' aria-label='code that uses {escape(name)}'>{escape(code)}</pre>"
    )


def _ladder(name: str, rungs: Sequence[Rung]) -> str:
    body = "".join(
        f"<tr><td class='tau-number'>{rung.number}</td><td>{escape(rung.name)}</td><td>{_verdict(rung.passed)}</td>"
        f"<td class='tau-number'>{rung.took_s * 1000:.0f}</td><td>{escape(rung.detail)}</td></tr>"
        for rung in rungs
    )
    heads = "".join(f"<th scope='col'>{title}</th>" for title in ("rung", "probe", "result", "took [ms]", "seen"))
    return (
        f"<table class='tau-ladder'><caption>Verification of {escape(name)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    )


def _verdict(passed: bool | None) -> str:
    if passed is None:
        return "– not asked"
    return "<span class='tau-ok'>✔ passed</span>" if passed else "<span class='tau-bad'>✖ failed</span>"


def _text(snapshot: ServerSnapshot) -> str:
    lines = [f"Servers (as of {_clock(snapshot.as_of)})"]
    lines += [
        f"  {GLYPHS.get(row.state, ('…', ''))[0]} {row.name:<16} {row.state.upper():<10} {row.model}  {row.base_url}"
        for row in snapshot.rows
    ] or ["  none"]
    for rung in snapshot.rungs:
        word = {True: "passed", False: "failed", None: "not asked"}[rung.passed]
        lines.append(f"  rung {rung.number} {rung.name}: {word} {rung.detail}".rstrip())
    if snapshot.notice.text:
        lines.append(snapshot.notice.text)
    return "\n".join(lines)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))
