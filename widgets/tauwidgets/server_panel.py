"""ServerPanel: choose a server, launch it, watch its log and checks, verify it, stop it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from tautools.errors import ParamsError
from tautools.params import list_params, load_server
from tautools.servers import Registry, Server, Snapshot, launch, open_server, server_states
from tauwidgets.panel import Notice, Panel, Rendered, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.records import Check, ServerRecord


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
    checks: Sequence[Check]
    log: Sequence[str]
    log_path: str
    notice: Notice
    as_of: float
    """Unix time [s]."""
    workspace: str = "."
    """As the panel was given it."""


def render_servers(snapshot: ServerSnapshot) -> Rendered:
    """Turn a snapshot into HTML for the page and text for a terminal."""
    parts = [f"<div class='tau-meta'>as of {_clock(snapshot.as_of)}</div>", _servers_table(snapshot.rows)]
    if snapshot.notice.text:
        kind = "tau-error" if snapshot.notice.error else "tau-meta"
        parts.append(f"<div class='{kind} tau-said'>{escape(snapshot.notice.text)}</div>")
    if any(row.name == snapshot.chosen and row.state == "ready" for row in snapshot.rows):
        parts.append(_usage_code(snapshot.chosen, snapshot.workspace))
    if snapshot.checks:
        parts.append(_checks_table(snapshot.chosen, snapshot.checks))
    if snapshot.log:
        lines = escape("\n".join(snapshot.log))
        parts.append(
            f"<div class='tau-meta'>log of {escape(snapshot.chosen)}: {escape(snapshot.log_path)}</div>"
            f"<pre class='tau-log' aria-label='log of {escape(snapshot.chosen)}'>{lines}</pre>"
        )
    return Rendered("".join(parts), _servers_text(snapshot))


def _servers_table(rows: Sequence[ServerRow]) -> str:
    if not rows:
        return "<p>No server in this workspace. Choose one above and press <b>Launch</b>.</p>"
    body = "".join(
        f"<tr><td><button type='button' data-pick='{escape(row.name)}'>{escape(row.name)}</button>"
        f"{' SIMULATED' if row.simulated else ''}</td>"
        f"<td class='tau-state' data-server='{escape(row.name)}'>{_state_html(row)}</td>"
        f"<td>{escape(row.model)}</td><td>{escape(row.base_url)}</td>"
        f"<td>{_clock(row.verified_at) if row.verified_at else 'no'}</td></tr>"
        for row in rows
    )
    heads = "".join(f"<th scope='col'>{name}</th>" for name in ("server", "state", "model", "address", "verified"))
    return f"<table class='tau-servers'><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"


def _state_html(row: ServerRow) -> str:
    glyph, kind = GLYPHS.get(row.state, ("…", "tau-busy"))
    detail = f" <span class='tau-meta'>{escape(row.detail)}</span>" if row.detail else ""
    return f"<span class='{kind}'>{glyph} {escape(row.state.upper())}</span>{detail}"


def _usage_code(name: str, workspace: str) -> str:
    """Return what a person pastes into a cell to use the server; its key is found by its name."""
    imports = "from pathlib import Path\nfrom tautools.servers import open_server\n"
    code = f"{imports}open_server({name!r}, workspace=Path({workspace!r})).endpoint()"
    return (
        f"<div class='tau-meta'>{escape(name)} in a cell:</div>"
        f"<pre class='tau-code' aria-label='code that uses {escape(name)}'>{escape(code)}</pre>"
    )


def _checks_table(name: str, checks: Sequence[Check]) -> str:
    body = "".join(
        f"<tr><td class='tau-number'>{check.number}</td><td>{escape(check.name)}</td>"
        f"<td>{_check_result(check.passed)}</td>"
        f"<td class='tau-number'>{check.took_s * 1000:.0f}</td><td>{escape(check.detail)}</td></tr>"
        for check in checks
    )
    heads = "".join(f"<th scope='col'>{title}</th>" for title in ("check", "probe", "result", "took [ms]", "seen"))
    return (
        f"<table class='tau-ladder'><caption>Verification of {escape(name)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    )


def _check_result(passed: bool | None) -> str:
    if passed is None:
        return "– not asked"
    return "<span class='tau-ok'>✔ passed</span>" if passed else "<span class='tau-bad'>✖ failed</span>"


def _servers_text(snapshot: ServerSnapshot) -> str:
    lines = [f"Servers (as of {_clock(snapshot.as_of)})"]
    lines += [
        f"  {GLYPHS.get(row.state, ('…', ''))[0]} {row.name:<16} {row.state.upper():<10} {row.model}  {row.base_url}"
        for row in snapshot.rows
    ] or ["  none"]
    for check in snapshot.checks:
        word = {True: "passed", False: "failed", None: "not asked"}[check.passed]
        lines.append(f"  check {check.number} {check.name}: {word} {check.detail}".rstrip())
    if snapshot.notice.text:
        lines.append(snapshot.notice.text)
    return "\n".join(lines)


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


LOG_LINES = 200
CONFIRM_S = 6.0
"""A second press within this time stops the server; after it the button is back to its first word."""


class ServerPanel(Panel):
    """The servers of a workspace, live.

    Parameters
    ----------
    workspace : path, optional
        The folder whose registry is shown; the current one by default.
    choose : str, optional
        Name of the server file that is selected at first.

    Examples
    --------
    >>> from tauwidgets import ServerPanel  # doctest: +SKIP
    >>> ServerPanel()  # doctest: +SKIP
    """

    def __init__(self, workspace: str | Path = ".", *, choose: str = "sim-small") -> None:
        super().__init__()
        self._workspace = Path(workspace)
        self._checks: dict[str, list[Check]] = {}
        self._stop_asked_at = 0.0
        names = list_params("servers", workspace=self._workspace)
        self._choice = ipywidgets.Dropdown(
            options=names, value=choose if choose in names else None, description="server"
        )
        self._launch = ipywidgets.Button(description="Launch", icon="play", button_style="primary")
        self._verify = ipywidgets.Button(description="Verify", icon="check")
        self._stop = ipywidgets.Button(description="Stop", icon="stop")
        self._launch.on_click(self._on_launch)
        self._verify.on_click(self._on_verify)
        self._stop.on_click(self._on_stop)
        self.view.many = False
        for widget, name in self._named():
            widget.add_class(f"tau-{name}")

    def _named(self) -> Sequence[tuple[Any, str]]:
        return (
            (self._choice, "server-choice"),
            (self._launch, "launch"),
            (self._verify, "verify"),
            (self._stop, "stop"),
        )

    def controls(self) -> Sequence[Any]:
        """Return the row of buttons."""
        return [ipywidgets.HBox([widget for widget, _ in self._named()])]

    def snapshot(self) -> ServerSnapshot:
        """Read registry, states and the chosen server's log."""
        self._forget_confirmation()
        known = server_states(self._workspace)
        chosen = self._chosen([record.name for record, _ in known])
        shown = next((record for record, _ in known if record.name == chosen), None)
        return ServerSnapshot(
            rows=[_server_row(record, state) for record, state in known],
            chosen=chosen,
            checks=self._ladder(shown) if shown else [],
            log=Server(shown, workspace=self._workspace).tail(LOG_LINES) if shown else [],
            log_path=shown.log_out if shown else "",
            notice=self.notice,
            as_of=time.time(),
            workspace=str(self._workspace),
        )

    def render(self, snapshot: ServerSnapshot) -> Rendered:
        """Turn a snapshot into HTML and text."""
        return render_servers(snapshot)

    # -- what is chosen

    def _chosen(self, names: Sequence[str]) -> str:
        picked = [name for name in self.view.picked if name in names]
        return picked[0] if picked else (names[0] if len(names) == 1 else "")

    def _ladder(self, record: ServerRecord) -> Sequence[Check]:
        proven = record.certificate.checks if record.certificate else []
        return self._checks.get(record.name) or proven

    def _current(self) -> Server:
        names = [record.name for record in Registry(self._workspace).list()]
        chosen = self._chosen(names)
        if not chosen:
            raise ParamsError("No server is picked.", next_step="Click a server's name in the table first.")
        return open_server(chosen, workspace=self._workspace)

    # -- buttons

    def _on_launch(self, _: Any) -> None:
        name = str(self._choice.value)
        self.act(f"Launching {name}", lambda: self._start(name), self._launch)

    def _start(self, name: str) -> str:
        server = launch(load_server(name, workspace=self._workspace), workspace=self._workspace)
        self.view.picked = [server.record.name]
        server.wait_ready(on_check=self._new_ladder(server).append)
        return f"{name} is verified."

    def _on_verify(self, _: Any) -> None:
        self.act("Verifying", lambda: self._prove(self._current()), self._verify)

    def _prove(self, server: Server) -> str:
        certificate = server.verify(on_check=self._new_ladder(server).append)
        verdict = "verified" if certificate.passed else "NOT verified: see the ladder"
        return f"{server.record.name} is {verdict}."

    def _new_ladder(self, server: Server) -> list[Check]:
        """Return the list that the checks of a climb under way go to, shown while they come."""
        checks: list[Check] = []
        self._checks[server.name] = checks
        return checks

    def _on_stop(self, _: Any) -> None:
        if not self._stop_asked_at:
            self._stop_asked_at = time.monotonic()
            self._stop.description = "Really stop?"
            self._stop.button_style = "danger"
            return
        self._stop_asked_at = 0.0
        self._reset_stop()
        self.act("Stopping", self._end, self._stop)

    def _end(self) -> str:
        server = self._current()
        server.stop()
        return f"{server.record.name} is stopped."

    def _forget_confirmation(self) -> None:
        if self._stop_asked_at and time.monotonic() - self._stop_asked_at > CONFIRM_S:
            self._stop_asked_at = 0.0
            self._reset_stop()

    def _reset_stop(self) -> None:
        self._stop.description = "Stop"
        self._stop.button_style = ""


def _server_row(record: ServerRecord, seen: Snapshot) -> ServerRow:
    percent = f" {seen.percent} %" if seen.percent is not None else ""
    return ServerRow(
        name=record.name,
        state=seen.state.value,
        detail=(seen.stage + percent) if seen.stage else seen.detail,
        model=record.model,
        base_url=record.base_url,
        simulated=record.simulated,
        verified_at=record.certificate.issued_at if record.certificate and record.certificate.passed else None,
    )
