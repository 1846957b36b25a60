"""Whether a model fits its cards, from its own `config.json` and weights, when they are on this machine's disk."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.files import at_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.params.models import ServerParams

__all__ = ["ModelFacts", "find_snapshot", "model_facts", "why_not_fit"]

_DEFAULT_UTILISATION = 0.9
_GIB = 1024**3
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a model's folder tells."""

    heads: int | None = None
    kv_heads: int | None = None
    weights_gib: float | None = None
    """Size of the weight files [GiB]; None when they are not all here."""
    max_positions: int | None = None


def model_facts(model: str, *, workspace: Path, environ: Mapping[str, str] | None = None) -> ModelFacts:
    """Return what is known of a model here; nothing of one that is neither a folder nor in the Hugging Face cache.

    Parameters
    ----------
    model : str
        Hub id, or a folder; a relative one counts from the workspace, where servers start.
    workspace : Path
        The workspace.
    environ : mapping, optional
        Where `HF_HUB_CACHE` and `HF_HOME` are looked up; this process's environment by default.
    """
    folder = find_snapshot(model, workspace=workspace, environ=environ)
    if folder is None:
        return ModelFacts()
    config = _config(folder)
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    heads = _whole(text, "num_attention_heads")
    return ModelFacts(
        heads,
        _whole(text, "num_key_value_heads") or heads,
        _weights_gib(folder),
        _whole(text, "max_position_embeddings"),
    )


def find_snapshot(model: str, *, workspace: Path, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder with the model's `config.json`; None when this machine has none."""
    environ = os.environ if environ is None else environ
    local = workspace / at_home(model)
    if (local / "config.json").is_file():
        return local
    home = Path(environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repo = cache / f"models--{model.replace('/', '--')}"
    named = repo / "snapshots" / _text(repo / "refs" / "main")
    others = sorted(repo.glob("snapshots/*")) if repo.is_dir() else []
    return next((each for each in (named, *others) if (each / "config.json").is_file()), None)


def why_not_fit(params: ServerParams, facts: ModelFacts, *, card_mib: int | None) -> str:
    """Return why the server cannot run on its cards; empty when nothing speaks against it, or nothing is known.

    Parameters
    ----------
    params : ServerParams
        The server; its tensor parallel size and the share of the memory that it may use.
    facts : ModelFacts
        What is known of its model.
    card_mib : int, optional
        Memory of one card [MiB].
    """
    across = params.vllm.tensor_parallel_size
    if facts.heads and facts.heads % across:
        fitting = ", ".join(str(size) for size in range(1, facts.heads + 1) if facts.heads % size == 0 and size <= 16)
        return f"{facts.heads} attention heads cannot be shared by {across} cards; {fitting} can"
    kv_heads = facts.kv_heads
    if kv_heads and max(kv_heads, across) % min(kv_heads, across):
        return f"{kv_heads} key-value heads and {across} cards: one must divide the other"
    share = params.vllm.gpu_memory_utilization or _DEFAULT_UTILISATION
    if facts.weights_gib is not None and card_mib:
        each, room = facts.weights_gib / across, card_mib / 1024 * share
        if each >= room:
            return (
                f"its weights take {each:.1f} GiB of each card, which gives {room:.1f} GiB ({share:.0%} of "
                f"{card_mib / 1024:.0f} GiB)"
            )
    return ""


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _whole(config: Any, name: str) -> int | None:
    value = config.get(name)
    return value if isinstance(value, int) and value > 0 else None


def _weights_gib(folder: Path) -> float | None:
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        return float(index["metadata"]["total_size"]) / _GIB
    except (OSError, ValueError, KeyError, TypeError):
        pass
    for pattern in _WEIGHTS:
        sizes = [path.stat().st_size for path in folder.glob(pattern) if path.exists()]
        if sizes:
            return sum(sizes) / _GIB
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "?"
