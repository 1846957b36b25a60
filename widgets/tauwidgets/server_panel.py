"""ServerPanel: choose a server, launch it, watch its log and checks, verify it, stop it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets

import tautools as tt
from tautools.errors import ParamsError
from tautools.params import list_params
from tautools.records import Check, ServerRecord
from tautools.servers import Registry, Server, Snapshot, open_server, server_states
from tauwidgets.panel import Notice, Panel, Rendered, button, clock, escape, log_html, table_html

LOG_LINES = 200
CONFIRM_S = 6.0
"""A second press within this time stops the server; after it the button shows its first word again."""

_BAD = ("✖", "tau-bad")
SERVER_GLYPHS = {
    "ready": ("✔", "tau-ok"),
    "failed": _BAD,
    "degraded": ("!", "tau-bad"),
    "timeout": _BAD,
    "preempted": _BAD,
    "out_of_memory": _BAD,
    "node_fail": _BAD,
    "stopped": ("○", ""),
    "unknown": ("?", ""),
}
"""Every other state is a transition: … and blue."""


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
    """Name of the server whose checks and log are shown."""
    checks: Sequence[Check]
    log: Sequence[str]
    log_path: str
    notice: Notice
    as_of: float
    """Unix time [s]."""
    workspace: str = "."
    """As the panel was given it."""


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
        self._choice.add_class("tau-server-choice")
        self._launch = button("launch", "Launch", "play", button_style="primary")
        self._verify = button("verify", "Verify", "check")
        self._stop = button("stop", "Stop", "stop")
        self._launch.on_click(self._on_launch)
        self._verify.on_click(lambda _: self.act("Verifying", self._verify_chosen, self._verify))
        self._stop.on_click(self._on_stop)
        self.view.many = False

    def controls(self) -> Sequence[Any]:
        """Return the row of buttons."""
        return [ipywidgets.HBox([self._choice, self._launch, self._verify, self._stop])]

    def snapshot(self) -> ServerSnapshot:
        """Read registry, states and the chosen server's log."""
        if self._stop_asked_at and time.monotonic() - self._stop_asked_at > CONFIRM_S:
            self._ask_to_stop(asked=False)
        known = server_states(self._workspace)
        chosen = self._chosen([record.name for record, _ in known])
        shown = next((record for record, _ in known if record.name == chosen), None)
        return ServerSnapshot(
            rows=[_server_row(record, state) for record, state in known],
            chosen=chosen,
            checks=self._checks_of(shown) if shown else [],
            log=Server(shown, workspace=self._workspace).tail(LOG_LINES) if shown else [],
            log_path=shown.log_out if shown else "",
            notice=self.notice,
            as_of=time.time(),
            workspace=str(self._workspace),
        )

    def render(self, snapshot: ServerSnapshot) -> Rendered:
        """Turn a snapshot into HTML and text."""
        return render_servers(snapshot)

    def _chosen(self, names: Sequence[str]) -> str:
        picked = [name for name in self.view.picked if name in names]
        return picked[0] if picked else (names[0] if len(names) == 1 else "")

    def _checks_of(self, record: ServerRecord) -> Sequence[Check]:
        return self._checks.get(record.name) or (record.certificate.checks if record.certificate else [])

    def _current(self) -> Server:
        chosen = self._chosen([record.name for record in Registry(self._workspace).list()])
        if not chosen:
            raise ParamsError("No server is picked.", next_step="Click a server's name in the table first.")
        return open_server(chosen, workspace=self._workspace)

    def _on_launch(self, _: Any) -> None:
        name = str(self._choice.value)
        self.act(f"Launching {name}", lambda: self._start(name), self._launch)

    def _start(self, name: str) -> str:
        servers = tt.launch(name, workspace=self._workspace)
        self.view.picked = [servers[0].name]
        for server in servers:
            server.wait_ready(on_check=self._new_checks(server).append)
        return f"{name} is verified."

    def _verify_chosen(self) -> str:
        server = self._current()
        certificate = server.verify(on_check=self._new_checks(server).append)
        return f"{server.record.name} is {'verified' if certificate.passed else 'NOT verified: see the checks'}."

    def _new_checks(self, server: Server) -> list[Check]:
        """Return the list that running checks are added to; they are shown as they come."""
        self._checks[server.name] = []
        return self._checks[server.name]

    def _on_stop(self, _: Any) -> None:
        if not self._stop_asked_at:
            self._ask_to_stop(asked=True)
            return
        self._ask_to_stop(asked=False)
        self.act("Stopping", self._end, self._stop)

    def _end(self) -> str:
        server = self._current()
        server.stop()
        return f"{server.record.name} is stopped."

    def _ask_to_stop(self, *, asked: bool) -> None:
        self._stop_asked_at = time.monotonic() if asked else 0.0
        self._stop.description = "Really stop?" if asked else "Stop"
        self._stop.button_style = "danger" if asked else ""


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


