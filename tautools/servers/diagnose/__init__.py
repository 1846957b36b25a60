"""Why a server failed to start: a table of known failures, and the rules that read a log with it."""

from __future__ import annotations

from tautools.servers.diagnose.table import (
    CARDS,
    CLIENT,
    HARMLESS,
    JOBS,
    MACHINE,
    MEMORY,
    OPTIONS,
    WEIGHTS,
    WRAPPERS,
    ExitEvidence,
    KnownFailure,
)

__all__ = ["CLIENT", "FAILURES", "ExitEvidence", "KnownFailure"]


FAILURES: tuple[KnownFailure, ...] = (*HARMLESS, *WRAPPERS, *OPTIONS, *MEMORY, *CARDS, *WEIGHTS, *MACHINE, *JOBS)
