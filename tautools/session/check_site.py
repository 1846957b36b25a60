"""Doctor checks of the site: vLLM, sweeps and their models, proxies, environment, folders, quota, keys, ports."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.files import why_not_writable
from tautools.params import Workspace, list_params, load_server, load_sweep
from tautools.session.findings import DoctorFinding, FindingStatus
from tautools.session.init import find_agent_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.params.models import RoleParams, SweepParams
    from tautools.session.findings import SessionContext


def check_vllm(around: SessionContext) -> Iterator[DoctorFinding]:
    """Look for the command that starts vLLM at this site."""
    site = around.site
    command = site.serve_command[0] if site.serve_command else "vllm"
    path = around.which(str(Path(command).expanduser()))
    if path:
        yield DoctorFinding("vllm", FindingStatus.OK, path)
    elif site.device == "none":
        yield DoctorFinding(
            "vllm",
            FindingStatus.OK,
            f"`{command}` is not here; the site's device is none, simulated servers do without",
        )
    elif site.activate or site.modules:
        lines = "; ".join([f"module load {module}" for module in site.modules] + site.activate)
        remedy = f"Jobs run `{lines}` first. To start servers in this session, run it before Jupyter starts."
        yield DoctorFinding("vllm", FindingStatus.WARN, f"`{command}` is not on PATH in this session", remedy)
    else:
        remedy = f"Install vLLM in an environment of its own and name it in `serve_command` of the site {site.name}."
        yield DoctorFinding("vllm", FindingStatus.FAIL, f"`{command}` is not on PATH", remedy)


def check_roles(around: SessionContext) -> Iterator[DoctorFinding]:
    """Check the sweeps: that they can be read, that their servers are known, that hosted models have a key."""
    for name in around.sweeps:
        try:
            sweep = load_sweep(name, workspace=around.workspace)
        except TautoolsError as error:
            yield DoctorFinding(f"sweep {name}", FindingStatus.FAIL, error.problem, error.next_step)
            continue
        wrong = [
            each for role in sweep.roles if (each := _role_problem(role, around)) is not None
        ] + _benchmark_problems(sweep)
        if wrong:
            found, remedy = wrong[0]
            yield DoctorFinding(f"sweep {name}", FindingStatus.FAIL, found, remedy)
        else:
            yield DoctorFinding(
                f"sweep {name}", FindingStatus.OK, "can be read; its models have a server file, an address or a key"
            )


def _benchmark_problems(sweep: SweepParams) -> list[tuple[str, str]]:
    from tautools.bench import open_ref

    try:
        open_ref(sweep.ref)
    except TautoolsError as error:
        where = "" if sweep.path else " A checkout is named by `path:` in the sweep, or by `--set path=FOLDER`."
        return [(error.problem, f"{error.next_step}{where}")]
    return []


def _role_problem(role: RoleParams, around: SessionContext) -> tuple[str, str] | None:
    if role.api_key_env and not around.environ.get(role.api_key_env):
        return f"the key of {role.model} is missing", f"Set {role.api_key_env} before tautools starts."
    if role.provider != "openai":
        return _hosted_problem(role)
    if role.server is None or role.base_url is not None:
        return None
    try:
        load_server(role.server, workspace=around.workspace)
    except TautoolsError as error:
        return error.problem, error.next_step
    return None


def _hosted_problem(role: RoleParams) -> tuple[str, str] | None:
    from tautools.llm import check_hosted_key

    try:
        check_hosted_key(role.provider, role.model or "")
    except TautoolsError as error:
        return error.problem, error.next_step
    return None


def check_proxies(around: SessionContext) -> Iterator[DoctorFinding]:
    """Tell which proxies are set; servers of the site are reached without them."""
    found = {name.lower(): value for name, value in around.environ.items() if name.lower().endswith("_proxy") and value}
    proxies = [f"{name}={value}" for name, value in sorted(found.items())]
    if not proxies:
        yield DoctorFinding("proxies", FindingStatus.OK, "none set")
        return
    spared = found.get("no_proxy", "")
    if "localhost" in spared or "127.0.0.1" in spared:
        yield DoctorFinding("proxies", FindingStatus.OK, f"{', '.join(proxies)}; servers are reached without them")
    else:
        remedy = "tautools reaches servers without them; for curl and others: `export no_proxy=localhost,127.0.0.1`."
        yield DoctorFinding("proxies", FindingStatus.WARN, ", ".join(proxies), remedy)


_ACTIVATED = re.compile(r"\bactivate\s+(?P<name>\S+)\s*$")


def check_environment(around: SessionContext) -> Iterator[DoctorFinding]:
    """Look whether the site's modules are loaded and its environment is active in this session."""
    site, environ = around.site, around.environ
    wanted = [match["name"].strip("'\"") for line in site.activate if (match := _ACTIVATED.search(line))]
    if not wanted and not site.modules:
        return
    active = environ.get("CONDA_DEFAULT_ENV") or Path(environ.get("VIRTUAL_ENV", "")).name
    loaded = [module for module in environ.get("LOADEDMODULES", "").split(":") if module]
    missing = [f"module {module} is not loaded" for module in site.modules if not _module_loaded(module, loaded)]
    missing += [f"{name} is not active" for name in wanted if name not in {active, Path(active).name}]
    here = f"active: {active or 'none'}; modules: {', '.join(loaded) or 'none'}"
    if missing:
        lines = "; ".join([f"module load {module}" for module in site.modules] + site.activate)
        remedy = f"Jobs do it themselves. For servers in this session: `{lines}` before Jupyter starts."
        yield DoctorFinding("environment", FindingStatus.WARN, f"{'; '.join(missing)} ({here})", remedy)
    else:
        yield DoctorFinding("environment", FindingStatus.OK, here)


