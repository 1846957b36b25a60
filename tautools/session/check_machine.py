"""Doctor checks of Python and the machine: packages, disk, memory, processors, open files, browser, accelerators."""

from __future__ import annotations

import contextlib
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
from tautools.errors import TautoolsError
from tautools.files import why_not_writable
from tautools.servers.accelerators.probe import CARD_VARIABLES, read_cards
from tautools.servers.model_cache import cache_folder, free_bytes, hub_is_off
from tautools.session.findings import fails, good, warns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tautools.servers.accelerators.probe import Card
    from tautools.session.findings import DoctorFinding, SessionContext

_GIB = 2**30


def check_python(_context: SessionContext) -> Iterator[DoctorFinding]:
    """Check the interpreter's version, and tell tautools' own."""
    seen = f"{platform.python_version()} at {sys.executable}"
    yield fails("python", seen, "Use Python 3.11 or newer.", when=sys.version_info[:2] < (3, 11))
    yield good("tautools", __version__)


def check_dependencies(_context: SessionContext) -> Iterator[DoctorFinding]:
    """Compare what is installed with what tautools asks for."""
    try:
        requirements = [each for each in metadata.requires("tautools") or [] if "extra ==" not in each]
    except metadata.PackageNotFoundError:
        next_step = "Install tautools: `pip install -e .` in the clone."
        yield fails("dependencies", "tautools is not installed, only importable", next_step)
        return
    wrong = {each: difference for each in requirements if (difference := compare_requirement(each))}
    names = " ".join(f"'{requirement}'" for requirement in wrong)
    install = f"In this environment: `{sys.executable} -m pip install {names}`."
    fine = f"all {len(requirements)} are here, none older than its floor"
    yield fails("dependencies", "; ".join(wrong.values()), install, fine=fine)


def check_pins(context: SessionContext) -> Iterator[DoctorFinding]:
    """Compare the site's own environment with the site's pins; nothing is installed or changed."""
    pins, environment = context.site.pins, context.site_environment
    if not pins:
        return
    if environment.versions is None:
        reason = environment.problem or f"there is no `{' '.join(context.site.serve_command)}` here"
        next_step = "Run the doctor where the servers run, such as in a job; tautools' own environment does not matter."
        yield warns("pins", f"the site's environment cannot be asked: {reason}", next_step)
        return
    wrong = "; ".join(filter(None, (compare_requirement(each, environment.versions) for each in pins)))
    next_step = "Install them there, in the environment of the servers; nothing is changed here."
    fine = f"all {len(pins)} pins of {context.site.name} are met in its environment"
    yield warns("pins", wrong and f"in the site's environment {wrong}", next_step, fine=fine)


