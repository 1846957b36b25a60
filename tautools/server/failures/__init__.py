"""The table of failures, as data: one row for each known line of a log or answer, numbered as in docs/servers.md.

`causes` reads logs with it. Within one line the first row that fits counts, so narrow rows stand before wide ones.
"""

from __future__ import annotations

from tautools.server.failures.cards import CARDS
from tautools.server.failures.client import CLIENT
from tautools.server.failures.jobs import JOBS
from tautools.server.failures.machine import MACHINE
from tautools.server.failures.memory import MEMORY
from tautools.server.failures.options import OPTIONS
from tautools.server.failures.row import Evidence, Failure
from tautools.server.failures.weights import WEIGHTS
from tautools.server.failures.wrappers import HARMLESS, WRAPPERS

__all__ = ["CLIENT", "FAILURES", "Evidence", "Failure"]

FAILURES: tuple[Failure, ...] = (*HARMLESS, *WRAPPERS, *OPTIONS, *MEMORY, *CARDS, *WEIGHTS, *MACHINE, *JOBS)
