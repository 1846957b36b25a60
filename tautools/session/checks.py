"""Doctor checks of everything but Slurm: Python, the machine and its cards, the site, sweeps, folders, keys, ports."""

import contextlib
import dataclasses
import os
import platform
import re
import resource
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import psutil

from tautools import __version__
from tautools.errors import BenchError, ParamsError, TautoolsError
from tautools.files import why_not_writable
from tautools.params import load_all, load_server, load_site, load_sweep
from tautools.params.keys import read_key
from tautools.params.models import ServerParams, SweepParams
from tautools.servers.accelerators.probe import CARD_VARIABLES, Card, read_cards
from tautools.servers.model_cache import cache_folder, free_bytes, hub_is_off, hub_token_file
from tautools.servers.ports import choose_port, is_free
from tautools.session.findings import DoctorFinding, SessionContext, fails, good, warns
from tautools.session.init import find_agent_project

_GIB = 2**30
_ACTIVATED = re.compile(r"\bactivate\s+(?P<name>\S+)\s*$")


def check_python(_context: SessionContext) -> Iterator[DoctorFinding]:
    """Tell the versions of the interpreter and of tautools; below Python 3.11 nothing here would load."""
    yield good("python", f"{platform.python_version()} at {sys.executable}")
    yield good("tautools", __version__)


def check_dependencies(_context: SessionContext) -> Iterator[DoctorFinding]:
    """Compare what is installed with what tautools asks for."""
    try:
        requirements = [each for each in metadata.requires("tautools") or [] if "extra ==" not in each]
    except metadata.PackageNotFoundError:
        next_step = "Install tautools: `pip install -e .` in the clone."
        yield fails("dependencies", "tautools is not installed, only importable", next_step)
        return
    wrong = {each: difference for each in requirements if (difference := compare_requirement(each))}
    names = " ".join(f"'{requirement}'" for requirement in wrong)
    install = f"In this environment: `{sys.executable} -m pip install {names}`."
    fine = f"all {len(requirements)} are here, none older than its floor"
    yield fails("dependencies", "; ".join(wrong.values()), install, fine=fine)


def check_pins(context: SessionContext) -> Iterator[DoctorFinding]:
    """Compare the site's own environment with the site's pins; nothing is installed or changed."""
    pins, environment = context.site.pins, context.site_environment
    if not pins:
        return
    if environment.versions is None:
        reason = environment.problem or f"there is no `{' '.join(context.site.serve_command)}` here"
        next_step = "Run the doctor where the servers run, such as in a job; tautools' own environment does not matter."
        yield warns("pins", f"the site's environment cannot be asked: {reason}", next_step)
        return
    wrong = "; ".join(filter(None, (compare_requirement(each, environment.versions) for each in pins)))
    next_step = "Install them there, in the environment of the servers; nothing is changed here."
    fine = f"all {len(pins)} pins of {context.site.name} are met in its environment"
    yield warns("pins", wrong and f"in the site's environment {wrong}", next_step, fine=fine)


