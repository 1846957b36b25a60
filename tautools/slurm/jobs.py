"""What Slurm says of jobs and nodes, and its reasons for waiting and for refusing, in sentences. Pure.

The JSON of `squeue` changes its shape from version to version; these fields and columns do not.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

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
_STATES = {state.name: state for state in JobState} | {
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
"""By Slurm's words for them."""


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
    cut = (state for name, state in _STATES.items() if first.endswith("+") and name.startswith(first[:-1]))
    return _STATES.get(first) or next(cut, JobState.UNKNOWN)


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


_REASONS = {
    "": "It waits for the scheduler to look at it.",
    "Resources": "It is next in line; the cores, memory or cards that it asks for are in use.",
    "Priority": "Jobs with a higher priority are before it.",
    "Dependency": "It waits for another job.",
    "DependencyNeverSatisfied": "The job that it waits for ended in another way than asked; it will never start.",
    "BeginTime": "Its time to start has not come.",
    "JobHeldUser": "It is held by you; `scontrol release` lets it go.",
    "JobHeldAdmin": "It is held by an administrator.",
    "PartitionDown": "The partition is down.",
    "PartitionInactive": "The partition is inactive.",
    "PartitionTimeLimit": "It asks for more time than the partition allows; it will never start.",
    "PartitionNodeLimit": "It asks for more nodes than the partition has up.",
    "PartitionConfig": "The partition cannot give what it asks for.",
    "ReqNodeNotAvail": "A node that it needs is down, drained or reserved.",
    "Reservation": "It waits for its reservation.",
    "Licenses": "It waits for a licence.",
    "NodeDown": "A node that it needs is down.",
    "BadConstraints": "No node can give what it asks for.",
    "InvalidAccount": "The account is not valid here.",
    "InvalidQOS": "The QOS is not valid here.",
    "JobArrayTaskLimit": "The array runs as many tasks at once as it may.",
    "launch failed requeued held": "Its start failed on the node; it is held.",
    "Cleaning": "It is being cleaned up after an earlier start.",
}

_LIMITED = {
    "GRES": "cards",
    "Cpu": "cores",
    "CPU": "cores",
    "Mem": "memory",
    "Node": "nodes",
    "Submit": "submitted jobs",
    "Jobs": "running jobs",
    "Wall": "time",
}

_REFUSALS = {
    "invalid qos": "The QOS is not one that this account may use.",
    "invalid account": "The account is not one of yours, or may not use this partition.",
    "invalid partition": "There is no such partition.",
    "invalid generic resource": "The cards' type or name is not what this cluster calls them.",
    "node configuration is not available": "No node of the partition has so many cores, cards or so much memory.",
    "--time specification": "The time limit is not one that Slurm reads.",
    "time limit specification": "The time limit is not one that Slurm reads.",
    "requested time limit is invalid": "The time limit is more than the partition allows.",
    "violates accounting/qos policy": "A limit of the account or QOS forbids it.",
    "invalid feature specification": "No node has the asked-for constraint.",
    "more processors requested": "More cores are asked for than a node has.",
    "memory specification": "More memory is asked for than a node has.",
}

_UNREACHABLE = ("unable to contact slurm controller", "socket timed out", "connection refused", "zero bytes were")
"""What Slurm's commands say when the controller is down or overloaded."""


def explain_reason(reason: str) -> str:
    """Return a sentence for why a job waits; Slurm's own word stays in it where it says more."""
    if known := _REASONS.get(reason.partition(",")[0].strip()):
        return known
    for prefix, whose in (("QOS", "the QOS"), ("Assoc", "the account"), ("Max", "the account"), ("Grp", "the account")):
        if reason.startswith(prefix):
            what = next((word for part, word in _LIMITED.items() if part in reason), "")
            return f"A limit of {whose}{f' on {what}' if what else ''} is reached ({reason})."
    return f"Slurm says: {reason}."


def explain_refusal(message: str) -> str:
    """Return a sentence for what `sbatch` refused; empty when it is not one that is known."""
    lower = message.lower()
    return next((sentence for part, sentence in _REFUSALS.items() if part in lower), "")


def is_unreachable(message: str) -> bool:
    """Return whether a command failed because the controller does not answer, which is no fault of the job."""
    lower = message.lower()
    return any(part in lower for part in _UNREACHABLE)