def render_servers(snapshot: ServerSnapshot) -> Rendered:
    """Turn a snapshot into HTML for the page and text for a terminal."""
    name = escape(snapshot.chosen)
    ready = any(row.name == snapshot.chosen and row.state == "ready" for row in snapshot.rows)
    parts = (
        f"<div class='tau-meta'>as of {clock(snapshot.as_of)}</div>",
        _servers_table(snapshot.rows),
        snapshot.notice.to_html(),
        _usage_code(snapshot.chosen, snapshot.workspace) if ready else "",
        _checks_table(snapshot.chosen, snapshot.checks) if snapshot.checks else "",
        f"<div class='tau-meta'>log of {name}: {escape(snapshot.log_path)}</div>" if snapshot.log else "",
        log_html(snapshot.log, f"log of {snapshot.chosen}"),
    )
    return Rendered("".join(parts), _servers_text(snapshot))


def _servers_table(rows: Sequence[ServerRow]) -> str:
    if not rows:
        return "<p>No server in this workspace. Choose one above and press <b>Launch</b>.</p>"
    body = (
        (
            f"<td>{_pick_button(row.name)}{' SIMULATED' if row.simulated else ''}</td>",
            f"<td class='tau-state' data-server='{escape(row.name)}'>{_state_html(row)}</td>",
            f"<td>{escape(row.model)}</td><td>{escape(row.base_url)}</td>",
            f"<td>{clock(row.verified_at) if row.verified_at else 'no'}</td>",
        )
        for row in rows
    )
    return table_html(("server", "state", "model", "address", "verified"), body, css="tau-servers")


def _pick_button(name: str) -> str:
    return f"<button type='button' data-pick='{escape(name)}'>{escape(name)}</button>"


def _state_html(row: ServerRow) -> str:
    glyph, css = SERVER_GLYPHS.get(row.state, ("…", "tau-busy"))
    detail = f" <span class='tau-meta'>{escape(row.detail)}</span>" if row.detail else ""
    return f"<span class='{css}'>{glyph} {escape(row.state.upper())}</span>{detail}"


def _usage_code(name: str, workspace: str) -> str:
    """Return what a person pastes into a cell to use the server; its key is found by its name."""
    imports = "from pathlib import Path\nfrom tautools.servers import open_server\n"
    code = f"{imports}open_server({name!r}, workspace=Path({workspace!r})).endpoint()"
    return (
        f"<div class='tau-meta'>{escape(name)} in a cell:</div>"
        f"<pre class='tau-code' aria-label='code that uses {escape(name)}'>{escape(code)}</pre>"
    )


def _checks_table(name: str, checks: Sequence[Check]) -> str:
    results = {
        None: "– not asked",
        True: "<span class='tau-ok'>✔ passed</span>",
        False: "<span class='tau-bad'>✖ failed</span>",
    }
    rows = (
        (
            f"<td class='tau-number'>{check.number}</td><td>{escape(check.name)}</td><td>{results[check.passed]}</td>",
            f"<td class='tau-number'>{check.took_s * 1000:.0f}</td><td>{escape(check.detail)}</td>",
        )
        for check in checks
    )
    heads = ("no.", "check", "result", "took [ms]", "answer")
    return table_html(heads, rows, css="tau-checks", caption=f"Verification of {escape(name)}")


def _servers_text(snapshot: ServerSnapshot) -> str:
    lines = [f"Servers (as of {clock(snapshot.as_of)})"]
    for row in snapshot.rows:
        glyph = SERVER_GLYPHS.get(row.state, ("…", ""))[0]
        lines.append(f"  {glyph} {row.name:<16} {row.state.upper():<10} {row.model}  {row.base_url}")
    if not snapshot.rows:
        lines.append("  none")
    words = {True: "passed", False: "failed", None: "not asked"}
    lines += [
        f"  check {each.number} {each.name}: {words[each.passed]} {each.detail}".rstrip() for each in snapshot.checks
    ]
    return "\n".join([*lines, *([snapshot.notice.text] if snapshot.notice.text else [])])
