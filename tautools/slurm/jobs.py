"""What Slurm says of jobs and nodes, and its reasons for waiting and for refusing, in sentences.

The JSON of `squeue` changes its shape from version to version; these fields and columns do not. What its words mean is
in `words.yaml`.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any

from tautools.files import packaged_yaml

SQUEUE_FORMAT = "%i|%T|%L|%S|%N|%r"
SACCT_FIELDS = "JobID,State,ExitCode,NodeList"
NODE_FORMAT = "NodeList:64,StateLong:24,Gres:128,GresUsed:128"
_NODE_COLUMNS = (slice(64), slice(64, 88), slice(88, 216), slice(216, 344))


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
        return self not in _ALIVE


_ALIVE = {JobState.PENDING, JobState.RUNNING, JobState.COMPLETING, JobState.SUSPENDED, JobState.UNKNOWN}


@cache
def _words() -> dict[str, Any]:
    """Return what Slurm's words and messages mean, as `words.yaml` says."""
    return dict(packaged_yaml(__package__, "words.yaml"))


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


@dataclass(frozen=True, slots=True)
class Node:
    """One node."""

    name: str
    state: str
    cards: int = 0
    cards_used: int = 0


def job_state(word: str) -> JobState:
    """Return the state that Slurm's word means, also one that a narrow column of `sacct` cut; else UNKNOWN."""
    first = word.strip().split(" ")[0].upper()
    states = {state.name: state.value for state in JobState} | _words()["states"]
    cut = (state for name, state in states.items() if first.endswith("+") and name.startswith(first[:-1]))
    return JobState(states.get(first) or next(cut, "unknown"))


def _rows(text: str, columns: int) -> list[list[str]]:
    """Return the fields of each line that has so many and begins with the id of a job."""
    rows = [[field.strip() for field in line.split("|", columns - 1)] for line in text.splitlines()]
    return [row for row in rows if len(row) == columns and row[0]]


def parse_squeue(text: str) -> dict[str, SlurmJob]:
    """Return the jobs of `squeue --noheader --format=SQUEUE_FORMAT` by id; lines of another shape are left out."""
    return {
        job_id: SlurmJob(
            job_id,
            job_state(state),
            "" if reason == "None" else reason,
            node,
            parse_duration(left),
            parse_moment(starts),
        )
        for job_id, state, left, starts, node, reason in _rows(text, 6)
    }


def parse_sacct(text: str) -> dict[str, SlurmJob]:
    """Return the jobs of `sacct -X --noheader --parsable2 --format=SACCT_FIELDS` by id."""
    return {job_id: SlurmJob(job_id, job_state(state), node=node) for job_id, state, _, node in _rows(text, 4)}


def parse_duration(text: str) -> float | None:
    """Return a duration of Slurm's [s]: `D-HH:MM:SS`, `D-HH:MM`, `D-HH`, `HH:MM:SS`, `MM:SS` or minutes; else None."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+(?::\d+){0,2})", text.strip())
    if match is None:
        return None
    parts = [int(part) for part in match[2].split(":")]
    units = (3600, 60, 1) if match[1] or len(parts) == 3 else (60, 1)
    return int(match[1] or 0) * 86400.0 + sum(part * unit for part, unit in zip(parts, units, strict=False))


def parse_moment(text: str) -> float | None:
    """Return a time of Slurm's, which is this machine's local time, in seconds since the epoch."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def parse_nodes(text: str) -> list[Node]:
    """Return the nodes of `sinfo --Node --noheader --Format=NODE_FORMAT`, each once, in their order."""
    found: dict[str, Node] = {}
    for line in text.splitlines():
        name, state, there, used = (line[column].strip() for column in _NODE_COLUMNS)
        if name:
            found[name] = Node(name, state.rstrip("*~#!%$@^-"), _count_gpus(there), _count_gpus(used))
    return list(found.values())


def _count_gpus(text: str) -> int:
    """Return how many cards `gpu:hl225:8(S:0)` or `gpu:hl225:2(IDX:0-1)` says."""
    return sum(map(int, re.findall(r"gpu(?::[\w.-]+?)?:(\d+)(?=\(|,|$)", text)))


def explain_reason(reason: str) -> str:
    """Return a sentence for why a job waits; Slurm's own word stays in it where it says more."""
    if known := _words()["reasons"].get(reason.partition(",")[0].strip()):
        return str(known)
    for prefix, whose in (("QOS", "the QOS"), ("Assoc", "the account"), ("Max", "the account"), ("Grp", "the account")):
        if reason.startswith(prefix):
            what = next((word for part, word in _words()["limits"].items() if part in reason), "")
            return f"A limit of {whose}{f' on {what}' if what else ''} is reached ({reason})."
    return f"Slurm says: {reason}."


def explain_refusal(message: str) -> str:
    """Return a sentence for what `sbatch` refused; empty when it is not one that is known."""
    lower = message.lower()
    return next((sentence for part, sentence in _words()["refusals"].items() if part in lower), "")


def is_unreachable(message: str) -> bool:
    """Return whether a command failed because the controller does not answer, which is no fault of the job."""
    lower = message.lower()
    return any(part in lower for part in _words()["unreachable"])
