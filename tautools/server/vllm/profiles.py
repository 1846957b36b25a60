"""What a kind of card needs in the environment of a server: chosen by the site's `device`.

Only defaults: whatever the session, the site or the server file sets itself wins.
"""

from __future__ import annotations

import getpass
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tautools.errors import ParamsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.params.models import ServerParams, SiteParams

__all__ = ["RECIPES_MB", "RECIPES_VARIABLE", "Profile", "check_modules", "choose_profile", "own_folder"]

RECIPES_VARIABLE = "PT_HPU_RECIPE_CACHE_CONFIG"
RECIPES_MB = 16384
"""Size that the cache of compiled graphs may grow to [MB]."""

_FIRST_COMPILE_S = 600
"""A first request may wait so long for its graph [s]."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The defaults of one kind of card."""

    name: str
    env: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What a person should know, one sentence each."""


def choose_profile(params: ServerParams, site: SiteParams, versions: Mapping[str, str]) -> Profile:
    """Return the profile of a server on a site.

    Parameters
    ----------
    params, site
        What was written.
    versions : mapping
        Installed packages, as `versions_beside` tells them; they tell Gaudi's plugin from the old fork.
    """
    if params.engine == "simulate":
        return Profile("simulated")
    if site.device == "gaudi":
        return _gaudi(params, site, versions)
    if site.device == "cpu":
        return _cpu(params)
    return Profile(site.device)


def check_modules(env: Mapping[str, str]) -> None:
    """Raise when Gaudi's card variable holds anything but numbers.

    Raises
    ------
    ParamsError
        Vendor software ends with a ValueError about `int()` otherwise.
    """
    given = env.get("HABANA_VISIBLE_MODULES")
    if given is not None and not re.fullmatch(r"\d+(,\d+)*", given):
        raise ParamsError(
            f"HABANA_VISIBLE_MODULES={given!r} is not a list of module numbers.",
            next_step="Write numbers such as 0,1 (`hl-smi -Q index,module_id -f csv` tells them), or unset it for all.",
        )


def _gaudi(params: ServerParams, site: SiteParams, versions: Mapping[str, str]) -> Profile:
    fork = _is_fork(versions)
    lazy = fork
    env = {
        "PT_HPU_LAZY_MODE": "1" if lazy else "0",
        "PT_HPU_WEIGHT_SHARING": "0",
        "HABANA_LOGS": f"{own_folder(site)}/habana_logs",
        "VLLM_RPC_TIMEOUT": str(_FIRST_COMPILE_S * 1000),
        "VLLM_ENGINE_ITERATION_TIMEOUT_S": str(_FIRST_COMPILE_S),
    }
    if not fork:
        env["VLLM_BUCKETING_STRATEGY"] = "exp"
    if lazy and params.vllm.tensor_parallel_size > 1:
        env["PT_HPU_ENABLE_LAZY_COLLECTIVES"] = "true"
    if lazy and "qwen" in params.model.lower():
        env["PT_HPUGRAPH_DISABLE_TENSOR_CACHE"] = "false"
    if params.vllm.max_num_seqs is not None:
        env["VLLM_DECODE_BS_BUCKET_MAX"] = str(params.vllm.max_num_seqs)
    recipes = _recipes(params, site, versions)
    if recipes:
        env[RECIPES_VARIABLE] = f"{recipes},false,{RECIPES_MB}"
    return Profile("gaudi-fork" if fork else "gaudi", env, _gaudi_notes(params, site, fork=fork, recipes=recipes))


def _is_fork(versions: Mapping[str, str]) -> bool:
    """Whether it is Habana's own vLLM, which ends at 0.9; later ones are the project's with a plugin."""
    version = versions.get("vllm", "")
    numbers = [int(part) for part in re.findall(r"\d+", version)[:2]]
    return "vllm_gaudi" not in versions and len(numbers) == 2 and numbers < [0, 10]


def _recipes(params: ServerParams, site: SiteParams, versions: Mapping[str, str]) -> str:
    """Return the folder of compiled graphs; none when the software is not known, whose graphs they would be."""
    software = [versions.get(name) for name in ("habana_torch_plugin", "vllm", "vllm_gaudi")]
    if not versions.get("vllm"):
        return ""
    cards = params.vllm.tensor_parallel_size
    key = "-".join([*(each for each in software if each), f"tp{cards}", params.vllm.dtype or "auto"])
    return f"{own_folder(site)}/recipes/{re.sub(r'[^A-Za-z0-9._+-]', '_', key)}"


def own_folder(site: SiteParams) -> str:
    """Return this user's folder on the node's own disk."""
    return f"{site.node_disk.rstrip('/')}/tautools-{getpass.getuser()}"


def _gaudi_notes(params: ServerParams, site: SiteParams, *, fork: bool, recipes: str) -> list[str]:
    notes = []
    if fork:
        notes.append("Habana's fork of vLLM is not kept up any more; the plugin (vllm-gaudi) has taken its place.")
    if not recipes:
        notes.append("Compiled graphs are not kept: the versions of its environment cannot be seen from this session.")
    if "VLLM_SKIP_WARMUP" in site.env | params.env:
        notes.append("Without the warm-up the first requests compile: their latencies are no measurement.")
    if "VLLM_FULL_WARMUP" in site.env | params.env:
        notes.append("VLLM_FULL_WARMUP ends the server at the first shape it has not seen.")
    notes.append("The start is mostly warm-up; `server ls` shows its counter.")
    return notes


def _cpu(params: ServerParams) -> Profile:
    env = {"VLLM_CPU_OMP_THREADS_BIND": "auto"}
    if params.vllm.enforce_eager:
        # Otherwise the first request with a grammar waits for a C++ compiler, 5 to 9 s.
        env["TORCH_COMPILE_DISABLE"] = "1"
    notes = []
    if not {"kv_cache_memory_bytes", "kv-cache-memory-bytes"} & set(params.vllm.args):
        notes.append("The KV cache takes whole GiB (VLLM_CPU_KVCACHE_SPACE); `kv_cache_memory_bytes` takes less.")
    return Profile("cpu", env, notes)
