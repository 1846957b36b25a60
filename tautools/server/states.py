"""The states of a server and what is told with one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Snapshot", "State"]


class State(StrEnum):
    """Where a server stands.

    READY is said of a server that was proven by the ladder and answers as itself now; never because a log says so, a
    port is open or a record lies on disk.
    """

    QUEUED = "queued"
    STARTING = "starting"
    VERIFYING = "verifying"
    READY = "ready"
    DEGRADED = "degraded"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAIL = "node_fail"
    UNKNOWN = "unknown"

    @property
    def final(self) -> bool:
        """Whether a server in this state comes back only by a new launch."""
        return self in _FINAL


_FINAL = {
    State.STOPPED,
    State.FAILED,
    State.TIMEOUT,
    State.PREEMPTED,
    State.OUT_OF_MEMORY,
    State.NODE_FAIL,
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A server's state at the moment it was asked."""

    state: State
    detail: str = ""
    """One sentence: the stage of a start, the cause of a failure, what a degraded server lacks."""
    age: float = 0.0
    """Since the server was started [s]."""
    stage: str = ""
    """While it starts: what it is doing, such as `loading weights`."""
    percent: int | None = None
    """While it starts: how far, in [0, 100], read from its log; a progress bar, never a proof."""
    next_step: str = ""
    """What to do about it, when something is wrong."""

    def __str__(self) -> str:
        share = "" if self.percent is None else f" {self.percent}%"
        return f"{self.state.value}{share}" + (f": {self.detail}" if self.detail else "")
