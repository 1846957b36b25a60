"""What every panel is made of: a live view, one throttled writer thread, one pure render function, actions.

Rules kept here (each was measured to matter): state lives on disk and in plain objects, widgets only show it; one
thread per panel writes, at most twice a second; buttons hand their work to a thread of its own and show its error in
the panel; no output capture anywhere, because it can hang papermill for ever.
"""

import html
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from tautools.errors import TautoolsError
from tautools.redaction import redacted

REFRESH_S = 0.5
"""JupyterLab drops messages past a rate and never sends them again; two writes a second are far below it."""
RESEND_S = 30.0
"""The whole state is sent again this often, which heals a view that lost a message."""

_HERE = Path(__file__).parent


class LiveView(anywidget.AnyWidget):
    """HTML from a pure render function, kept alive by a beat.

    Plain widgets of a dead kernel stay on screen and look alive. This one receives a beat every second; after three
    missed ones it greys out its whole panel and says so.

    Attributes
    ----------
    html : str
        What is shown. Everything in it that came from a log or a server must be escaped already.
    beat : int
        Raised by the writer; the page measures its age.
    beat_s : float
        Seconds between beats.
    picked : list of str
        Values of the `data-pick` attributes that are selected.
    many : bool
        Whether several can be selected at a time.
    """

    _esm = _HERE / "live_view.js"
    _css = _HERE / "live_view.css"

    html = traitlets.Unicode("").tag(sync=True)
    beat = traitlets.Int(0).tag(sync=True)
    beat_s = traitlets.Float(1.0).tag(sync=True)
    many = traitlets.Bool(default_value=True).tag(sync=True)
    picked: traitlets.List[str] = traitlets.List(traitlets.Unicode()).tag(sync=True)


@dataclass(frozen=True, slots=True)
class Rendered:
    """One state of a panel, for the page and for a terminal."""

    html: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What the panel says about the last action."""

    text: str = ""
    error: bool = False

    def to_html(self) -> str:
        """Return the notice as HTML; nothing when it is empty."""
        kind = "tau-error" if self.error else "tau-meta"
        return f"<div class='{kind} tau-message'>{escape(self.text)}</div>" if self.text else ""


def escape(value: object) -> str:
    """Return `value` as text that is safe inside HTML."""
    return html.escape(str(value), quote=True)


def clock(at: float) -> str:
    """Return a moment [Unix time, s] as the local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def log_html(lines: Sequence[str], label: str) -> str:
    """Return the end of a log as HTML that keeps its scroll position; nothing when there is none."""
    text = escape("\n".join(lines))
    return f"<pre class='tau-log' aria-label='{escape(label)}'>{text}</pre>" if lines else ""


