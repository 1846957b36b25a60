"""The workspace: which folder it is, and where things lie in it. Nothing is made here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tautools.errors import ParamsError

__all__ = ["VARIABLE", "Workspace", "workspace_path"]

VARIABLE = "TAUTOOLS_WORKSPACE"


@dataclass(frozen=True, slots=True)
class Workspace:
    """The paths of a workspace. They need not exist; who writes makes them."""

    path: Path

    @property
    def params(self) -> Path:
        """The user's own YAML, found before what is shipped."""
        return self.path / "params"

    @property
    def servers(self) -> Path:
        """Registry, certificates and keys."""
        return self.path / "servers"

    @property
    def logs(self) -> Path:
        """Standard output of servers and jobs."""
        return self.path / "logs"

    @property
    def errors(self) -> Path:
        """Standard error of servers and jobs."""
        return self.path / "errors"

    @property
    def results(self) -> Path:
        """Ledgers and conversations."""
        return self.path / "results"

    @property
    def claims(self) -> Path:
        """Who works on which cell."""
        return self.path / "claims"

    @property
    def runs(self) -> Path:
        """Executed notebooks."""
        return self.path / "runs"

    @property
    def reports(self) -> Path:
        """Reports, one folder for each sweep and time."""
        return self.path / "reports"

    @property
    def notebooks(self) -> Path:
        """The notebooks a person works in."""
        return self.path / "notebooks"


def workspace_path(given: str | Path | None = None, *, must_exist: bool = False) -> Path:
    """Return the workspace: what was given, else `TAUTOOLS_WORKSPACE`, else the current folder; absolute.

    Parameters
    ----------
    given : str or Path, optional
        What a person asked for; `~` and environment variables expand.
    must_exist : bool
        Whether it is an error that the folder is not there.

    Raises
    ------
    ParamsError
        When a variable in it is not set, it is a file, or it does not exist and must.
    """
    from tautools.params.expand import expand_text

    source = "--workspace" if given is not None else VARIABLE
    asked = str(given) if given is not None else os.environ.get(VARIABLE) or "."
    path = Path(expand_text(asked, where=source)).absolute()
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"{source}: {asked!r} is not a path.", evidence=str(error), next_step="Name a folder with --workspace."
        ) from error
    if exists and not is_folder:
        raise ParamsError(
            f"{source}: {path} is a file, not a folder.", next_step="Name a folder with --workspace FOLDER."
        )
    if must_exist and not exists:
        raise ParamsError(
            f"{source}: the workspace {path} does not exist.",
            next_step=f"Make it with `tautools init {path}`, or name another with --workspace FOLDER.",
        )
    return path