def check_folders(around: SessionContext) -> Iterator[DoctorFinding]:
    """Look whether logs, errors and results can be written: Slurm ends a job without a word whose log cannot be."""
    places = Workspace(around.workspace)
    if not around.workspace.is_dir():
        return
    folders = (places.logs, places.errors, places.results)
    wrong = [f"{each}: {reason}" for each in folders if each.exists() and (reason := why_not_writable(each))]
    if wrong:
        yield DoctorFinding(
            "folders", FindingStatus.FAIL, "; ".join(wrong), "Mend the permissions, or choose another workspace."
        )
        return
    there = [each.name for each in folders if each.is_dir()]
    yield DoctorFinding(
        "folders", FindingStatus.OK, f"{', '.join(there) or 'none'} there; the others are made when needed"
    )


def check_quota(around: SessionContext) -> Iterator[DoctorFinding]:
    """Ask `quota` how much of what this user may store is used, where there is one; files count too."""
    lines = around.ask(["quota", "-w"]) if around.which("quota") else []
    if not lines:
        return
    full = [line.split()[0] for line in lines if _nearly_full(line)]
    if full:
        remedy = "Remove what is not needed, or set HF_HOME and the workspace to another disk."
        yield DoctorFinding("quota", FindingStatus.WARN, f"95 % or more is used on {', '.join(full)}", remedy)
    else:
        yield DoctorFinding("quota", FindingStatus.OK, "below 95 % everywhere")


def check_key_files(around: SessionContext) -> Iterator[DoctorFinding]:
    """Look whether others can read the hub's token or the keys of servers."""
    environ = around.environ
    home = environ.get("HF_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".cache" / "huggingface")
    token = Path(environ.get("HF_TOKEN_PATH") or Path(home) / "token").expanduser()
    files = [token, *sorted((around.workspace / "servers").glob("*.key"))]
    there = [each for each in files if each.is_file()]
    wide = [each for each in there if each.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    if wide:
        names = " ".join(str(each) for each in wide)
        yield DoctorFinding(
            "key files", FindingStatus.WARN, f"others may read {names}", f"`chmod 600 {names}`, and get new keys."
        )
    else:
        yield DoctorFinding("key files", FindingStatus.OK, f"{len(there)} there, none that others may read")


def check_scripts(around: SessionContext) -> Iterator[DoctorFinding]:
    """In a folder laid out like an agent-project, look whether its scripts can be run."""
    project = find_agent_project(around.workspace) if around.workspace.is_dir() else None
    if project is None:
        return
    dull = [name for name in project.scripts if not os.access(project.folder / name, os.X_OK)]
    open_ = [name for name in project.scripts if (project.folder / name).stat().st_mode & stat.S_IWOTH]
    if dull or open_:
        found = [f"not executable: {', '.join(dull)}"] if dull else []
        found += [f"anyone may change: {', '.join(open_)}"] if open_ else []
        remedy = f"`chmod u+x,o-w {' '.join(dict.fromkeys([*dull, *open_]))}`; tautools changes nothing of them."
        yield DoctorFinding("scripts", FindingStatus.WARN, "; ".join(found), remedy)
    else:
        yield DoctorFinding("scripts", FindingStatus.OK, f"{', '.join(project.scripts)} can be run")


def check_ports(around: SessionContext) -> Iterator[DoctorFinding]:
    """Look whether the site's address can be bound, and whether ports that server files ask for are free."""
    host = around.site.host
    reason = _why_not_bindable(host, 0)
    if reason:
        remedy = f"Correct `host` in params/sites/{around.site.name}.yaml; servers could not listen."
        yield DoctorFinding("ports", FindingStatus.FAIL, f"{host} cannot be bound: {reason}", remedy)
        return
    asked = dict(_asked_ports(around))
    taken = [f"{port} of {name}" for name, port in asked.items() if _why_not_bindable(host, port)]
    if taken:
        remedy = "Look at `tautools server ls`: if no server of yours has it, leave `port` out to get a free one."
        yield DoctorFinding("ports", FindingStatus.WARN, f"taken: {', '.join(taken)}", remedy)
    else:
        yield DoctorFinding("ports", FindingStatus.OK, f"{host} can be bound; {len(asked)} ports asked for are free")


def _asked_ports(around: SessionContext) -> Iterator[tuple[str, int]]:
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


def _why_not_bindable(host: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError as error:
            return str(error)
    return ""


def _module_loaded(module: str, loaded: list[str]) -> bool:
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
