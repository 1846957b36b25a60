"""The doctor's look at Python: version, tautools, its dependencies, the site's pins."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import TYPE_CHECKING

from tautools import __version__
from tautools.session.findings import Finding, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.session.surroundings import Surroundings

__all__ = ["check_dependencies", "check_pins", "check_python", "compare"]

_LOWEST = (3, 11)


def check_python(_around: Surroundings) -> Iterator[Finding]:
    """Look at the interpreter and at tautools itself."""
    version = platform.python_version()
    if sys.version_info[:2] < _LOWEST:
        yield Finding("python", Status.FAIL, f"{version} at {sys.executable}", "Use Python 3.11 or newer.")
    else:
        yield Finding("python", Status.OK, f"{version} at {sys.executable}")
    yield Finding("tautools", Status.OK, __version__)


def check_dependencies(_around: Surroundings) -> Iterator[Finding]:
    """Compare what is installed with what tautools asks for."""
    try:
        asked = metadata.requires("tautools") or []
    except metadata.PackageNotFoundError:
        remedy = "Install tautools: `pip install -e .` in the clone."
        yield Finding("dependencies", Status.FAIL, "tautools is not installed, only importable", remedy)
        return
    needed = [requirement for requirement in asked if "extra ==" not in requirement]
    wrong = {requirement: seen for requirement in needed if (seen := compare(requirement))}
    if wrong:
        names = " ".join(f"'{requirement}'" for requirement in wrong)
        remedy = f"In this environment: `{sys.executable} -m pip install {names}`."
        yield Finding("dependencies", Status.FAIL, "; ".join(wrong.values()), remedy)
    else:
        yield Finding("dependencies", Status.OK, f"all {len(needed)} are here, none older than its floor")


def check_pins(around: Surroundings) -> Iterator[Finding]:
    """Compare this environment with the site's pins; nothing is installed or changed."""
    if not around.site.pins:
        return
    wrong = [seen for requirement in around.site.pins if (seen := compare(requirement))]
    if wrong:
        yield Finding(
            "pins",
            Status.WARN,
            "; ".join(wrong),
            "The pins are those of the site's own environment for servers and tau-bench. Keep that apart from "
            "tautools' environment; nothing is changed here.",
        )
    else:
        yield Finding("pins", Status.OK, f"all {len(around.site.pins)} pins of {around.site.name} are met")


def compare(requirement: str) -> str:
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
