"""Where the checkout and its interpreter are, and whether they can be what tautools knows."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from tautools.errors import BenchError

__all__ = ["PATH_VARIABLE", "PYTHON_VARIABLE", "RECIPE", "Checkout", "find_checkout"]

PATH_VARIABLE = "TAUTOOLS_TAU2_BENCH_PATH"
PYTHON_VARIABLE = "TAUTOOLS_TAU2_BENCH_PYTHON"

KNOWN_VERSIONS = SpecifierSet("~=1.0")
"""Versions of the package whose modules are where `child` looks for them."""

RECIPE = (
    "Make the checkout an environment of its own, without its extras: `python3.12 -m venv {path}/.venv && "
    "{path}/.venv/bin/pip install -e {path}`; another interpreter is named by --python or {variable}."
)


@dataclass(frozen=True, slots=True)
class Checkout:
    """A tau2-bench checkout that can be tried."""

    path: Path
    python: Path
    version: str
    """Of the package, as its `pyproject.toml` says."""
    python_versions: str
    """Versions of Python that the package asks for; empty when it does not say."""

    @property
    def recipe(self) -> str:
        """How its environment is made."""
        return RECIPE.format(path=self.path, variable=PYTHON_VARIABLE)

    def accepts(self, python: str) -> bool:
        """Whether the package runs on a version of Python."""
        try:
            return SpecifierSet(self.python_versions).contains(Version(python), prereleases=True)
        except (InvalidSpecifier, InvalidVersion):
            return True


def find_checkout(path: str | None, python: str | None) -> Checkout:
    """Return the checkout and the interpreter that were named, or that the environment names.

    Parameters
    ----------
    path : str, optional
        The checkout's folder; `TAUTOOLS_TAU2_BENCH_PATH` when not given.
    python : str, optional
        Its interpreter; `TAUTOOLS_TAU2_BENCH_PYTHON`, or else the `.venv` inside the checkout when not given.

    Raises
    ------
    BenchError
        When either is missing, or the checkout is another version.
    """
    named = path or os.environ.get(PATH_VARIABLE)
    if not named:
        raise BenchError(
            "The source tau2-bench needs a checkout of tau2-bench.",
            next_step=f"Name its folder with --path, `path:` or {PATH_VARIABLE}.",
        )
    folder = Path(named).expanduser().resolve()
    version, python_versions = _project(folder)
    return Checkout(folder, _interpreter(folder, python), version, python_versions)


def _project(folder: Path) -> tuple[str, str]:
    file = folder / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        name, version = str(project["name"]), str(project.get("version", ""))
    except (OSError, ValueError, KeyError) as error:
        raise _not_a_checkout(folder, f"{file}: {type(error).__name__}: {error}") from error
    if name != "tau2" or not (folder / "src" / "tau2" / "__init__.py").is_file():
        raise _not_a_checkout(folder, f"{file} is of {name!r}; the package would be in {folder / 'src' / 'tau2'}.")
    if version not in KNOWN_VERSIONS:
        raise BenchError(
            f"tau2-bench {version} is not a version that tautools knows.",
            evidence=f"{file} says {version}; known: {KNOWN_VERSIONS}.",
            next_step="Check a known version out in another folder; tautools was compared with 1.0.1, commit a2c0247.",
        )
    return version, str(project.get("requires-python", ""))


def _not_a_checkout(folder: Path, evidence: str) -> BenchError:
    return BenchError(
        f"{folder} is not a checkout of tau2-bench.",
        evidence=evidence,
        next_step="Name the folder that holds its pyproject.toml, src/ and data/ with --path.",
    )


def _interpreter(folder: Path, python: str | None) -> Path:
    # Not resolved: a virtual environment's interpreter is a link, and is one of it only under its own name.
    own = folder / ".venv" / "bin" / "python"
    chosen = Path(os.path.abspath(Path(python or os.environ.get(PYTHON_VARIABLE) or own).expanduser()))  # noqa: PTH100
    if chosen.is_file() and os.access(chosen, os.X_OK):
        return chosen
    raise BenchError(
        "tau2-bench has no Python to run in.",
        evidence=f"There is no program {chosen}.",
        next_step=RECIPE.format(path=folder, variable=PYTHON_VARIABLE),
    )
