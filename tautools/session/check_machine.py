"""The doctor's look at the machine: workspace, disk, memory, processors, open files, browser, cards."""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tautools.files import why_not_writable
from tautools.session.findings import Finding, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.session.surroundings import Surroundings

__all__ = ["check_browser", "check_cards", "check_hub_cache", "check_machine", "check_workspace"]

_GIB = 2**30
_CARD_COMMANDS = {
    "nvidia-smi": ["--query-gpu=index,name,memory.used,memory.total", "--format=csv,noheader"],
    "hl-smi": ["-Q", "index,module_id,memory.used,memory.total", "-f", "csv,noheader"],
}


def check_workspace(around: Surroundings) -> Iterator[Finding]:
    """Look whether the workspace is there, can be written to, and has space left."""
    folder = around.workspace
    if not folder.is_dir():
        remedy = f"Make it: `tautools init {folder} --site {around.site.name}`."
        yield Finding("workspace", Status.FAIL, f"{folder} does not exist", remedy)
        return
    reason = why_not_writable(folder)
    if reason:
        yield Finding("workspace", Status.FAIL, f"{folder}: {reason}", "Choose a folder of yours with --workspace.")
    else:
        yield Finding("workspace", Status.OK, f"{folder} can be written to")
    free = shutil.disk_usage(folder).free / _GIB
    status = Status.FAIL if free < 0.5 else Status.WARN if free < 5 else Status.OK
    remedy = "" if status is Status.OK else "Free space, or choose a workspace on a larger disk."
    yield Finding("disk", status, f"{free:.1f} GiB free in the workspace", remedy)


def check_machine(_around: Surroundings) -> Iterator[Finding]:
    """Look at processors, memory and open files, as far as this session may use them."""
    cores = len(os.sched_getaffinity(0))
    yield Finding("processors", Status.OK, f"{cores} usable by this session")
    available = min(psutil.virtual_memory().available, _memory_left()) / _GIB
    low = available < 2
    remedy = "Close other kernels, or ask for more memory; a run with eight conversations wants about 1 GiB."
    yield Finding("memory", Status.WARN if low else Status.OK, f"{available:.1f} GiB left", remedy if low else "")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        remedy = f"`ulimit -n {hard}` before starting; each conversation holds a connection."
        yield Finding("open files", Status.WARN, f"at most {soft}", remedy)
    else:
        yield Finding("open files", Status.OK, f"at most {soft}")


def check_browser(around: Surroundings) -> Iterator[Finding]:
    """Look for a Chromium, which only the tests of the panels need."""
    path = around.environ.get("CHROMIUM") or around.which("chromium") or around.which("google-chrome")
    yield Finding("chromium", Status.OK, path or "not here; only the tests of the panels need one")


def check_cards(around: Surroundings) -> Iterator[Finding]:
    """Ask the cards' own command which cards this session sees, and whether they are in use."""
    seen: list[str] = []
    for command, words in _CARD_COMMANDS.items():
        if around.which(command):
            seen += [f"{command}: {line.strip()}" for line in around.ask([command, *words])]
    device = around.site.device
    if seen:
        yield Finding("cards", Status.OK, "; ".join(seen))
    elif device not in ("cuda", "gaudi"):
        yield Finding("cards", Status.OK, f"none seen; the site's device is {device}")
    elif around.site.scheduler == "slurm":
        remedy = f"Servers run in jobs that ask for {around.site.gres or 'cards'}; a login session needs none."
        yield Finding("cards", Status.WARN, "none seen in this session", remedy)
    else:
        tool = "nvidia-smi" if device == "cuda" else "hl-smi"
        remedy = f"Check `{tool}`, or set `device` in params/sites/{around.site.name}.yaml."
        yield Finding("cards", Status.FAIL, f"no {device} card seen", remedy)


def check_hub_cache(around: Surroundings) -> Iterator[Finding]:
    """Look at the cache of the Hugging Face hub, where weights are kept."""
    environ = around.environ
    home = environ.get("HF_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".cache" / "huggingface")
    cache = Path(environ.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    needed = around.site.device != "none"
    models = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    nearest = next(folder for folder in (cache, *cache.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(nearest).free / _GIB
    found = f"{cache}: {models} models, {free:.0f} GiB free"
    if environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "on", "yes"}:
        found += ", offline"
    if needed and free < 80:
        remedy = "A 32B model takes 62 GiB: set HF_HOME to a larger disk before servers start."
        yield Finding("hub cache", Status.WARN, found, remedy)
    else:
        yield Finding("hub cache", Status.OK, found)


def _memory_left() -> float:
    """Return what the control group of this session still grants [bytes]; infinite when it sets no limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most = (Path("/sys/fs/cgroup") / limit).read_text().strip()
            now = (Path("/sys/fs/cgroup") / used).read_text().strip()
        except OSError:
            continue
        if most.isdecimal() and now.isdecimal():
            return max(0.0, float(most) - float(now))
    return float("inf")
