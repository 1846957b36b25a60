"""The command line and the environment of a server, from what a person wrote. Nothing is started here.

A command is a list of words that no shell reads, so quotes, newlines and `$( )` in a parameter stay what they are. The
key travels in the environment (`VLLM_API_KEY`, which both engines read), never on the command line, which every user of
the node can see. What a kind of card needs in the environment is chosen by the site's `device`; these are defaults, and
whatever the session, the site or the server file sets itself wins.
"""

import getpass
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tautools.errors import ParamsError
from tautools.params.models import SIMULATE_OPTIONS, ServerParams, SiteParams
from tautools.redaction import names_a_secret
from tautools.servers.accelerators.probe import CARD_VARIABLES

_PACKAGES = {"vllm", "vllm_gaudi", "habana_torch_plugin", "torch", "transformers", "tokenizers"}
_DIST_INFO = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[^-]+)\.(?:dist|egg)-info")


def packages_folders(command: Sequence[str]) -> list[Path]:
    """Return the `site-packages` folders of the environment that a command belongs to; none when it is not here."""
    program = shutil.which(command[0]) if command else None
    if program is None:
        return []
    # Not resolved further: the `python` of a virtual environment is a link to another one's.
    return sorted(Path(program).absolute().parent.parent.glob("lib/python3*/site-packages"))


def installed_versions(command: Sequence[str]) -> dict[str, str]:
    """Return the versions of vLLM and what decides about it, by package; empty when they cannot be seen from here."""
    files = [path.name for folder in packages_folders(command) for path in folder.iterdir()]
    infos = {match["name"].lower(): match["version"] for name in files if (match := _DIST_INFO.fullmatch(name))}
    return {name: version for name, version in infos.items() if name in _PACKAGES}


RECIPES_VARIABLE = "PT_HPU_RECIPE_CACHE_CONFIG"


