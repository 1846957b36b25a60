"""Errors that name what there is, for a name that there is not."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from tautools.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["choose"]


def choose(kind: str, name: str, known: Collection[str], *, of: str = "") -> str:
    """Return `name` if it is known; `of` says in messages whose it would be.

    Parameters
    ----------
    kind : str
        What is named, as messages call it: `env`, `task`.
    name : str
        The name, as it was given.
    known : collection of str
        All names that exist.
    of : str
        Whose name it would be, for messages; empty when that goes without saying.

    Raises
    ------
    BenchError
        When it is not; the message names the nearest known names and all that exist.
    """
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    listed = ", ".join(known) if len(known) <= 20 else f"{len(known)} of them, the first {next(iter(known))!r}"
    raise BenchError(
        f"There is no {kind} {name!r}{of and f' of {of}'}.",
        evidence=f"The {kind}s{of and f' of {of}'} that exist: {listed}.",
        next_step=f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Choose one of the {kind}s that exist.",
    )
