"""Make a workspace from a site: planned first, so that it can be shown, then written; existing files are kept."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tautools.errors import FilesError, ParamsError
from tautools.files import ensure_folder, packaged_text, why_not_writable, write_new
from tautools.params import find_params, list_params, load_site, load_sweep, shipped

_SCRIPTS = {
    "assistant-server.sh": "tautools server up",
    "user-server.sh": "tautools server up",
    "user-vllm-job.sh": "tautools server up --site sol-gaudi",
    "tau-experiment.sh": "tautools sweep run sol-gaudi-120",
}
_FOLDERS = ("logs", "errors", "results", "tau-bench")


@dataclass(frozen=True, slots=True)
class AgentProject:
    """A folder laid out as people ran tau-bench before: their scripts, logs, results and checkout."""

    folder: Path
    scripts: tuple[str, ...]
    tau_bench: Path | None
    """Checkout of tau-bench, when there is one."""
    results: tuple[Path, ...]
    """`num_trials-<n>.json` files that tau-bench itself wrote."""
    logs: int
    """Files under logs/ and errors/."""

    def lines(self) -> list[str]:
        """Return in words what was found and how it maps to tautools."""
        settings = {path.parent for path in self.results}
        results = f"{len(self.results)} num_trials files of {len(settings)} settings"
        found = [
            (self.tau_bench, f"tau-bench/: the checkout for bench tau-bench, path {self.tau_bench}"),
            (self.results, f"results/: {results}; `tautools import` can take them"),
            (self.logs, f"logs/, errors/: {self.logs} files; those of tautools are written there too"),
        ]
        return [
            f"{self.folder} is laid out like an agent-project. Nothing of it is changed.",
            *(f"  {script}: its work is done by `{_SCRIPTS[script]}`" for script in self.scripts),
            *(f"  {line}" for there, line in found if there),
        ]


def find_agent_project(folder: Path) -> AgentProject | None:
    """Return what `folder` holds when it is laid out like an agent-project, else None. Only reads.

    At least one of the scripts must be there, and three of the eight parts in all.
    """
    scripts = tuple(name for name in _SCRIPTS if (folder / name).is_file())
    folders = [name for name in _FOLDERS if (folder / name).is_dir()]
    if not scripts or len(scripts) + len(folders) < 3:
        return None
    # Some clones nest the checkout once more.
    places = (folder / "tau-bench", folder / "tau-bench" / "tau-bench")
    checkouts = [each for each in places if (each / "tau_bench").is_dir() or (each / "run.py").is_file()]
    results = sorted((folder / "results").glob("*/*/*/num_trials-*.json"))
    return AgentProject(
        folder=folder,
        scripts=scripts,
        tau_bench=checkouts[0] if checkouts else None,
        results=tuple(path for path in results if not (path.parent / "setting.json").is_file()),
        logs=sum(len(list((folder / name).glob("*"))) for name in ("logs", "errors")),
    )


_DEFAULT_WORKSPACE = 'workspace: str = "."'


def _notebook_for(workspace: Path, shipped: bytes) -> bytes:
    """Return a shipped notebook whose parameter `workspace`, where it has one, defaults to an absolute path."""
    notebook = json.loads(shipped)
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            own = f"workspace: str = {str(workspace)!r}"
            cell["source"] = [line.replace(_DEFAULT_WORKSPACE, own) for line in cell["source"]]
    return f"{json.dumps(notebook, indent=1)}\n".encode()


_PATH_LINE = re.compile(r"^# path: .*$", re.MULTILINE)


@dataclass(frozen=True)
class InitPlan:
    """What `init` would do, or has done."""

    workspace: Path
    site: str
    folders: tuple[Path, ...]
    """Folders to make."""
    files: dict[Path, bytes] = field(repr=False)
    """Files to write, with their content."""
    kept: tuple[Path, ...]
    """Files that exist already and stay as they are."""
    found: AgentProject | None


def plan_init(workspace: Path, site: str = "local", *, copy_params: bool = True) -> InitPlan:
    """Plan a workspace; nothing is changed on disk.

    Parameters
    ----------
    workspace : Path
        The folder; it may exist, with things in it.
    site : str
        Name or path of a site. Its sweeps, and the servers that they name, are copied with it.
    copy_params : bool
        Whether params are copied; without them the workspace has notebooks and a README and uses the shipped params.

    Raises
    ------
    ParamsError
        When the site is not known, or a file stands where a folder is needed.
    FilesError
        When the folder cannot be written to.
    """
    params = load_site(site, workspace=workspace)
    _check_folder(workspace)
    found = find_agent_project(workspace)
    planned = _planned_files(workspace, site, params.name, found)
    wanted = {path: data for path, data in planned if copy_params or workspace / "params" not in path.parents}
    folders = sorted({*(workspace / name for name in ("logs", "errors", "results")), *(path.parent for path in wanted)})
    for folder in folders:
        _check_folder(folder)
    return InitPlan(
        workspace=workspace,
        site=params.name,
        folders=tuple(folder for folder in folders if not folder.is_dir()),
        files={path: data for path, data in wanted.items() if not os.path.lexists(path)},
        kept=tuple(path for path in wanted if os.path.lexists(path)),
        found=found,
    )


def write_workspace(plan: InitPlan) -> InitPlan:
    """Do what was planned, and return what was done: a file that appeared meanwhile is kept too.

    Raises
    ------
    FilesError
        When something cannot be written.
    """
    for folder in plan.folders:
        ensure_folder(folder)
    written = {path: data for path, data in plan.files.items() if write_new(path, data)}
    return replace(plan, files=written, kept=(*plan.kept, *(path for path in plan.files if path not in written)))


def _planned_files(workspace: Path, site: str, name: str, found: AgentProject | None) -> Iterator[tuple[Path, bytes]]:
    own = workspace / "params"
    yield own / "sites" / f"{name}.yaml", find_params("sites", site, workspace).read_bytes()
    sweeps = [each for each in list_params("sweeps") if load_sweep(each).site == name]
    servers: set[str | None] = set()
    # JSON is YAML, so quotes and spaces in the path are safe; `$` would be read as a variable.
    checkout = json.dumps(str(found.tau_bench), ensure_ascii=False) if found and found.tau_bench else "$"
    for sweep in sweeps:
        text = find_params("sweeps", sweep).read_text(encoding="utf-8")
        if "$" not in checkout:
            text = _PATH_LINE.sub(lambda _match: f"path: {checkout}", text)
        yield own / "sweeps" / f"{sweep}.yaml", text.encode()
        servers |= {role.server for role in load_sweep(sweep).roles}
    for server in (each for each in list_params("servers") if each in servers):
        yield own / "servers" / f"{server}.yaml", find_params("servers", server).read_bytes()
    for notebook in sorted(shipped("notebooks").glob("[0-9]*.ipynb")):
        yield workspace / "notebooks" / notebook.name, _notebook_for(workspace, notebook.read_bytes())
    yield (
        workspace / "README.md",
        packaged_text("tautools.session", "workspace.md")
        .format(site=name, sweep=sweeps[0] if sweeps else "demo")
        .encode(),
    )


def _check_folder(folder: Path) -> None:
    nearest = next((each for each in (folder, *folder.parents) if os.path.lexists(each)), folder)
    if not nearest.is_dir():
        raise ParamsError(
            f"{nearest} is a file, where the workspace needs a folder.",
            next_step="Choose another folder: `tautools init FOLDER`; nothing was changed.",
        )
    if reason := why_not_writable(nearest):
        raise FilesError(
            f"{nearest} cannot be written to.",
            evidence=reason,
            next_step="Choose a folder you can write to: `tautools init FOLDER`; nothing was changed.",
        )
