"""Doctor checks of Python and the machine: packages, disk, memory, processors, open files, browser, accelerators."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from tautools import __version__
from tautools.files import why_not_writable
from tautools.session.findings import DoctorFinding, FindingStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.session.findings import SessionContext


_OLDEST_PYTHON = (3, 11)


def check_python(_around: SessionContext) -> Iterator[DoctorFinding]:
    """Look at the interpreter and at tautools itself."""
    version = platform.python_version()
    if sys.version_info[:2] < _OLDEST_PYTHON:
        yield DoctorFinding("python", FindingStatus.FAIL, f"{version} at {sys.executable}", "Use Python 3.11 or newer.")
    else:
        yield DoctorFinding("python", FindingStatus.OK, f"{version} at {sys.executable}")
    yield DoctorFinding("tautools", FindingStatus.OK, __version__)


def check_dependencies(_around: SessionContext) -> Iterator[DoctorFinding]:
    """Compare what is installed with what tautools asks for."""
    try:
        asked = metadata.requires("tautools") or []
    except metadata.PackageNotFoundError:
        remedy = "Install tautools: `pip install -e .` in the clone."
        yield DoctorFinding("dependencies", FindingStatus.FAIL, "tautools is not installed, only importable", remedy)
        return
    needed = [requirement for requirement in asked if "extra ==" not in requirement]
    wrong = {requirement: seen for requirement in needed if (seen := compare_requirement(requirement))}
    if wrong:
        names = " ".join(f"'{requirement}'" for requirement in wrong)
        remedy = f"In this environment: `{sys.executable} -m pip install {names}`."
        yield DoctorFinding("dependencies", FindingStatus.FAIL, "; ".join(wrong.values()), remedy)
    else:
        yield DoctorFinding("dependencies", FindingStatus.OK, f"all {len(needed)} are here, none older than its floor")


def check_pins(around: SessionContext) -> Iterator[DoctorFinding]:
    """Compare this environment with the site's pins; nothing is installed or changed."""
    if not around.site.pins:
        return
    wrong = [seen for requirement in around.site.pins if (seen := compare_requirement(requirement))]
    if wrong:
        yield DoctorFinding(
            "pins",
            FindingStatus.WARN,
            "; ".join(wrong),
            "The pins are those of the site's own environment for servers and tau-bench. Keep that apart from "
            "tautools' environment; nothing is changed here.",
        )
    else:
        yield DoctorFinding("pins", FindingStatus.OK, f"all {len(around.site.pins)} pins of {around.site.name} are met")


def compare_requirement(requirement: str) -> str:
    """Return how this environment differs from a requirement such as `click>=8.1`; empty when it does not."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return f"`{requirement}` is not a requirement"
    if wanted.marker is not None and not wanted.marker.evaluate():
        return ""
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name} is missing ({wanted.specifier or 'any version'})"
    if wanted.specifier.contains(version, prereleases=True):
        return ""
    return f"{wanted.name} is {version}, asked for {wanted.specifier}"


_GIB = 2**30
_CARD_COMMANDS = {
    "nvidia-smi": ["--query-gpu=index,name,memory.used,memory.total", "--format=csv,noheader"],
    "hl-smi": ["-Q", "index,module_id,memory.used,memory.total", "-f", "csv,noheader"],
}


def check_workspace(around: SessionContext) -> Iterator[DoctorFinding]:
    """Look whether the workspace is there, can be written to, and has space left."""
    folder = around.workspace
    if not folder.is_dir():
        remedy = f"Make it: `tautools init {folder} --site {around.site.name}`."
        yield DoctorFinding("workspace", FindingStatus.FAIL, f"{folder} does not exist", remedy)
        return
    reason = why_not_writable(folder)
    if reason:
        yield DoctorFinding(
            "workspace", FindingStatus.FAIL, f"{folder}: {reason}", "Choose a folder of yours with --workspace."
        )
    else:
        yield DoctorFinding("workspace", FindingStatus.OK, f"{folder} can be written to")
    free = shutil.disk_usage(folder).free / _GIB
    status = FindingStatus.FAIL if free < 0.5 else FindingStatus.WARN if free < 5 else FindingStatus.OK
    remedy = "" if status is FindingStatus.OK else "Free space, or choose a workspace on a larger disk."
    yield DoctorFinding("disk", status, f"{free:.1f} GiB free in the workspace", remedy)


def check_machine(_around: SessionContext) -> Iterator[DoctorFinding]:
    """Look at processors, memory and open files, as far as this session may use them."""
    cores = len(os.sched_getaffinity(0))
    yield DoctorFinding("processors", FindingStatus.OK, f"{cores} usable by this session")
    available = min(psutil.virtual_memory().available, _cgroup_memory_left()) / _GIB
    low = available < 2
    remedy = "Close other kernels, or ask for more memory; a run with eight conversations wants about 1 GiB."
    yield DoctorFinding(
        "memory", FindingStatus.WARN if low else FindingStatus.OK, f"{available:.1f} GiB left", remedy if low else ""
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        remedy = f"`ulimit -n {hard}` before starting; each conversation holds a connection."
        yield DoctorFinding("open files", FindingStatus.WARN, f"at most {soft}", remedy)
    else:
        yield DoctorFinding("open files", FindingStatus.OK, f"at most {soft}")


def check_browser(around: SessionContext) -> Iterator[DoctorFinding]:
    """Look for a Chromium, which only the tests of the panels need."""
    path = around.environ.get("CHROMIUM") or around.which("chromium") or around.which("google-chrome")
    yield DoctorFinding("chromium", FindingStatus.OK, path or "not here; only the tests of the panels need one")


def check_cards(around: SessionContext) -> Iterator[DoctorFinding]:
    """Ask the cards' own command which cards this session sees, and whether they are in use."""
    seen: list[str] = []
    for command, words in _CARD_COMMANDS.items():
        if around.which(command):
            seen += [f"{command}: {line.strip()}" for line in around.ask([command, *words])]
    device = around.site.device
    if seen:
        yield DoctorFinding("cards", FindingStatus.OK, "; ".join(seen))
    elif device not in ("cuda", "gaudi"):
        yield DoctorFinding("cards", FindingStatus.OK, f"none seen; the site's device is {device}")
    elif around.site.uses_slurm:
        remedy = f"Servers run in jobs that ask for {around.site.gres or 'cards'}; a login session needs none."
        yield DoctorFinding("cards", FindingStatus.WARN, "none seen in this session", remedy)
    else:
        tool = "nvidia-smi" if device == "cuda" else "hl-smi"
        remedy = f"Check `{tool}`, or set `device` in params/sites/{around.site.name}.yaml."
        yield DoctorFinding("cards", FindingStatus.FAIL, f"no {device} card seen", remedy)


def check_hub_cache(around: SessionContext) -> Iterator[DoctorFinding]:
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
        yield DoctorFinding("hub cache", FindingStatus.WARN, found, remedy)
    else:
        yield DoctorFinding("hub cache", FindingStatus.OK, found)


def _cgroup_memory_left() -> float:
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
