"""Slurm's reasons for waiting and for refusing, in sentences."""

from __future__ import annotations

_REASONS = {
    "": "It waits for the scheduler to look at it.",
    "None": "It waits for the scheduler to look at it.",
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
    known = _REASONS.get(reason) or _REASONS.get(reason.split(",", maxsplit=1)[0].strip())
    if known is not None:
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
