"""Doctor checks of the site: vLLM, sweeps and their models, proxies, environment, folders, quota, keys, ports."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import BenchError, ParamsError, TautoolsError
from tautools.params import load_all, load_server, load_site, load_sweep
from tautools.params.models import ServerParams
from tautools.servers.model_cache import hub_token_file
from tautools.servers.ports import choose_port, is_free
from tautools.session.findings import fails, good, warns
from tautools.session.init import find_agent_project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.params.models import SweepParams
    from tautools.session.findings import DoctorFinding, SessionContext

_ACTIVATED = re.compile(r"\bactivate\s+(?P<name>\S+)\s*$")


def check_vllm(context: SessionContext) -> Iterator[DoctorFinding]:
    """Look for the command that starts vLLM at this site, in the site's own environment."""
    site, environment = context.site, context.site_environment
    command = site.serve_command[0] if site.serve_command else "vllm"
    if environment.serve_command:
        yield good("vllm", environment.serve_command)
    elif site.device == "none":
        yield good("vllm", f"`{command}` is not here; the site's device is none, and simulated servers do not need it")
    elif environment.problem:
        lines = "; ".join(context.activation)
        next_step = f"Jobs run `{lines}` first. To start servers in this session, run it before Jupyter starts."
        yield warns("vllm", f"`{command}` is not on PATH in this session; {environment.problem}", next_step)
    else:
        next_step = f"Install vLLM in an environment of its own and name it in `serve_command` of the site {site.name}."
        yield fails("vllm", f"`{command}` is not in the environment of the site", next_step)


def check_sweeps(context: SessionContext) -> Iterator[DoctorFinding]:
    """Check the sweeps: that they can be read, their servers can start, their hosted models have a key."""
    for name in context.sweeps:
        try:
            sweep = load_sweep(name, workspace=context.workspace)
            there = dataclasses.replace(context, site=load_site(sweep.site, workspace=context.workspace))
            _require_runnable(sweep, context if sweep.site == context.site.name else there)
        except TautoolsError as error:
            yield fails(f"sweep {name}", error.problem, error.next_step)
        else:
            yield good(f"sweep {name}", "can be read; its models have a server that can start, an address or a key")


def _require_runnable(sweep: SweepParams, context: SessionContext) -> None:
    """Raise what keeps a sweep from running."""
    from tautools.bench import open_ref
    from tautools.llm import check_hosted_key

    for role in sweep.roles:
        if role.api_key_env and not context.environ.get(role.api_key_env):
            missing = f"the key of {role.model} is missing"
            raise ParamsError(missing, next_step=f"Set {role.api_key_env} before tautools starts.")
        if role.provider != "openai":
            check_hosted_key(role.provider, role.model or "")
        elif role.server is not None and role.base_url is None:
            _require_server(role.server, context)
    try:
        open_ref(sweep.ref)
    except TautoolsError as error:
        where = "" if sweep.path else " A checkout is named by `path:` in the sweep, or by `--set path=FOLDER`."
        raise BenchError(error.problem, next_step=f"{error.next_step}{where}") from error


def _require_server(name: str, context: SessionContext) -> None:
    """Raise why a server cannot start at the site."""
    params = load_server(name, workspace=context.workspace)
    if params.simulated or context.site_environment.problem:
        return  # no vLLM is needed, or only a job can say whether it is there
    command = (params.serve_command or context.site.serve_command or ["vllm"])[0]
    own = context.which(str(Path(command).expanduser())) if params.serve_command else ""
    if not (own or context.site_environment.serve_command):
        raise ParamsError(
            f"its server {params.name} needs vLLM, and the site {context.site.name} has no `{command}`",
            next_step="Install vLLM in an environment of its own, and name it in `serve_command` of the site.",
        )


def check_proxies(context: SessionContext) -> Iterator[DoctorFinding]:
    """Tell which proxies are set; servers of the site are reached without them."""
    by_name = {name.lower(): value for name, value in context.environ.items() if name.lower().endswith("_proxy")}
    proxies = ", ".join(f"{name}={value}" for name, value in sorted(by_name.items()) if value)
    spared = any(host in by_name.get("no_proxy", "") for host in ("localhost", "127.0.0.1"))
    next_step = "tautools reaches servers without them; for curl and others: `export no_proxy=localhost,127.0.0.1`."
    fine = f"{proxies}; servers are reached without them" if proxies else "none set"
    yield warns("proxies", proxies, next_step, when=not spared, fine=fine)


