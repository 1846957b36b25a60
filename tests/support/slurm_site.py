"""A site of the real Slurm for tests, and its commands."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from real_slurm import ACCOUNT, QOS

from tautools.params.models import SiteParams
from tautools.servers import Server
from tautools.shell import run_command


def site_with(**fields: Any) -> SiteParams:
    """Return a site whose jobs ask for one core and one card."""
    asked = {"account": ACCOUNT, "partition": "gaudi", "qos": QOS, "cores": 1, "memory_gib": 1, "host": "127.0.0.1"}
    more = {"name": "here", "scheduler": "slurm", "gres": "gpu:hl225:1", "time_limit": "00:10:00"}
    return SiteParams.model_validate(asked | more | fields)


def ask(*words: str) -> str:
    """Return what one of Slurm's commands says."""
    done = run_command(words, timeout_s=60)
    assert done.exit_code == 0, f"{shlex.join(words)}: {done.stderr}"
    return done.stdout


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def left_in(workspace: Path) -> list[str]:
    """Return the files of the registry, without its lock and how long starts took, which stay."""
    found = (path for path in (workspace / "servers").rglob("*") if path.is_file())
    return sorted(path.name for path in found if path.name not in {".lock", "starts.jsonl"})


def processes_of(server: Server) -> list[str]:
    """Return the command lines that carry the launch's own name."""
    found = subprocess.run(["ps", "-ewwo", "stat,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if server.record.alias in line and not line.startswith("Z")]
