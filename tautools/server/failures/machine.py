"""Failures of the machine around a server: ports, sockets, disks, and Slurm's refusals."""

from __future__ import annotations

from tautools.server.failures.fixes import free_port, other_environment
from tautools.server.failures.row import failure

__all__ = ["MACHINE"]

MACHINE = (
    failure(
        "41",
        "internal_port_in_use",
        r"EADDRINUSE|ZMQError: Address already in use|zmq\.error.*Address already in use",
        "Two servers chose the same port for talk among their own processes.",
        "Unset VLLM_PORT and start them one after the other.",
        fix=other_environment(VLLM_PORT=None, MASTER_PORT=None),
    ),
    failure(
        "40",
        "port_in_use",
        r"(?i)address already in use",
        "The port is taken by another process.",
        "Start it again without a fixed port, or stop what listens there.",
        fix=free_port,
    ),
    failure(
        "42",
        "vllm_port_set",
        r"VLLM_PORT\b.*appears to be a URI",
        "VLLM_PORT holds an address; it is a port number for vLLM's inner use.",
        "Unset VLLM_PORT.",
        fix=other_environment(VLLM_PORT=None),
    ),
    failure(
        "43",
        "socket_path_too_long",
        r"is longer than 10[78] characters|AF_UNIX path too long",
        "The folder for sockets has too long a name.",
        "Set VLLM_RPC_BASE_PATH to a short folder, such as /tmp.",
        fix=other_environment(VLLM_RPC_BASE_PATH="/tmp"),  # noqa: S108 - a place every node has
    ),
    failure(
        "45",
        "disk_full",
        r"No space left on device|Disk quota exceeded",
        "The disk is full.",
        "Free space, or set VLLM_CACHE_ROOT, TMPDIR and HF_HOME to a larger disk.",
    ),
    failure(
        "46",
        "stale_file",
        r"Stale file handle",
        "A file of the shared disk was replaced while it was open.",
        "Start it again; keep caches on a disk of the node.",
        part="late",
    ),
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
)
