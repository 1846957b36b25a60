"""ServerPanel: choose a server, launch it, watch log and ladder, verify it, stop it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets

from tautools.errors import ParamsError
from tautools.params import list_params, load_server
from tautools.server import Registry, Server, Snapshot, launch, open_server, server_states
from tauwidgets.panel import Panel, Rendered
from tauwidgets.server_view import ServerRow, ServerSnapshot, render_servers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.records import Rung, ServerRecord

__all__ = ["ServerPanel"]

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
        self._rungs: dict[str, list[Rung]] = {}
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
            rows=[_row(record, state) for record, state in known],
            chosen=chosen,
            rungs=self._ladder(shown) if shown else [],
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

    def _ladder(self, record: ServerRecord) -> Sequence[Rung]:
        proven = record.certificate.rungs if record.certificate else []
        return self._rungs.get(record.name) or proven

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
        server.wait_ready(on_rung=self._new_ladder(server).append)
        return f"{name} is verified."

    def _on_verify(self, _: Any) -> None:
        self.act("Verifying", lambda: self._prove(self._current()), self._verify)

    def _prove(self, server: Server) -> str:
        certificate = server.verify(on_rung=self._new_ladder(server).append)
        verdict = "verified" if certificate.passed else "NOT verified: see the ladder"
        return f"{server.record.name} is {verdict}."

    def _new_ladder(self, server: Server) -> list[Rung]:
        """Return the list that the rungs of a climb under way go to, shown while they come."""
        rungs: list[Rung] = []
        self._rungs[server.name] = rungs
        return rungs

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


def _row(record: ServerRecord, seen: Snapshot) -> ServerRow:
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
