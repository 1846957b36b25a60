"""What Slurm says of jobs and of nodes, read from fields and columns. Pure.

The JSON of `squeue` changes its shape from version to version; these fields do not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

SQUEUE_FORMAT = "%i|%T|%L|%S|%N|%r"
SACCT_FIELDS = "JobID,State,ExitCode,NodeList"


class JobState(StrEnum):
    """The states of a job, as far as a server's fate differs with them."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETING = "completing"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"
    TIMEOUT = "timeout"
    PREEMPTED = "preempted"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAIL = "node_fail"
    UNKNOWN = "unknown"

    @property
    def ended(self) -> bool:
        """Whether nothing of the job runs or will run by itself."""
        return self in _ENDED


_ENDED = {
    JobState.COMPLETED,
    JobState.CANCELLED,
    JobState.FAILED,
    JobState.TIMEOUT,
    JobState.PREEMPTED,
    JobState.OUT_OF_MEMORY,
    JobState.NODE_FAIL,
}

_STATE_ALIASES = {
    "BOOT_FAIL": JobState.NODE_FAIL,
    "CONFIGURING": JobState.PENDING,
    "DEADLINE": JobState.TIMEOUT,
    "REQUEUED": JobState.PENDING,
    "REQUEUE_FED": JobState.PENDING,
    "REQUEUE_HOLD": JobState.PENDING,
    "RESIZING": JobState.RUNNING,
    "SIGNALING": JobState.RUNNING,
    "SPECIAL_EXIT": JobState.PENDING,
    "STAGE_OUT": JobState.COMPLETING,
    "STOPPED": JobState.SUSPENDED,
}


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """One job, as Slurm reported it."""

    job_id: str
    state: JobState
    reason: str = ""
    """Slurm's own word for why it waits, such as `Priority`."""
    node: str = ""
    left_s: float | None = None
    """Until its time limit [s]; None when there is none or it is not known."""
    starts_at: float | None = None
    """When it started, or is thought to start [s since the epoch]."""


def job_state(word: str) -> JobState:
    """Return the state that Slurm's word means; a word that is not known is UNKNOWN."""
    first = word.strip().split(" ")[0].upper()
    if first.endswith("+"):  # cut off by a column that is too narrow, as `sacct` does by itself
        first = next(
            (name for name in (*(s.name for s in JobState), *_STATE_ALIASES) if name.startswith(first[:-1])), first[:-1]
        )
    if first in _STATE_ALIASES:
        return _STATE_ALIASES[first]
    try:
        return JobState(first.lower())
    except ValueError:
        return JobState.UNKNOWN


def parse_squeue(text: str) -> dict[str, SlurmJob]:
    """Return the jobs of `squeue --noheader --format=SQUEUE_FORMAT` by id; lines of another shape are left out."""
    found = {}
    for line in text.splitlines():
        fields = line.split("|", 5)
        if len(fields) == 6 and fields[0]:
            job_id, state, left, starts, node, reason = (field.strip() for field in fields)
            wait = "" if reason == "None" else reason
            found[job_id] = SlurmJob(job_id, job_state(state), wait, node, parse_duration(left), parse_moment(starts))
    return found


def parse_sacct(text: str) -> dict[str, SlurmJob]:
    """Return the jobs of `sacct -X --noheader --parsable2 --format=SACCT_FIELDS` by id."""
    found = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == 4 and fields[0]:
            found[fields[0]] = SlurmJob(fields[0], job_state(fields[1]), node=fields[3])
    return found


def parse_duration(text: str) -> float | None:
    """Return a duration of Slurm's [s]: `D-HH:MM:SS`, `D-HH:MM`, `D-HH`, `HH:MM:SS`, `MM:SS` or minutes; else None."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        return None
    days, *parts = (None if part is None else int(part) for part in match.groups())
    first, second, third = parts
    if days is not None:
        return ((days * 24 + (first or 0)) * 60 + (second or 0)) * 60.0 + (third or 0)
    if third is not None:
        return ((first or 0) * 60 + (second or 0)) * 60.0 + third
    return (first or 0) * 60.0 + (second or 0)


def parse_moment(text: str) -> float | None:
    """Return a time of Slurm's, which is this machine's local time, in seconds since the epoch."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


NODE_FORMAT = "NodeList:64,StateLong:24,Gres:128,GresUsed:128"
_WIDTHS = (64, 24, 128, 128)


@dataclass(frozen=True, slots=True)
class Node:
    """One node."""

    name: str
    state: str
    cards: int = 0
    cards_used: int = 0


def parse_nodes(text: str) -> list[Node]:
    """Return the nodes of `sinfo --Node --noheader --Format=NODE_FORMAT`, each once, in their order."""
    found: dict[str, Node] = {}
    for line in text.splitlines():
        fields, at = [], 0
        for width in _WIDTHS:
            fields.append(line[at : at + width].strip())
            at += width
        name, state, there, used = fields
        if name:
            found[name] = Node(name, state.rstrip("*~#!%$@^-"), _count_gpus(there), _count_gpus(used))
    return list(found.values())


def _count_gpus(text: str) -> int:
    """Return how many cards `gpu:hl225:8(S:0)` or `gpu:hl225:2(IDX:0-1)` says."""
    counts = re.findall(r"gpu(?::[\w.-]+?)?:(\d+)(?=\(|,|$)", text)
    return sum(int(each) for each in counts)
