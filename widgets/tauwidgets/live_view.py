"""The part of a panel that changes: one HTML area that knows when its kernel is gone.

Plain widgets of a dead kernel stay on screen and look alive. This one receives a beat every second; after three missed
ones it greys out its whole panel and says so. Elements with a `data-pick` attribute can be clicked (or reached with the
keyboard, as they are buttons); what is picked comes back in `picked`.
"""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

__all__ = ["LiveView"]

_HERE = Path(__file__).parent


class LiveView(anywidget.AnyWidget):
    """HTML from a pure render function, kept alive by a beat.

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
