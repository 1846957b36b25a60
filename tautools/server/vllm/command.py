"""The command line and the environment of a server, from what a person wrote. Nothing is started here.

A command is a list of words that no shell reads, so quotes, newlines and `$( )` in a parameter stay what they are. The
key travels in the environment (`VLLM_API_KEY`, which both engines read), never on the command line, which every user of
the node can see.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.errors import ParamsError
from tautools.params.secrets import names_a_secret
from tautools.server.vllm.installed import versions_beside
from tautools.server.vllm.profiles import check_modules, choose_profile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.params.models import ServerParams, SiteParams

__all__ = ["Place", "server_argv", "server_env"]

KEY_VARIABLE = "VLLM_API_KEY"

_OURS = {"api_key", "host", "port", "served_model_name", "model", "uds"}
"""Flags that the launcher sets itself; a second value would undo the proof of identity or show the key."""

_CARD_VARIABLES = {"cuda": "CUDA_VISIBLE_DEVICES", "gaudi": "HABANA_VISIBLE_MODULES"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where one launch listens and the name that only it is served under."""

    host: str
    port: int
    alias: str


def server_argv(params: ServerParams, site: SiteParams, place: Place) -> list[str]:
    """Return the command that starts the server, word by word.

    Raises
    ------
    ParamsError
        When `vllm.args` holds a flag that the launcher sets itself, a flag carries a secret, or the model's name would
        be taken for a flag.
    """
    if params.engine == "simulate":
        return _without_secrets(_simulate_argv(params, place))
    if params.model.startswith("-"):
        raise ParamsError(
            f"The model {params.model!r} would be taken for a flag.",
            next_step="Give it as ORGANISATION/NAME or as a path; a folder whose name begins so as ./NAME.",
        )
    return _without_secrets(_vllm_argv(params, params.serve_command or site.serve_command, place))


def server_env(
    params: ServerParams, site: SiteParams, *, key: str, cache: Path, inherited: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of the server.

    Parameters
    ----------
    params, site
        What was written; the server's own variables win over the site's, and both over the inherited ones.
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
    if params.cards and site.scheduler == "slurm" and site.gres:
        raise ParamsError(
            f"Server {params.name!r} names cards, and Slurm gives a job its cards; those of other jobs are not ours.",
            evidence=f"cards {', '.join(map(str, params.cards))}; gres {site.gres}",
            next_step="Leave out `cards` and --gpu-ids: a job asks for as many cards as its server takes.",
        )
    env = {name: value for name, value in inherited.items() if name != "VLLM_PORT"}
    # A root that the session has set is shared by all that start from it; each server gets a folder of its own in it.
    env["VLLM_CACHE_ROOT"] = str(Path(env["VLLM_CACHE_ROOT"]) / cache.name if "VLLM_CACHE_ROOT" in env else cache)
    env.setdefault("VLLM_NO_USAGE_STATS", "1")
    # A log that is watched must not wait in a buffer.
    env.setdefault("PYTHONUNBUFFERED", "1")
    profile = choose_profile(params, site, versions_beside(params.serve_command or site.serve_command))
    env = profile.env | env
    variable = _CARD_VARIABLES.get(site.device)
    if params.cards and variable:
        env[variable] = ",".join(str(card) for card in params.cards)
    env |= site.env | params.env
    if site.device == "gaudi":
        check_modules(env)
    env[KEY_VARIABLE] = key
    return env


def _without_secrets(argv: list[str]) -> list[str]:
    """Return `argv` when no flag of it carries a secret, which every user of the node could read."""
    for word in argv:
        name = word.partition("=")[0]
        if name.startswith("--") and names_a_secret(name.lstrip("-")):
            raise ParamsError(
                f"`{name}` would show a secret to every user of the machine.",
                next_step="Set its environment variable before tautools starts (HF_TOKEN for the hub's token).",
            )
    return argv


def _simulate_argv(params: ServerParams, place: Place) -> list[str]:
    how = params.simulate
    flags = {
        "--host": place.host,
        "--port": place.port,
        "--model": params.serves,
        "--alias": place.alias,
        "--skill": how.skill,
        "--ttft-ms": how.ttft_ms,
        "--itl-ms": how.itl_ms,
        "--prefill-ms-per-1k": how.prefill_ms_per_1k_tokens,
        "--jitter": how.jitter,
        "--speed": how.speed,
        "--seed": how.seed,
        "--max-model-len": how.max_model_len,
    }
    # -P: a file of the workspace must not be taken for a module of Python's.
    words = params.serve_command or [sys.executable, "-P", "-m", "tautools.simulate"]
    return [*words, *(word for flag, value in flags.items() for word in (flag, str(value)))]


def _vllm_argv(params: ServerParams, words: list[str], place: Place) -> list[str]:
    vllm = params.vllm
    argv = [*words, params.model, "--host", place.host, "--port", str(place.port)]
    argv += ["--served-model-name", params.serves, place.alias]
    named = {
        "max_model_len": vllm.max_model_len,
        "tensor_parallel_size": vllm.tensor_parallel_size if vllm.tensor_parallel_size > 1 else None,
        "gpu_memory_utilization": vllm.gpu_memory_utilization,
        "max_num_seqs": vllm.max_num_seqs,
        "dtype": vllm.dtype,
        "enable_auto_tool_choice": True if vllm.tool_call_parser else None,
        "tool_call_parser": vllm.tool_call_parser,
        "reasoning_parser": vllm.reasoning_parser,
        "chat_template": vllm.chat_template,
        "default_chat_template_kwargs": vllm.chat_template_kwargs or None,
        "enforce_eager": vllm.enforce_eager or None,
    }
    for name, value in (named | vllm.args).items():
        argv += _flag(name, value)
    return argv


def _flag(name: str, value: Any) -> list[str]:
    bare = name.lstrip("-").replace("_", "-")
    if bare.replace("-", "_") in _OURS:
        raise ParamsError(
            f"`{name}` under `vllm.args` is set by the launcher itself.",
            next_step="Use `model`, `served_model_name` and `port`; each launch gets a key of its own.",
        )
    if value is None:
        return []
    if isinstance(value, bool):
        return [f"--{bare}" if value else f"--no-{bare}"]
    if isinstance(value, dict):
        return [f"--{bare}", json.dumps(value)]
    if isinstance(value, list):
        return [f"--{bare}", *(item if isinstance(item, str) else json.dumps(item) for item in value)]
    return [f"--{bare}", str(value)]
