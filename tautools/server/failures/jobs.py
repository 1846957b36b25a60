"""Failures of Slurm's: what it refuses, and how it ends a job."""

from __future__ import annotations

from tautools.server.failures.row import failure

__all__ = ["JOBS"]

JOBS = (
    failure(
        "48",
        "time_limit",
        r"DUE TO TIME LIMIT",
        "The job's time was up.",
        "Ask for more time, or let a successor take over before the end.",
    ),
    failure(
        "49",
        "not_associated",
        r"Invalid qos specification|Invalid account",
        "Slurm does not let this user use the account with the QOS.",
        "See what you may use (`sacctmgr show assoc user=$USER`), and correct `account` and `qos` in the site file.",
    ),
    failure(
        "50",
        "no_such_nodes",
        r"Requested node configuration is not available",
        "No node of the partition has what was asked for, or the partition wants a card in every request.",
        "Ask for fewer cards, cores or less memory, and name the card (`gres`) in the site file.",
    ),
    failure(
        "51",
        "unknown_gres",
        r"Invalid generic resource \(gres\) specification",
        "Slurm knows no such card.",
        "Take its name from `sinfo -o %G`, for `gres` in the site file.",
    ),
    failure(
        "52",
        "inherited_job_variables",
        r"SLURM_MEM_PER_CPU.*mutually exclusive|mutually exclusive.*SLURM_MEM_PER",
        "Variables of the job that this session runs in were taken for the new job.",
        "Submit without SLURM_*, SBATCH_* and SRUN_* variables, as `tautools` does by itself.",
    ),
    failure(
        "77",
        "preempted",
        r"DUE TO PREEMPTION",
        "The job had to make way for one of a higher priority.",
        "Start it again; a QOS or partition that is not preempted keeps it.",
    ),
    failure(
        "78",
        "node_failed",
        r"DUE TO NODE FAILURE",
        "The job's node failed.",
        "Start it again; `exclude` of the site leaves the node out.",
    ),
    failure(
        "79",
        "no_such_partition",
        r"[Ii]nvalid partition(?: name)? specified|User's group not permitted to use this partition",
        "There is no such partition, or this user may not use it.",
        "See `sinfo -o '%P %G %l'`, and correct `partition` in the site file.",
    ),
    failure(
        "80",
        "over_a_limit",
        r"Job violates accounting/QOS policy",
        "A limit of the account or the QOS forbids this job.",
        "Ask for fewer cards, cores, less memory or time; `sacctmgr show qos` and `show assoc` tell the limits.",
    ),
    failure(
        "81",
        "time_limit_refused",
        r"Requested time limit is invalid|Invalid --time specification",
        "The time limit is no time that Slurm reads, or more than the partition allows.",
        "Correct `time_limit` in the site file; `sinfo -o '%P %l'` tells the partition's.",
    ),
    failure(
        "82",
        "slurm_silent",
        r"Unable to contact slurm controller|Socket timed out on send/recv operation",
        "Slurm's controller did not answer.",
        "Try `sinfo`; submit again when it answers.",
    ),
)
