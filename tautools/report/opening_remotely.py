"""How to open a report that lies on another machine than the browser."""

from __future__ import annotations

import getpass
import shlex
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["how_to_open"]


def how_to_open(page: Path, *, port: int = 8000) -> str:
    """Return the ways to open a page from a remote session: copying it, JupyterLab, a tunnel to a loopback server."""
    there = f"{getpass.getuser()}@{socket.gethostname()}"
    folder = shlex.quote(str(page.parent))
    source = shlex.quote(f"{there}:{page.parent}")
    return "\n".join(
        [
            "To open it:",
            f"  on this machine     {page.as_uri()}",
            f"  in JupyterLab       right click {page.name} in the file browser, Open in New Browser Tab",
            f"  copied to yours     scp -r {source} .",
            f"  through a tunnel    here:  python -m http.server {port} --bind 127.0.0.1 --directory {folder}",
            f"                      yours: ssh -L {port}:127.0.0.1:{port} {there}",
            f"                      then   http://127.0.0.1:{port}/{page.name}",
            "                      (while it runs, everyone who is logged in here can read that folder)",
        ]
    )