def compare_requirement(requirement: str, versions: Mapping[str, str] | None = None) -> str:
    """Return how an environment differs from a requirement such as `click>=8.1`; empty when it does not.

    `versions` are the packages installed there; those of this environment by default.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        wanted = Requirement(requirement)
    except InvalidRequirement:
        return f"`{requirement}` is not a requirement"
    if wanted.marker is not None and not wanted.marker.evaluate():
        return ""
    if versions is None:
        versions = {str(each.metadata["Name"]): each.version for each in metadata.distributions(name=wanted.name)}
    by_name = {canonicalize_name(name): version for name, version in versions.items()}
    version = by_name.get(canonicalize_name(wanted.name))
    if version is None:
        return f"{wanted.name} is missing ({wanted.specifier or 'any version'})"
    fits = wanted.specifier.contains(version, prereleases=True)
    return "" if fits else f"{wanted.name} is {version}, asked for {wanted.specifier}"


def check_workspace(context: SessionContext) -> Iterator[DoctorFinding]:
    """Check that the workspace exists, can be written to, its folders too, and has space left.

    Slurm ends a job silently whose log cannot be written.
    """
    folder = context.workspace
    if not folder.is_dir():
        next_step = f"Make it: `tautools init {folder} --site {context.site.name}`."
        yield fails("workspace", f"{folder} does not exist", next_step)
        return
    reason = why_not_writable(folder)
    next_step = "Choose a folder of yours with --workspace."
    yield fails("workspace", reason and f"{folder}: {reason}", next_step, fine=f"{folder} can be written to")
    free = shutil.disk_usage(folder).free / _GIB
    seen, next_step = f"{free:.1f} GiB free in the workspace", "Free space, or choose a workspace on a larger disk."
    yield (warns if free >= 0.5 else fails)("disk", seen, next_step, when=free < 5)
    there = [each for name in ("logs", "errors", "results") if (each := folder / name).exists()]
    wrong = "; ".join(f"{each}: {reason}" for each in there if (reason := why_not_writable(each)))
    fine = f"{', '.join(each.name for each in there) or 'none'} there; the others are made when needed"
    yield fails("folders", wrong, "Correct the permissions, or choose another workspace.", fine=fine)


def check_resources(_context: SessionContext) -> Iterator[DoctorFinding]:
    """Check processors, memory and open files, as far as this session may use them."""
    yield good("processors", f"{len(os.sched_getaffinity(0))} usable by this session")
    available = min(psutil.virtual_memory().available, _cgroup_memory_left()) / _GIB
    next_step = "Close other kernels, or ask for more memory; a run with eight conversations needs about 1 GiB."
    yield warns("memory", f"{available:.1f} GiB left", next_step, when=available < 2)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_step = f"`ulimit -n {hard}` before starting; each conversation has a connection."
    yield warns("open files", f"at most {soft}", next_step, when=soft < 1024)


def check_browser(context: SessionContext) -> Iterator[DoctorFinding]:
    """Look for a Chromium, which only the tests of the panels need."""
    path = context.environ.get("CHROMIUM") or context.which("chromium") or context.which("google-chrome")
    yield good("chromium", path or "not here; only the tests of the panels need one")


def check_cards(context: SessionContext) -> Iterator[DoctorFinding]:
    """Ask which accelerators this session sees, and whether they are in use."""
    site = context.site
    needed = site.device if site.device in CARD_VARIABLES else None
    try:
        cards = read_cards(needed)
    except TautoolsError as error:
        yield (fails if needed else warns)("cards", error.seen, error.next_step)
        return
    if cards:
        yield good("cards", "; ".join(map(_card_text, cards)))
    elif needed is None:
        yield good("cards", f"none seen; the site's device is {site.device}")
    elif site.uses_slurm:
        next_step = f"Servers run in jobs that ask for {site.gres or 'cards'}; a login session needs none."
        yield warns("cards", "none seen in this session", next_step)
    else:
        tool = "nvidia-smi" if needed == "cuda" else "hl-smi"
        next_step = f"Check `{tool}`, or set `device` in params/sites/{site.name}.yaml."
        yield fails("cards", f"no {needed} card seen", next_step)


def _card_text(card: Card) -> str:
    use = "idle" if card.idle else "in use"
    return f"{card.device} {card.index} {card.name}: {card.used_mib} of {card.total_mib} MiB, {use}"


def check_hub_cache(context: SessionContext) -> Iterator[DoctorFinding]:
    """Check the cache of the Hugging Face hub, where weights are kept."""
    cache = cache_folder(context.environ)
    models = len(list(cache.glob("models--*")))
    free = free_bytes(cache) / _GIB
    seen = f"{cache}: {models} models, {free:.0f} GiB free{', offline' if hub_is_off(context.environ) else ''}"
    next_step = "A 32B model takes 62 GiB: set HF_HOME to a larger disk before servers start."
    yield warns("hub cache", seen, next_step, when=context.site.device != "none" and free < 80)


def _cgroup_memory_left() -> float:
    """Return what the control group of this session still grants [bytes]; infinite when it sets no limit."""
    folder = Path("/sys/fs/cgroup")
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # `max` is no number: there is no limit
            return max(0.0, float(int((folder / limit).read_text()) - int((folder / used).read_text())))
    return float("inf")


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
        if role.api_key_env and not read_key(context.environ.get(role.api_key_env, ""), role.api_key_env):
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