def compare_requirement(requirement: str, versions: Mapping[str, str] | None = None) -> str:
    """Return how an environment differs from a requirement such as `click>=8.1`; empty when it does not.

    `versions` are the packages installed there; those of this environment by default.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return f"`{requirement}` is not a requirement"
    if wanted.marker is not None and not wanted.marker.evaluate():
        return ""
    if versions is None:
        versions = {str(each.metadata["Name"]): each.version for each in metadata.distributions(name=wanted.name)}
    by_name = {canonicalize_name(name): version for name, version in versions.items()}
    version = by_name.get(canonicalize_name(wanted.name))
    if version is None:
        return f"{wanted.name} is missing ({wanted.specifier or 'any version'})"
    fits = wanted.specifier.contains(version, prereleases=True)
    return "" if fits else f"{wanted.name} is {version}, asked for {wanted.specifier}"


def check_workspace(context: SessionContext) -> Iterator[DoctorFinding]:
    """Check that the workspace exists, can be written to, its folders too, and has space left.

    Slurm ends a job silently whose log cannot be written.
    """
    folder = context.workspace
    if not folder.is_dir():
        next_step = f"Make it: `tautools init {folder} --site {context.site.name}`."
        yield fails("workspace", f"{folder} does not exist", next_step)
        return
    reason = why_not_writable(folder)
    next_step = "Choose a folder of yours with --workspace."
    yield fails("workspace", reason and f"{folder}: {reason}", next_step, fine=f"{folder} can be written to")
    free = shutil.disk_usage(folder).free / _GIB
    seen, next_step = f"{free:.1f} GiB free in the workspace", "Free space, or choose a workspace on a larger disk."
    yield (warns if free >= 0.5 else fails)("disk", seen, next_step, when=free < 5)
    there = [each for name in ("logs", "errors", "results") if (each := folder / name).exists()]
    wrong = "; ".join(f"{each}: {reason}" for each in there if (reason := why_not_writable(each)))
    fine = f"{', '.join(each.name for each in there) or 'none'} there; the others are made when needed"
    yield fails("folders", wrong, "Correct the permissions, or choose another workspace.", fine=fine)


def check_resources(_context: SessionContext) -> Iterator[DoctorFinding]:
    """Check processors, memory and open files, as far as this session may use them."""
    yield good("processors", f"{len(os.sched_getaffinity(0))} usable by this session")
    available = min(psutil.virtual_memory().available, _cgroup_memory_left()) / _GIB
    next_step = "Close other kernels, or ask for more memory; a run with eight conversations needs about 1 GiB."
    yield warns("memory", f"{available:.1f} GiB left", next_step, when=available < 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_step = f"`ulimit -n {hard}` before starting; each conversation has a connection."
    yield warns("open files", f"at most {soft}", next_step, when=soft < 1024)


def check_browser(context: SessionContext) -> Iterator[DoctorFinding]:
    """Look for a Chromium, which only the tests of the panels need."""
    path = context.environ.get("CHROMIUM") or context.which("chromium") or context.which("google-chrome")
    yield good("chromium", path or "not here; only the tests of the panels need one")


def check_cards(context: SessionContext) -> Iterator[DoctorFinding]:
    """Ask which accelerators this session sees, and whether they are in use."""
    site = context.site
    needed = site.device if site.device in CARD_VARIABLES else None
    try:
        cards = read_cards(needed)
    except TautoolsError as error:
        yield (fails if needed else warns)("cards", error.seen, error.next_step)
        return
    if cards:
        yield good("cards", "; ".join(map(_card_text, cards)))
    elif needed is None:
        yield good("cards", f"none seen; the site's device is {site.device}")
    elif site.uses_slurm:
        next_step = f"Servers run in jobs that ask for {site.gres or 'cards'}; a login session needs none."
        yield warns("cards", "none seen in this session", next_step)
    else:
        tool = "nvidia-smi" if needed == "cuda" else "hl-smi"
        next_step = f"Check `{tool}`, or set `device` in params/sites/{site.name}.yaml."
        yield fails("cards", f"no {needed} card seen", next_step)


def _card_text(card: Card) -> str:
    use = "idle" if card.idle else "in use"
    return f"{card.device} {card.index} {card.name}: {card.used_mib} of {card.total_mib} MiB, {use}"


def check_hub_cache(context: SessionContext) -> Iterator[DoctorFinding]:
    """Check the cache of the Hugging Face hub, where weights are kept."""
    cache = cache_folder(context.environ)
    models = len(list(cache.glob("models--*")))
    free = free_bytes(cache) / _GIB
    seen = f"{cache}: {models} models, {free:.0f} GiB free{', offline' if hub_is_off(context.environ) else ''}"
    next_step = "A 32B model takes 62 GiB: set HF_HOME to a larger disk before servers start."
    yield warns("hub cache", seen, next_step, when=context.site.device != "none" and free < 80)


def _cgroup_memory_left() -> float:
    """Return what the control group of this session still grants [bytes]; infinite when it sets no limit."""
    folder = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # `max` is no number: there is no limit
            return max(0.0, float(int((folder / limit).read_text()) - int((folder / used).read_text())))
    return float("inf")
