"""A workspace's own copy of a notebook knows its workspace.

Jupyter starts a kernel in the notebook's folder, papermill in the one it is called from; the shipped default `.` would
be another workspace each time.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["notebook_for"]

_ANYWHERE = 'workspace: str = "."'


def notebook_for(workspace: Path, shipped: bytes) -> bytes:
    """Return a shipped notebook whose parameter `workspace` defaults to an absolute path.

    Parameters
    ----------
    workspace : Path
        Absolute path of the workspace that the copy is written into.
    shipped : bytes
        The notebook as shipped; one without that parameter comes back as it is.
    """
    notebook = json.loads(shipped)
    own = f"workspace: str = {str(workspace)!r}"
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            cell["source"] = [line.replace(_ANYWHERE, own) for line in cell["source"]]
    return f"{json.dumps(notebook, indent=1)}\n".encode()
