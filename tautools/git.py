"""What git says of a checkout. Nothing is written there: a person may be committing in it at this moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.shell import Shell

if TYPE_CHECKING:
    from pathlib import Path


def ask_git(root: Path, *words: str) -> str | None:
    """Return what `git <words>` prints for the checkout at `root`; None when it fails, or prints nothing."""
    try:
        done = Shell().run(["git", "--no-optional-locks", "-C", str(root), *words], timeout_s=5.0)
    except TautoolsError:
        return None
    return done.stdout.strip() or None if done.exit_code == 0 else None
