"""Sites, servers, sweeps and personas by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.errors import ParamsError
from tautools.params.find import find_params
from tautools.params.models import ServerParams, SiteParams, SweepParams
from tautools.params.personas import PersonaParams, choose_level
from tautools.params.resolve import Resolved, resolve

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.params.personas import Persona

__all__ = [
    "load_persona",
    "load_server",
    "load_site",
    "load_sweep",
    "resolve_persona",
    "resolve_server",
    "resolve_site",
    "resolve_sweep",
]


def resolve_site(
    name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()
) -> Resolved[SiteParams]:
    """Return a site's params with where each value came from; errors as `load_site`."""
    return resolve("sites", SiteParams, name, workspace=workspace, overrides=overrides)


def resolve_server(
    name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()
) -> Resolved[ServerParams]:
    """Return a server's params with where each value came from; errors as `load_server`."""
    return resolve("servers", ServerParams, name, workspace=workspace, overrides=overrides)


def resolve_sweep(
    name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()
) -> Resolved[SweepParams]:
    """Return a sweep's params with where each value came from; errors as `load_sweep`."""
    resolved = resolve("sweeps", SweepParams, name, workspace=workspace, overrides=overrides)
    try:
        find_params("sites", resolved.params.site, workspace)
    except ParamsError as error:
        raise ParamsError(
            f"{resolved.tree.where(('site',))}: {error.problem}", evidence=error.evidence, next_step=error.next_step
        ) from error
    return resolved


def resolve_persona(
    name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()
) -> Resolved[PersonaParams]:
    """Return a persona's params with where each value came from; errors as `load_persona`."""
    return resolve("personas", PersonaParams, name, workspace=workspace, overrides=overrides)


def load_persona(chosen: str, *, workspace: Path | None = None) -> Persona:
    """Return a persona at an intensity, chosen as `anger` or `anger:strong`.

    Raises
    ------
    ParamsError
        When there is none of that name or intensity, or something in its file is wrong; with file and line.
    """
    name, _, level = chosen.partition(":")
    return choose_level(resolve_persona(name, workspace=workspace).params, level or None)


def load_site(name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()) -> SiteParams:
    """Return a site by name or path.

    Raises
    ------
    ParamsError
        When there is none of that name, or something in it is wrong; with file and line.
    """
    return resolve_site(name, workspace=workspace, overrides=overrides).params


def load_server(name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()) -> ServerParams:
    """Return a server's params by name or path; the workspace's own come before the shipped ones.

    Raises
    ------
    ParamsError
        When there are none of that name, or something in them is wrong; with file and line.
    """
    return resolve_server(name, workspace=workspace, overrides=overrides).params


def load_sweep(name: str | Path, *, workspace: Path | None = None, overrides: Sequence[str] = ()) -> SweepParams:
    """Return a sweep by name or path.

    Parameters
    ----------
    name : str or Path
        A name, searched in the workspace and then among the shipped ones, or a path to a YAML file.
    workspace : Path, optional
        Its `params/` is searched first; relative paths in the file count from it.
    overrides : sequence of str
        `key=value` texts, as of `--set`; `agent.…` means every agent of the grid.

    Raises
    ------
    ParamsError
        When there is none of that name, or something in it is wrong; with file and line.
    """
    return resolve_sweep(name, workspace=workspace, overrides=overrides).params
