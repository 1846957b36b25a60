"""A workspace from a site: planned first, so that it can be shown, then written; what exists is kept."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tautools.errors import FilesError, ParamsError
from tautools.files import ensure_folder, why_not_writable, write_new
from tautools.params import Workspace, find_params, list_params, load_site, load_sweep, shipped
from tautools.session.agent_project import AgentProject, recognise
from tautools.session.notebook_copy import notebook_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tautools.params.models import SweepParams

__all__ = ["InitPlan", "Made", "plan_init", "write_workspace"]

_PATH_LINE = re.compile(r"^# path: .*$", re.MULTILINE)

_README = """# A workspace of tautools, for the site {site}

    tautools doctor                         what this session has and lacks
    tautools config list                    sites, servers and sweeps that can be named
    tautools sweep plan {sweep:<18}  cells, conversations and time, before anything starts
    tautools sweep run {sweep:<19}  run it; run it again to resume
    tautools report --sweep {sweep:<14}  tables, figures, one page

params/ holds your own copies and wins over what is shipped. notebooks/ are yours to edit; their parameters name this
folder as the workspace. logs/ and errors/ hold what servers and jobs write, results/ the ledgers of finished
conversations, runs/ the executed notebooks, reports/ the reports.
"""


@dataclass(frozen=True)
class InitPlan:
    """What `init` would do."""

    workspace: Path
    site: str
    folders: tuple[Path, ...]
    """Folders to make."""
    files: dict[Path, bytes] = field(repr=False)
    """Files to write, with their content."""
    kept: tuple[Path, ...]
    """Files that exist already and stay as they are."""
    found: AgentProject | None


@dataclass(frozen=True)
class Made:
    """What `init` did."""

    written: tuple[Path, ...]
    kept: tuple[Path, ...]


def plan_init(workspace: Path, site: str = "local") -> InitPlan:
    """Plan a workspace; nothing is changed on disk.

    Parameters
    ----------
    workspace : Path
        The folder; it may exist, with things in it.
    site : str
        Name or path of a site. Its sweeps, and the servers that they name, are copied with it.

    Raises
    ------
    ParamsError
        When the site is not known, or a file stands where a folder is needed.
    FilesError
        When the folder cannot be written to.
    """
    params = load_site(site, workspace=workspace)
    _check_place(workspace)
    found = recognise(workspace) if workspace.is_dir() else None
    wanted = dict(_wanted(workspace, site, params.name, found))
    places = Workspace(workspace)
    folders = {places.logs, places.errors, places.results, *(path.parent for path in wanted)}
    for folder in sorted(folders):
        _check_place(folder)
    return InitPlan(
        workspace=workspace,
        site=params.name,
        folders=tuple(sorted(folder for folder in folders if not folder.is_dir())),
        files={path: data for path, data in wanted.items() if not _there(path)},
        kept=tuple(path for path in wanted if _there(path)),
        found=found,
    )


def write_workspace(plan: InitPlan) -> Made:
    """Do what was planned. A file that appeared meanwhile is kept too.

    Raises
    ------
    FilesError
        When something cannot be written.
    """
    ensure_folder(plan.workspace)
    for folder in plan.folders:
        ensure_folder(folder)
    written = tuple(path for path, data in plan.files.items() if write_new(path, data))
    return Made(written, (*plan.kept, *(path for path in plan.files if path not in written)))


def _wanted(workspace: Path, site: str, name: str, found: AgentProject | None) -> Iterator[tuple[Path, bytes]]:
    own = Workspace(workspace).params
    yield own / "sites" / f"{name}.yaml", find_params("sites", site, workspace).read_bytes()
    sweeps = [each for each in list_params("sweeps") if load_sweep(each).site == name]
    servers: set[str] = set()
    for sweep in sweeps:
        text = find_params("sweeps", sweep).read_text(encoding="utf-8")
        yield own / "sweeps" / f"{sweep}.yaml", _with_checkout(text, found).encode()
        servers |= _servers(load_sweep(sweep))
    for server in sorted(servers):
        yield own / "servers" / f"{server}.yaml", find_params("servers", server).read_bytes()
    for notebook in sorted(shipped("notebooks").glob("[0-9]*.ipynb")):
        yield Workspace(workspace).notebooks / notebook.name, notebook_for(workspace, notebook.read_bytes())
    yield workspace / "README.md", _README.format(site=name, sweep=sweeps[0] if sweeps else "demo").encode()


def _servers(sweep: SweepParams) -> set[str]:
    known = set(list_params("servers"))
    return {role.server for role in sweep.roles if role.server in known}


def _with_checkout(text: str, found: AgentProject | None) -> str:
    if found is None or found.tau_bench is None:
        return text
    # JSON text is YAML text, so quotes and spaces in the path stay what they are; `$` has no escape and stays out.
    line = f"path: {json.dumps(str(found.tau_bench), ensure_ascii=False)}"
    return text if "$" in line else _PATH_LINE.sub(lambda _match: line, text)


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _check_place(folder: Path) -> None:
    nearest = next((each for each in (folder, *folder.parents) if _there(each)), folder)
    if not nearest.is_dir():
        raise ParamsError(
            f"{nearest} is a file, where the workspace needs a folder.",
            next_step="Choose another folder: `tautools init FOLDER`; nothing was changed.",
        )
    reason = why_not_writable(nearest)
    if reason:
        raise FilesError(
            f"{nearest} cannot be written to.",
            evidence=reason,
            next_step="Choose a folder you can write to: `tautools init FOLDER`; nothing was changed.",
        )