def recipes_config(folder: str) -> str:
    """Return the variable's value: compiled graphs are kept in a folder, which may grow to 16 GB."""
    return f"{folder},false,16384"


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """The defaults of one kind of card."""

    name: str
    env: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What a person should know, one sentence each."""


def choose_profile(params: ServerParams, site: SiteParams, versions: Mapping[str, str]) -> DeviceProfile:
    """Return the profile of a server on a site.

    Parameters
    ----------
    params, site
        What was written.
    versions : mapping
        Installed packages, from `installed_versions`; they distinguish Gaudi's plugin from the old fork.
    """
    device = "simulated" if params.simulated else site.device
    if device == "gaudi":
        return _gaudi_profile(params, site, versions)
    return _cpu_profile(params) if device == "cpu" else DeviceProfile(device)


def _gaudi_profile(params: ServerParams, site: SiteParams, versions: Mapping[str, str]) -> DeviceProfile:
    # Habana's own vLLM ends at 0.9; later ones are the project's with a plugin.
    numbers = [int(part) for part in re.findall(r"\d+", versions.get("vllm", ""))[:2]]
    fork = "vllm_gaudi" not in versions and len(numbers) == 2 and numbers < [0, 10]
    first_compile_s = 600  # how long a first request may wait for its graph
    vllm, recipes = params.vllm, _recipe_folder(params, site, versions)
    env = {
        "PT_HPU_LAZY_MODE": "1" if fork else "0",
        "PT_HPU_WEIGHT_SHARING": "0",
        "HABANA_LOGS": f"{user_folder(site)}/habana_logs",
        "VLLM_RPC_TIMEOUT": str(first_compile_s * 1000),
        "VLLM_ENGINE_ITERATION_TIMEOUT_S": str(first_compile_s),
        "VLLM_BUCKETING_STRATEGY": None if fork else "exp",
        "PT_HPU_ENABLE_LAZY_COLLECTIVES": "true" if fork and vllm.tensor_parallel_size > 1 else None,
        "PT_HPUGRAPH_DISABLE_TENSOR_CACHE": "false" if fork and "qwen" in params.model.lower() else None,
        "VLLM_DECODE_BS_BUCKET_MAX": None if vllm.max_num_seqs is None else str(vllm.max_num_seqs),
        RECIPES_VARIABLE: recipes_config(recipes) if recipes else None,
    }
    written = site.env | params.env
    notes = {
        "Habana's fork of vLLM is not maintained any more; the plugin (vllm-gaudi) has taken its place.": fork,
        "Compiled graphs are not kept: the versions of its environment cannot be seen from here.": not recipes,
        "Without the warm-up the first requests compile: their latencies are no measurement.": (
            "VLLM_SKIP_WARMUP" in written
        ),
        "VLLM_FULL_WARMUP ends the server at the first shape it has not seen.": "VLLM_FULL_WARMUP" in written,
        "The start is mostly warm-up; `server ls` shows its counter.": True,
    }
    return DeviceProfile(
        "gaudi-fork" if fork else "gaudi",
        {name: value for name, value in env.items() if value is not None},
        [note for note, holds in notes.items() if holds],
    )


def _recipe_folder(params: ServerParams, site: SiteParams, versions: Mapping[str, str]) -> str:
    """Return the folder of compiled graphs; none when the software is not known, whose graphs they would be."""
    if not versions.get("vllm"):
        return ""
    software = [versions[name] for name in ("habana_torch_plugin", "vllm", "vllm_gaudi") if versions.get(name)]
    key = "-".join([*software, f"tp{params.vllm.tensor_parallel_size}", params.vllm.dtype or "auto"])
    return f"{user_folder(site)}/recipes/{re.sub(r'[^A-Za-z0-9._+-]', '_', key)}"


def user_folder(site: SiteParams) -> str:
    """Return this user's folder on the node's own disk."""
    return f"{site.node_disk.rstrip('/')}/tautools-{getpass.getuser()}"


def _cpu_profile(params: ServerParams) -> DeviceProfile:
    # Otherwise the first request with a grammar waits for a C++ compiler, 5 to 9 s.
    eager = {"TORCH_COMPILE_DISABLE": "1"} if params.vllm.enforce_eager else {}
    note = "The KV cache takes whole GiB (VLLM_CPU_KVCACHE_SPACE); `kv_cache_memory_bytes` takes less."
    sized = {"kv_cache_memory_bytes", "kv-cache-memory-bytes"} & set(params.vllm.args)
    return DeviceProfile("cpu", {"VLLM_CPU_OMP_THREADS_BIND": "auto"} | eager, [] if sized else [note])


KEY_VARIABLE = "VLLM_API_KEY"

_LAUNCHER_FLAGS = {"api_key", "host", "port", "served_model_name", "model", "uds"}
"""Flags that the launcher sets itself; a second value would undo the identity check or show the key."""


def server_argv(params: ServerParams, site: SiteParams, *, port: int | str, alias: str) -> list[str]:
    """Return the command that starts the server, word by word.

    Parameters
    ----------
    params, site
        What was written; it listens on the site's `host`.
    port : int or str
        Where it listens; `$port` in a job, which chooses it.
    alias : str
        A second name of the model, under which only this launch is served.

    Raises
    ------
    ParamsError
        When `vllm.args` holds a flag that the launcher sets itself, a flag carries a secret, or the model's name would
        be taken for a flag.
    """
    if params.model.startswith("-") and not params.simulated:
        raise ParamsError(
            f"The model {params.model!r} would be taken for a flag.",
            next_step="Give it as ORGANISATION/NAME or as a path; write a folder with such a name as ./NAME.",
        )
    argv = (_simulate_argv if params.simulated else _vllm_argv)(params, site, port, alias)
    for name in (word.partition("=")[0] for word in argv):
        if name.startswith("--") and names_a_secret(name.lstrip("-")):
            raise ParamsError(
                f"`{name}` would show a secret to every user of the machine.",
                next_step="Set its environment variable before tautools starts (HF_TOKEN for the hub's token).",
            )
    return argv


def server_env(
    params: ServerParams, site: SiteParams, *, key: str, cache: Path, inherited: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of the server; its own variables win over the site's, both over inherited ones.

    Parameters
    ----------
    params, site
        What was written.
    key : str
        The random key of this launch.
    cache : Path
        Folder for compiled artefacts of this server alone: two servers that share one spoil each other's.
    inherited : mapping
        The launching process's environment.

    Raises
    ------
    ParamsError
        When Gaudi's card variable holds anything but numbers, or cards are named for a job that Slurm gives its cards.
    """
    if params.cards and site.uses_slurm and site.gres:
        raise ParamsError(
            f"Server {params.name!r} names cards, and Slurm chooses the cards of a job.",
            evidence=f"cards {', '.join(map(str, params.cards))}; gres {site.gres}",
            next_step="Leave out `cards` and --gpu-ids: a job asks for as many cards as its server takes.",
        )
    env = {name: value for name, value in inherited.items() if name != "VLLM_PORT"}
    # A cache root that is set already is shared by all servers; each gets a folder of its own in it.
    env["VLLM_CACHE_ROOT"] = str(Path(env["VLLM_CACHE_ROOT"]) / cache.name if "VLLM_CACHE_ROOT" in env else cache)
    env.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Someone follows the log: it must not wait in a buffer.
    env.setdefault("PYTHONUNBUFFERED", "1")
    profile = choose_profile(params, site, installed_versions(params.serve_command or site.serve_command))
    env = profile.env | env
    variable = CARD_VARIABLES.get(site.device)
    if params.cards and variable:
        env[variable] = ",".join(str(card) for card in params.cards)
    env |= site.env | params.env
    modules = env.get("HABANA_VISIBLE_MODULES") if site.device == "gaudi" else None
    if modules is not None and not re.fullmatch(r"\d+(,\d+)*", modules):  # the vendor's software ends with a ValueError
        raise ParamsError(
            f"HABANA_VISIBLE_MODULES={modules!r} is not a list of module numbers.",
            next_step="Write numbers such as 0,1 (see `hl-smi -Q index,module_id -f csv`), or unset it for all.",
        )
    env[KEY_VARIABLE] = key
    return env


