"""What is only observed about a run: versions, git revision, endpoints, served lengths.

It does not enter the setting id. A mix of it under one id is flagged, never refused.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tautools
from tautools.git import ask_git
from tautools.run.metrics import ask_version

if TYPE_CHECKING:
    from tautools.bench.types import Domain
    from tautools.run.roles import Cast

__all__ = ["mixed", "observe"]

_PACKAGES = ("inspect-evals", "inspect-ai", "litellm", "aiohttp", "pydantic")
_COMPARED = ("tautools", "git_revision", "packages", "server_version", "served_length")
"""A server's address may change from run to run without changing what is measured; these may not, silently."""


def observe(cast: Cast, domain: Domain) -> dict[str, Any]:
    """Return what can be seen now: never a key."""
    found = [(role, endpoint) for role, each in cast.endpoints.items() for endpoint in each]
    return {
        "tautools": tautools.__version__,
        "git_revision": git_revision(Path(tautools.__file__).parent.parent),
        "benchmark": {name: text for name, text in (("path", domain.path), ("python", domain.python)) if text},
        "packages": {name: _installed(name) for name in _PACKAGES},
        "endpoints": {
            role: [{"base_url": e.base_url, "model": e.model, "server": e.name} for e in each]
            for role, each in cast.endpoints.items()
        },
        "server_version": {role: ask_version(endpoint) for role, endpoint in found if endpoint.base_url},
        "served_length": {role: endpoint.max_model_len for role, endpoint in found},
        "simulated": sorted({role for role, endpoint in found if endpoint.simulated}),
    }


def mixed(first: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return one sentence for each compared fact that differs from the one first observed."""
    return [
        f"{name}: {first[name]} before, {now[name]} now"
        for name in _COMPARED
        if name in first and name in now and first[name] != now[name]
    ]


def git_revision(root: Path) -> str | None:
    """Return the revision of the checkout at `root`, with `-dirty` behind it; None when it is not a checkout.

    Nothing is written there: a person may be committing in it at this moment.
    """
    if not (root / ".git").exists():
        return None
    revision = ask_git(root, "describe", "--always", "--abbrev=40")
    # `describe --dirty` would take the index's lock, and leave it behind when this process is killed.
    changed = ask_git(root, "status", "--porcelain", "--untracked-files=no")
    return f"{revision}-dirty" if revision and changed else revision


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
