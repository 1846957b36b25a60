"""The doctor's look at what may be read, run and bound: environment, folders, quota, key files, scripts, ports."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.files import why_not_writable
from tautools.params import Workspace, list_params, load_server
from tautools.session.agent_project import recognise
from tautools.session.findings import Finding, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.session.surroundings import Surroundings

__all__ = ["check_environment", "check_folders", "check_key_files", "check_ports", "check_quota", "check_scripts"]

_ACTIVATED = re.compile(r"\bactivate\s+(?P<name>\S+)\s*$")


def check_environment(around: Surroundings) -> Iterator[Finding]:
    """Look whether the site's modules are loaded and its environment is active in this session."""
    site, environ = around.site, around.environ
    wanted = [match["name"].strip("'\"") for line in site.activate if (match := _ACTIVATED.search(line))]
    if not wanted and not site.modules:
        return
    active = environ.get("CONDA_DEFAULT_ENV") or Path(environ.get("VIRTUAL_ENV", "")).name
    loaded = [module for module in environ.get("LOADEDMODULES", "").split(":") if module]
    missing = [f"module {module} is not loaded" for module in site.modules if not _loaded(module, loaded)]
    missing += [f"{name} is not active" for name in wanted if name not in {active, Path(active).name}]
    here = f"active: {active or 'none'}; modules: {', '.join(loaded) or 'none'}"
    if missing:
        lines = "; ".join([f"module load {module}" for module in site.modules] + site.activate)
        remedy = f"Jobs do it themselves. For servers in this session: `{lines}` before Jupyter starts."
        yield Finding("environment", Status.WARN, f"{'; '.join(missing)} ({here})", remedy)
    else:
        yield Finding("environment", Status.OK, here)


def check_folders(around: Surroundings) -> Iterator[Finding]:
    """Look whether logs, errors and results can be written: Slurm ends a job without a word whose log cannot be."""
    places = Workspace(around.workspace)
    if not around.workspace.is_dir():
        return
    folders = (places.logs, places.errors, places.results)
    wrong = [f"{each}: {reason}" for each in folders if each.exists() and (reason := why_not_writable(each))]
    if wrong:
        yield Finding("folders", Status.FAIL, "; ".join(wrong), "Mend the permissions, or choose another workspace.")
        return
    there = [each.name for each in folders if each.is_dir()]
    yield Finding("folders", Status.OK, f"{', '.join(there) or 'none'} there; the others are made when needed")


def check_quota(around: Surroundings) -> Iterator[Finding]:
    """Ask `quota` how much of what this user may store is used, where there is one; files count too."""
    lines = around.ask(["quota", "-w"]) if around.which("quota") else []
    if not lines:
        return
    full = [line.split()[0] for line in lines if _nearly_full(line)]
    if full:
        remedy = "Remove what is not needed, or set HF_HOME and the workspace to another disk."
        yield Finding("quota", Status.WARN, f"95 % or more is used on {', '.join(full)}", remedy)
    else:
        yield Finding("quota", Status.OK, "below 95 % everywhere")


def check_key_files(around: Surroundings) -> Iterator[Finding]:
    """Look whether others can read the hub's token or the keys of servers."""
    environ = around.environ
    home = environ.get("HF_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".cache" / "huggingface")
    token = Path(environ.get("HF_TOKEN_PATH") or Path(home) / "token").expanduser()
    files = [token, *sorted((around.workspace / "servers").glob("*.key"))]
    there = [each for each in files if each.is_file()]
    wide = [each for each in there if each.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    if wide:
        names = " ".join(str(each) for each in wide)
        yield Finding("key files", Status.WARN, f"others may read {names}", f"`chmod 600 {names}`, and get new keys.")
    else:
        yield Finding("key files", Status.OK, f"{len(there)} there, none that others may read")


def check_scripts(around: Surroundings) -> Iterator[Finding]:
    """In a folder laid out like an agent-project, look whether its scripts can be run."""
    project = recognise(around.workspace) if around.workspace.is_dir() else None
    if project is None:
        return
    dull = [name for name in project.scripts if not os.access(project.folder / name, os.X_OK)]
    open_ = [name for name in project.scripts if (project.folder / name).stat().st_mode & stat.S_IWOTH]
    if dull or open_:
        found = [f"not executable: {', '.join(dull)}"] if dull else []
        found += [f"anyone may change: {', '.join(open_)}"] if open_ else []
        remedy = f"`chmod u+x,o-w {' '.join(dict.fromkeys([*dull, *open_]))}`; tautools changes nothing of them."
        yield Finding("scripts", Status.WARN, "; ".join(found), remedy)
    else:
        yield Finding("scripts", Status.OK, f"{', '.join(project.scripts)} can be run")


def check_ports(around: Surroundings) -> Iterator[Finding]:
    """Look whether the site's address can be bound, and whether ports that server files ask for are free."""
    host = around.site.host
    reason = _why_not_bound(host, 0)
    if reason:
        remedy = f"Correct `host` in params/sites/{around.site.name}.yaml; servers could not listen."
        yield Finding("ports", Status.FAIL, f"{host} cannot be bound: {reason}", remedy)
        return
    asked = dict(_asked_ports(around))
    taken = [f"{port} of {name}" for name, port in asked.items() if _why_not_bound(host, port)]
    if taken:
        remedy = "Look at `tautools server ls`: if no server of yours has it, leave `port` out to get a free one."
        yield Finding("ports", Status.WARN, f"taken: {', '.join(taken)}", remedy)
    else:
        yield Finding("ports", Status.OK, f"{host} can be bound; {len(asked)} ports asked for are free")


def _asked_ports(around: Surroundings) -> Iterator[tuple[str, int]]:
    """Return the fixed ports of the workspace's own server files; those shipped have none."""
    if not (Workspace(around.workspace).params / "servers").is_dir():
        return
    for name in list_params("servers", around.workspace):
        try:
            port = load_server(name, workspace=around.workspace).port
        except TautoolsError:
            continue
        if port is not None:
            yield name, port


def _why_not_bound(host: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return str(error)
    return ""


def _loaded(module: str, loaded: list[str]) -> bool:
    """Whether a module is loaded; `mamba/latest` stands for whatever version it leads to."""
    name, _slash, version = module.partition("/")
    if version in {"", "latest", "default"}:
        return any(each.split("/")[0] == name for each in loaded)
    return module in loaded


def _nearly_full(line: str) -> bool:
    """Whether a line of `quota -w` says that blocks or files are near their limit; an asterisk is beyond it."""
    words = line.split()
    if len(words) < 4 or not words[1].rstrip("*").isdecimal():
        return False
    if "*" in line:
        return True
    used, limit = int(words[1]), int(words[2]) if words[2].isdecimal() else 0
    return limit > 0 and used >= 0.95 * limit