def _simulate_argv(params: ServerParams, site: SiteParams, port: int | str, alias: str) -> list[str]:
    flags: dict[str, Any] = {"--host": site.host, "--port": port, "--model": params.serves, "--alias": alias}
    flags |= {SIMULATE_OPTIONS[name]: value for name, value in params.simulate}
    # -P: a file of the workspace must not be taken for a module of Python's.
    words = params.serve_command or [sys.executable, "-P", "-m", "tautools", "simulate"]
    return [*words, *(word for option, value in flags.items() for word in (option, str(value)))]


def _vllm_argv(params: ServerParams, site: SiteParams, port: int | str, alias: str) -> list[str]:
    vllm = params.vllm
    argv = [*(params.serve_command or site.serve_command), params.model, "--host", site.host]
    argv += ["--port", str(port), "--served-model-name", params.serves, alias]
    flags: dict[str, Any] = {}
    for name, value in vllm.model_dump(exclude_defaults=True, exclude={"args"}).items():
        flags |= {"enable_auto_tool_choice": True} if name == "tool_call_parser" and value else {}
        flags["default_chat_template_kwargs" if name == "chat_template_kwargs" else name] = value
    return argv + [word for name, value in (flags | vllm.args).items() for word in _flag_words(name, value)]


def _flag_words(name: str, value: Any) -> list[str]:
    bare = name.lstrip("-").replace("_", "-")
    if bare.replace("-", "_") in _LAUNCHER_FLAGS:
        raise ParamsError(
            f"`{name}` under `vllm.args` is set by the launcher itself.",
            next_step="Use `model`, `served_model_name` and `port`; each launch gets a key of its own.",
        )
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{bare}" if value else f"--no-{bare}"]
    items = value if isinstance(value, list) else [value if isinstance(value, dict) else str(value)]
    return [f"--{bare}", *(item if isinstance(item, str) else json.dumps(item) for item in items)]
