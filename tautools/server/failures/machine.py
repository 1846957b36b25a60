"""Failures of the machine around a server: ports, sockets, disks, its environment."""

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
        "60",
        "address_not_here",
        r"Cannot assign requested address",
        "The address that the server shall listen on is none of this machine's.",
        "Set `host` of the site to 0.0.0.0, 127.0.0.1, or an address that `ip addr` shows.",
    ),
    failure(
        "72",
        "too_many_files",
        r"Too many open files",
        "The server may not open so many files at once.",
        "Raise the limit with `ulimit -n` in the site's `activate` lines, or lower the concurrency.",
    ),
    failure(
        "73",
        "no_permission",
        r"\[Errno 13\]",
        "A file, folder or port may not be used by this user.",
        "See which one the line names; caches can be moved with VLLM_CACHE_ROOT and HF_HOME, ports start at 1024.",
        part="late",
    ),
    failure(
        "74",
        "command_missing",
        r"(?P<what>[\w./+-]+): command not found",
        "The command {what} is not there on the node.",
        "Name the environment that brings it: `modules`, `activate` and `serve_command` of the site.",
        part="late",
    ),
    failure(
        "75",
        "module_unknown",
        r"module\(s\) are unknown: (?P<what>.+)|Unable to locate a modulefile for '(?P<what2>[^']+)'",
        "The cluster has no module {what}.",
        "See `module avail`, and correct `modules` of the site.",
    ),
    failure(
        "76",
        "environment_unknown",
        r"EnvironmentNameNotFound: Could not find conda environment: (?P<what>\S+)|"
        r"Could not find conda environment: (?P<what2>\S+)|activate: No such file or directory",
        "The environment that the site activates is not there.",
        "See `mamba env list`, and correct `activate` of the site.",
    ),
    failure(
        "83",
        "name_not_known",
        r"Name or service not known|Temporary failure in name resolution|nodename nor servname provided",
        "A host name is not known on this machine.",
        "Correct `host` of the site when it is the server's own; else see whether the node has a network.",
        part="late",
    ),
)