def check_environment(context: SessionContext) -> Iterator[DoctorFinding]:
    """Check that the site's modules are loaded and its environment is active in this session."""
    site, environ = context.site, context.environ
    wanted = [match["name"].strip("'\"") for line in site.activate if (match := _ACTIVATED.search(line))]
    if not wanted and not site.modules:
        return
    active = environ.get("CONDA_DEFAULT_ENV") or Path(environ.get("VIRTUAL_ENV", "")).name
    loaded = [module for module in environ.get("LOADEDMODULES", "").split(":") if module]
    missing = [f"module {module} is not loaded" for module in site.modules if not _module_loaded(module, loaded)]
    missing += [f"{name} is not active" for name in wanted if name not in {active, Path(active).name}]
    here = f"active: {active or 'none'}; modules: {', '.join(loaded) or 'none'}"
    lines = "; ".join(context.activation)
    next_step = f"Jobs do it themselves. For servers in this session: `{lines}` before Jupyter starts."
    yield warns("environment", f"{'; '.join(missing)} ({here})" if missing else "", next_step, fine=here)


def check_quota(context: SessionContext) -> Iterator[DoctorFinding]:
    """Ask `quota`, where there is one, how much of this user's storage is used; files count too."""
    lines = context.ask(["quota", "-w"])
    full = ", ".join(line.split()[0] for line in lines if _nearly_full(line))
    if lines:
        next_step = "Remove what is not needed, or set HF_HOME and the workspace to another disk."
        yield warns("quota", full and f"95 % or more is used on {full}", next_step, fine="below 95 % everywhere")


def check_key_files(context: SessionContext) -> Iterator[DoctorFinding]:
    """Check that others cannot read the hub's token or the keys of servers."""
    token = hub_token_file(context.environ)
    there = [each for each in (token, *sorted((context.workspace / "servers").glob("*.key"))) if each.is_file()]
    names = " ".join(str(each) for each in there if each.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    fine = f"{len(there)} there, none that others may read"
    yield warns("key files", names and f"others may read {names}", f"`chmod 600 {names}`, and get new keys.", fine=fine)


def check_scripts(context: SessionContext) -> Iterator[DoctorFinding]:
    """In a folder laid out like an agent-project, check that its scripts can be run."""
    project = find_agent_project(context.workspace)
    if project is None:
        return
    modes = {name: (project.folder / name).stat().st_mode for name in project.scripts}
    wrong = {
        "not executable": [name for name in modes if not os.access(project.folder / name, os.X_OK)],
        "anyone may change": [name for name, mode in modes.items() if mode & stat.S_IWOTH],
    }
    problems = "; ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items() if names)
    names = " ".join(dict.fromkeys(name for each in wrong.values() for name in each))
    next_step = f"`chmod u+x,o-w {names}`; tautools changes nothing of them."
    yield warns("scripts", problems, next_step, fine=f"{', '.join(project.scripts)} can be run")


def check_ports(context: SessionContext) -> Iterator[DoctorFinding]:
    """Check that the site's address can be bound, and that ports that server files ask for are free."""
    host = context.site.host
    try:
        choose_port(host)
    except OSError as error:
        next_step = f"Correct `host` in params/sites/{context.site.name}.yaml; servers could not listen."
        yield fails("ports", f"{host} cannot be bound: {error}", next_step)
        return
    own = (context.workspace / "params" / "servers").is_dir()  # those shipped have no fixed port
    files = load_all(ServerParams, context.workspace)[0] if own else {}
    wanted = {name: params.port for name, params in files.items() if params.port is not None}
    taken = ", ".join(f"{port} of {name}" for name, port in wanted.items() if not is_free(host, port))
    next_step = "Look at `tautools server ls`: if no server of yours has it, leave `port` out to get a free one."
    fine = f"{host} can be bound; {len(wanted)} ports asked for are free"
    yield warns("ports", taken and f"taken: {taken}", next_step, fine=fine)


def _module_loaded(module: str, loaded: list[str]) -> bool:
    """Whether a module is loaded; `mamba/latest` stands for whatever version it leads to."""
    name, _slash, version = module.partition("/")
    names = [each.partition("/")[0] for each in loaded]
    return name in names if version in {"", "latest", "default"} else module in loaded


def _nearly_full(line: str) -> bool:
    """Whether a line of `quota -w` says that blocks or files are near their limit; an asterisk is beyond it."""
    words = line.split()
    if len(words) < 4 or not words[1].rstrip("*").isdecimal():
        return False
    limit = int(words[2]) if words[2].isdecimal() else 0
    return "*" in line or 0 < 0.95 * limit <= int(words[1])
