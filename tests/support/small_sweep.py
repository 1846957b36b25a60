"""A workspace with simulated servers that answer at once, and a sweep of a few short conversations."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from tautools.params import load_sweep
from tautools.params.models import SweepParams


def server_file(workspace: Path, name: str, **simulate: Any) -> None:
    """Write a server file of a simulated model; `speed: 0` unless told otherwise."""
    folder = workspace / "params" / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"name": name, "engine": "simulate", "model": name, "simulate": {"speed": 0, **simulate}}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


def small_sweep(workspace: Path, **changes: Any) -> SweepParams:
    """Write and load a sweep of two nested cells: one env, one strategy, one agent, one and two trials of two tasks."""
    server_file(workspace, "quick")
    server_file(workspace, "customer")
    content: dict[str, Any] = {
        "name": "small",
        "grid": {"env": ["airline"], "strategy": ["fc"], "agent": ["quick"], "num_trials": [1, 2]},
        "user": "customer",
        "tasks": {"limit": 2},
        "grace_s": 2,
    }
    content["grid"] |= changes.pop("grid", {})
    folder = workspace / "params" / "sweeps"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "small.yaml").write_text(yaml.safe_dump(content | changes))
    return load_sweep("small", workspace=workspace)


def processes_of(workspace: Path) -> list[str]:
    """Return the command lines of processes, other than this one, that were started for `workspace`.

    A kernel is found by its folder or by the environment that it inherits.
    """
    mark = str(workspace)
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            ours = mark in words or mark == process.environ().get("TAUTOOLS_TEST_MARK")
            if ours and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(words)
        except psutil.Error:
            continue
    return found


def wait_until(true: Any, *, timeout_s: float = 60.0) -> None:
    """Return when `true()` is true."""
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{true} did not come true")
        time.sleep(0.05)
