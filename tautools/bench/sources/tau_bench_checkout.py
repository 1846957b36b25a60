"""Finds tau-bench (v1), a checkout or an installed package, and loads its modules without any model call."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.bench.sources.private_import import PrivateImport
from tautools.bench.sources.standing_in import stand_in_litellm
from tautools.errors import BenchError, NotHereError
from tautools.git import ask_git

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["PACKAGE", "VARIABLE", "Checkout", "find_checkout"]

PACKAGE = "tau_bench"
VARIABLE = "TAUTOOLS_TAU_BENCH_PATH"
_SHAPE = (ImportError, AttributeError, OSError, LookupError, TypeError, ValueError, SyntaxError)
"""What a checkout of another shape, or one that lacks files, ends in."""
_FILES = ("*.py", "*.json", "*.md")


def find_checkout(path: str | None = None) -> Path:
    """Return the folder that holds the package `tau_bench`: `path`, else where the variable says, else where installed.

    Raises
    ------
    NotHereError
        When none is named and none installed.
    BenchError
        When what is named is none.
    """
    named = path or os.environ.get(VARIABLE)
    if named:
        return _at(Path(named).expanduser(), "path" if path else VARIABLE)
    spec = util.find_spec(PACKAGE)
    for place in (spec.submodule_search_locations or []) if spec is not None else []:
        if (Path(place) / "envs").is_dir():
            return Path(place).resolve().parent
    raise NotHereError(
        "tau-bench is not here.",
        evidence=f"No path was given, {VARIABLE} is not set, and no package {PACKAGE} is installed.",
        next_step="Clone https://github.com/sierra-research/tau-bench and name the folder: `--path FOLDER`, or "
        f"`export {VARIABLE}=FOLDER`.",
    )


def _at(folder: Path, by: str) -> Path:
    for root in (folder, folder.parent):
        package = root / PACKAGE
        if (package / "envs").is_dir() and folder in {root, package}:
            return root.resolve()
    seen = ", ".join(sorted(each.name for each in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
    raise BenchError(
        f"{folder} is not a checkout of tau-bench.",
        evidence=f"Named by {by}; it has no {PACKAGE}/envs. There: {seen}.",
        next_step="Name the folder that `git clone` made, the one with README.md and tau_bench/ in it.",
    )


class Checkout:
    """One tau-bench, its modules loaded when they are asked for.

    Parameters
    ----------
    root : Path
        Folder that holds the package's folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules = PrivateImport(root, PACKAGE, {"litellm": stand_in_litellm()})

    @functools.cached_property
    def version(self) -> str:
        """The commit, else the installed version; what differs from either has a hash of the files behind it."""
        commit = ask_git(self.root, "rev-parse", "--short=12", "HEAD") if (self.root / ".git").exists() else None
        if commit:
            changed = ask_git(self.root, "status", "--porcelain", "--", PACKAGE)
            return f"{commit}+{self.digest[:8]}" if changed else commit
        installed = _installed(self.root)
        return f"{installed}+{self.digest[:8]}" if installed else f"files-{self.digest[:12]}"

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 over names and contents of the package's files."""
        found = hashlib.sha256()
        files = sorted(path for pattern in _FILES for path in (self.root / PACKAGE).rglob(pattern))
        for path in files:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{path.relative_to(self.root).as_posix()} {content}\n".encode())
        return found.hexdigest()

    def module(self, name: str) -> ModuleType:
        """Return a module of the package, such as `envs.user`."""
        with self.as_expected():
            return self._modules.module(f"{PACKAGE}.{name}")

    def envs(self) -> list[str]:
        """Return the names of the envs that it has."""
        return sorted(file.parent.name for file in (self.root / PACKAGE / "envs").glob("*/env.py"))

    def splits(self, env: str) -> list[str]:
        """Return the splits of an env, `test` first."""
        folder = self.root / PACKAGE / "envs" / env
        names = [file.stem.removeprefix("tasks_") for file in folder.glob("tasks_*.py")]
        return sorted(names, key=lambda name: (name != "test", name))

    def env(self, env: str, split: str) -> Any:
        """Return the package's own env object, with a person as its user: the one kind that asks no model."""
        get_env = self.module("envs").get_env
        with self.as_expected():
            return get_env(env, user_strategy="human", user_model="", task_split=split, task_index=0)

    @contextlib.contextmanager
    def as_expected(self) -> Iterator[None]:
        """Tell a checkout that has another shape from a mistake of ours or of the person."""
        try:
            yield
        except (
            ImportError,
            AttributeError,
            OSError,
            KeyError,
            IndexError,
            TypeError,
            ValueError,
            SyntaxError,
        ) as error:
            raise BenchError(
                f"The tau-bench in {self.root} is not the one that tautools knows.",
                evidence=f"{type(error).__name__}: {error}",
                next_step="Check that it is complete (`git status`, `git lfs pull`), or clone it anew.",
            ) from error


def _installed(root: Path) -> str | None:
    """Return the version of the installed distribution when this is the place it is installed in."""
    try:
        found = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    return found.version if Path(str(found.locate_file(PACKAGE))).resolve() == (root / PACKAGE).resolve() else None
