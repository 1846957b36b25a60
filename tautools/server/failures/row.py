"""One known way for a server to fail: how a log shows it, what it means, and what helps."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Evidence", "Failure", "Fix", "Part", "failure"]

Part = Literal["cause", "late", "wrapper", "harmless", "client"]
"""`late` counts only when the log shows no `cause`; `wrapper` repeats another process's failure; `harmless` is none."""

Fix = Callable[[Mapping[str, str], Mapping[str, Any]], Mapping[str, Any]]
"""From the words the pattern captured and the server's params: params to change, by dotted name; None removes one."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What must be known beside the line, because the line alone could mean something else."""

    exit_codes: frozenset[int] = frozenset()
    job_states: frozenset[str] = frozenset()
    or_unknown: bool = False
    """Whether the line is enough when neither exit status nor job state is known."""

    def holds(self, exit_code: int | None, job_state: str) -> bool:
        """Whether what is known allows the row."""
        if exit_code is None and not job_state:
            return self.or_unknown
        return exit_code in self.exit_codes or job_state in self.job_states


@dataclass(frozen=True, slots=True)
class Failure:
    """A row of the table. `cause` and `remedy` may name what the pattern captures, in braces."""

    row: str
    kind: str
    """A word for programs."""
    pattern: re.Pattern[str]
    cause: str
    remedy: str
    part: Part = "cause"
    fix: Fix | None = None
    evidence: Evidence | None = None


def failure(row: str, kind: str, pattern: str, cause: str, remedy: str, **more: Any) -> Failure:
    """Return a row; `pattern` is a regular expression that is searched in a line without its prefix.

    Parameters
    ----------
    row : str
        Its name in the table.
    kind : str
        A word for programs.
    pattern : str
        Regular expression, searched in a line without its prefix.
    cause, remedy : str
        For people; both may name what the pattern captures, in braces.
    **more
        `part`, `fix` and `evidence` of `Failure`.
    """
    return Failure(row, kind, re.compile(pattern), cause, remedy, **more)
