"""Where the files lie that come with tautools: the repository's folders, or their copy in the wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tautools.errors import ParamsError

__all__ = ["shipped"]


def shipped(kind: Literal["params", "notebooks"]) -> Path:
    """Return the folder of the shipped params or notebooks.

    Raises
    ------
    ParamsError
        When this installation lacks them.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_shipped" / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise ParamsError(
        f"This installation of tautools has no shipped {kind}.",
        evidence=f"Looked for {package / '_shipped' / kind} and {package.parent / kind}.",
        next_step="Install it again: `pip install --force-reinstall tautools`, or `pip install -e .` in a clone.",
    )
