"""Said before a start: a model that is nowhere. A vLLM finds that out by itself, half a minute or a queue later.

Never a false refusal: only what is certain is refused, and what is only likely is told in the log. Nothing is asked of
a model that lies in a folder or whole in the cache, nor of a command that is not vLLM itself, which may see other
folders: a container, a shell script.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import ServerError
from tautools.server.weights.cache import cache_folder, check_model_id, local_copy
from tautools.server.weights.find import check_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.params.models import ServerParams
    from tautools.server.weights.find import Weights

__all__ = ["require_weights"]

_LOG = logging.getLogger(__name__)

_OTHER_SOURCES = {"download_dir", "load_format", "revision", "hf_token", "config", "model_loader_extra_config"}
"""Flags with which the weights may come from elsewhere than the hub's cache."""


def require_weights(params: ServerParams, *, command: Sequence[str], env: Mapping[str, str], workspace: Path) -> None:
    """Raise when the model that a server of this machine shall load is nowhere; log what is only likely.

    A model that the hub has and that is not here yet passes: vLLM fetches it.

    Parameters
    ----------
    params : ServerParams
        What to serve.
    command : sequence of str
        What starts the server.
    env : mapping
        The server's environment: HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN count.
    workspace : Path
        Where the server runs: its relative paths count from there.

    Raises
    ------
    ServerError
        When the folder does not exist, nothing of the model is in the cache and the environment forbids to ask the hub,
        or the hub has no such model.
    ParamsError
        When it is neither a folder nor a possible name.
    """
    model = params.model
    if params.engine != "vllm" or not _is_vllm(command) or _from_elsewhere(params, env) or (workspace / model).exists():
        return
    if model.startswith(("/", "./", "../", "~")):
        raise ServerError(
            f"The model of server {params.name!r} is the folder {model}, which does not exist here.",
            next_step="Correct `model` in the server file: a folder with config.json, or ORGANISATION/NAME at the hub.",
        )
    copy = local_copy(check_model_id(model), cache=cache_folder(env))
    if copy is None or not copy.complete:
        _judge(params.name, check_weights(model, environ=env))


def _is_vllm(command: Sequence[str]) -> bool:
    words = [Path(command[0]).name, *(after for word, after in pairwise(command) if word == "-m")]
    return any(word.partition(".")[0] == "vllm" for word in words)


def _from_elsewhere(params: ServerParams, env: Mapping[str, str]) -> bool:
    flags = {name.lstrip("-").replace("-", "_") for name in params.vllm.args}
    other_hub = env.get("VLLM_USE_MODELSCOPE", "").lower() in {"1", "true"}
    # An address of a bucket, or `repository:quantisation`.
    return other_hub or ":" in params.model or bool(flags & _OTHER_SOURCES)


def _judge(name: str, known: Weights) -> None:
    """Raise for a model that nobody has; log the rest."""
    if known.copy is None and known.state in {"offline", "absent"}:
        raise ServerError(
            f"Server {name!r} cannot load its model.",
            evidence=str(known),
            next_step="Do what is said above. `tautools model check` asks again.",
        )
    if known.state != "fetchable":
        _LOG.warning("Server %s may not be able to load its model. %s", name, known)