def table_html(heads: Iterable[str], rows: Iterable[Iterable[str]], *, css: str, caption: str = "") -> str:
    """Return a table of rows that are HTML already: `<td>…</td>` for each cell."""
    top = "".join(f"<th scope='col'>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    title = f"<caption>{caption}</caption>" if caption else ""
    return f"<table class='{css}'>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def button(name: str, description: str, icon: str, **options: Any) -> Any:
    """Return a button that tests and style sheets find as `.tau-<name>`."""
    made = ipywidgets.Button(description=description, icon=icon, **options)
    made.add_class(f"tau-{name}")
    return made


def headless() -> bool:
    """Whether nobody watches: then panels are a static picture and start no thread."""
    return os.environ.get("TAUTOOLS_HEADLESS", "") == "1"


class Panel(ABC):
    """A live view with buttons.

    Subclasses give `controls`, `snapshot` (reads the state, may touch the disk) and `render` (pure).
    """

    def __init__(self) -> None:
        self.view = LiveView()
        self._notice = Notice()
        self._running: set[str] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._wake = threading.Event()
        self._writer: threading.Thread | None = None
        self._sent = 0.0
        self._box: Any = None

    @abstractmethod
    def controls(self) -> Sequence[Any]:
        """Return the widgets above the view."""

    @abstractmethod
    def snapshot(self) -> Any:
        """Read the state to show; called by the writer thread only."""

    @abstractmethod
    def render(self, snapshot: Any) -> Rendered:
        """Turn a snapshot into HTML and text, and nothing else."""

    # -- what a notebook does with a panel

    def _repr_mimebundle_(self, **_: Any) -> Mapping[str, Any]:
        rendered = self._rendered()
        fallback = {"text/plain": rendered.text, "text/html": rendered.html}
        if headless():
            return fallback
        self._show(rendered)
        bundle = self.widget()._repr_mimebundle_()
        return {**bundle, **fallback}

    def widget(self) -> Any:
        """Return the panel as one ipywidgets box, and start keeping it alive."""
        if self._box is None:
            self._box = ipywidgets.VBox([*self.controls(), self.view])
            self._box.add_class("tau-panel")
        if self._writer is None and not headless():
            self._writer = threading.Thread(target=self._keep_alive, name=type(self).__name__, daemon=True)
            self._writer.start()
        return self._box

    def freeze(self) -> Any:
        """Stop the panel and return its last state as plain HTML that stays readable in the saved notebook."""
        from IPython.display import HTML

        self.close()
        return HTML(self._rendered().html)

    def close(self) -> None:
        """Stop the writer thread; what the panel started goes on."""
        self._closed.set()
        self._wake.set()

    # -- actions

    def act(self, name: str, work: Callable[[], str | None], *buttons: Any) -> None:
        """Run `work` in a thread of its own; disable `buttons` meanwhile; show its words or its error.

        Parameters
        ----------
        name : str
            What is being done, shown while it runs. A second action of the same name is refused.
        work : callable
            Returns what to say when it is done, or None.
        *buttons
            Widgets to disable meanwhile.
        """
        with self._lock:
            if name in self._running:
                return
            self._running.add(name)
        for button in buttons:
            button.disabled = True
        self.say(f"{name} …")
        threading.Thread(target=self._act, args=(name, work, buttons), name=name, daemon=True).start()

    def _act(self, name: str, work: Callable[[], str | None], buttons: Sequence[Any]) -> None:
        try:
            self.say(work() or f"{name}: done.")
        except TautoolsError as error:
            self.say(str(error), error=True)
        except Exception as error:  # noqa: BLE001 - a callback's exception is shown nowhere else
            self.say(redacted(f"{name} failed: {type(error).__name__}: {error}"), error=True)
        finally:
            with self._lock:
                self._running.discard(name)
            for button in buttons:
                button.disabled = False

    def say(self, text: str, *, error: bool = False) -> None:
        """Show one notice under the buttons."""
        self._notice = Notice(text, error)
        self._wake.set()

    @property
    def notice(self) -> Notice:
        """What the panel says about the last action."""
        return self._notice

    # -- the writer thread

    def _keep_alive(self) -> None:
        while not self._closed.is_set():
            began = time.monotonic()
            self._refresh()
            cost_s = time.monotonic() - began
            self._wake.wait(max(REFRESH_S, 4 * cost_s))
            self._wake.clear()

    def _rendered(self) -> Rendered:
        """Return what is shown now; an error is shown in its place, with what to do next."""
        try:
            return self.render(self.snapshot())
        except TautoolsError as error:
            return Rendered(f"<pre class='tau-error'>{escape(error)}</pre>", str(error))

    def _refresh(self) -> None:
        try:
            rendered = self._rendered()
        except Exception as error:  # noqa: BLE001 - shown in the panel; the thread must live on
            told = redacted(str(error))
            rendered = Rendered(f"<div class='tau-error'>{escape(told)}</div>", told)
        self._show(rendered)

    def _show(self, rendered: Rendered) -> None:
        now = time.monotonic()
        if self.view.html != rendered.html:
            self.view.html = rendered.html
        if now - self._sent > RESEND_S:
            self._sent = now
            self.view.send_state()
        self.view.beat += 1
