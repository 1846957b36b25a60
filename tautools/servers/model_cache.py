"""Weights on this machine's disk: where the hub's cache keeps them, if they are complete, if they fit the cards.

Only reads. A weights file counts as complete when its own header and its length agree, which costs one short read; the
names of the files come from the index beside them.
"""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tautools.errors import ParamsError
from tautools.files import expand_home
from tautools.params.models import ServerParams

_ID_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_MODEL_ID = re.compile(rf"{_ID_PART}(?:/{_ID_PART})?")
_WEIGHT_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "vocab.txt")


@dataclass(frozen=True, slots=True)
class LocalWeights:
    """A model's files on this disk."""

    folder: Path
    missing: tuple[str, ...] = ()
    """What is absent or incomplete, each with the reason."""
    size_bytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether a server can load it."""
        return not self.missing


def check_model_id(model: str) -> str:
    """Return `model` when the hub could have a repository of that name, else raise a ParamsError."""
    if not _MODEL_ID.fullmatch(model) or "--" in model or ".." in model or len(model) > 96:
        raise ParamsError(
            f"{model!r} is neither a folder here nor a name that the hub could have.",
            next_step="Give it as ORGANISATION/NAME, such as Qwen/Qwen3-8B, or as the path of a folder of weights.",
        )
    return model


def hub_home(environ: Mapping[str, str]) -> Path:
    """Return the folder in which the hub's client keeps its token and, by default, its cache."""
    caches = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(environ.get("HF_HOME") or Path(caches) / "huggingface").expanduser()


def hub_token_file(environ: Mapping[str, str]) -> Path:
    """Return the file in which the hub's client keeps this user's token."""
    return Path(environ.get("HF_TOKEN_PATH") or hub_home(environ) / "token").expanduser()


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder in which the hub's client, and with it vLLM, keeps models."""
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or hub_home(environ) / "hub").expanduser()


def hub_is_off(environ: Mapping[str, str]) -> bool:
    """Return whether this user has said that the hub is not to be asked."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(environ.get(name, "").lower() in {"1", "true", "on", "yes"} for name in names)


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that a folder is on, or would be."""
    return shutil.disk_usage(next(each for each in (folder, *folder.absolute().parents) if each.is_dir())).free


def cached_model(model: str, cache: Path) -> Path | None:
    """Return the model's folder in the hub's cache: the one that its main branch names, else the newest."""
    repo = cache / f"models--{model.replace('/', '--')}"
    commit = ""
    with contextlib.suppress(OSError, ValueError):
        commit = (repo / "refs" / "main").read_text().strip()
    folders = filter(Path.is_dir, repo.glob("snapshots/*"))
    return max(folders, key=lambda folder: (folder.name == commit, folder.stat().st_mtime), default=None)


def local_weights(model: str, *, cache: Path) -> LocalWeights | None:
    """Return what is on this disk of a model id, or of a folder of weights; None when there is nothing.

    What is neither a folder nor a possible id is a ParamsError.
    """
    folder = expand_home(model)
    if folder.is_dir() and ((folder / "config.json").is_file() or ("/" in model and not _MODEL_ID.fullmatch(model))):
        return _inspect_folder(folder, broken_off=0)
    snapshot = cached_model(check_model_id(model), cache)
    if snapshot is None:
        return None
    return _inspect_folder(snapshot, broken_off=len(list((snapshot.parents[1] / "blobs").glob("*.incomplete"))))


def _inspect_folder(folder: Path, *, broken_off: int) -> LocalWeights:
    names = _weight_files(folder)
    tokenizer = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    present = {"config.json": (folder / "config.json").is_file(), "a tokenizer": tokenizer, "weights": bool(names)}
    missing = [what for what, there in present.items() if not there]
    missing += [f"{name} ({reason})" for name in names if (reason := _why_incomplete(folder / name))]
    missing += [f"{broken_off} downloads that were broken off"] if missing and broken_off else []
    return LocalWeights(folder, tuple(missing), sum(path.stat().st_size for path in folder.iterdir() if path.is_file()))


def _read_mapping(path: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one where the file is not there, damaged, or something else."""
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _weight_files(folder: Path) -> list[str]:
    for name in _WEIGHT_INDEXES:
        if isinstance(listed := _read_mapping(folder / name).get("weight_map"), dict):
            # A name that leads out of the folder is not a file of this model.
            return sorted({each for each in listed.values() if isinstance(each, str) and Path(each).name == each})
    names = (sorted(path.name for path in folder.glob(pattern)) for pattern in ("*.safetensors", "*.bin"))
    return next(filter(None, names), [])


def _why_incomplete(path: Path) -> str:
    try:
        size = path.stat().st_size
        if path.suffix != ".safetensors":
            return "" if size else "empty"
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size, 100_000_000):
                return "its beginning is damaged"
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError:
        return "not there"
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "its beginning is damaged"
    whole = 8 + length + max(ends, default=0)
    return "" if size == whole else f"{size} of {whole} bytes"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model from its folder."""

    heads: int | None = None
    kv_heads: int | None = None
    weights_gib: float | None = None
    """Size of the weight files [GiB]; None when they are not all here."""


def model_facts(model: str, *, workspace: Path, environ: Mapping[str, str] = os.environ) -> ModelFacts:
    """Return what is known of a model here; nothing of one that is neither a folder nor in the Hugging Face cache.

    A relative folder counts from the workspace, where servers start.
    """
    folders = [workspace / expand_home(model), cached_model(model, cache_folder(environ))]
    folder = next((each for each in folders if each is not None and (each / "config.json").is_file()), None)
    if folder is None:
        return ModelFacts()
    config = _read_mapping(folder / "config.json")
    text: Any = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    heads, kv_heads = (
        value if isinstance(value := text.get(name), int) and value > 0 else None
        for name in ("num_attention_heads", "num_key_value_heads")
    )
    return ModelFacts(heads, kv_heads or heads, _weights_gib(folder))


def _weights_gib(folder: Path) -> float | None:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return float(_read_mapping(folder / _WEIGHT_INDEXES[0])["metadata"]["total_size"]) / 2**30
    sizes = (
        sum(path.stat().st_size for path in folder.glob(pattern) if path.exists())
        for pattern in ("*.safetensors", "*.bin", "*.pt")
    )
    return next((size / 2**30 for size in sizes if size), None)


def why_not_fit(params: ServerParams, facts: ModelFacts, *, card_mib: int | None) -> str:
    """Return why the server cannot run on cards of so much memory; empty when nothing is against it or known of it."""
    across = params.vllm.tensor_parallel_size
    if facts.heads and facts.heads % across:
        fitting = ", ".join(str(size) for size in range(1, min(facts.heads, 16) + 1) if facts.heads % size == 0)
        return f"{facts.heads} attention heads cannot be shared by {across} cards; {fitting} can"
    if facts.kv_heads and max(facts.kv_heads, across) % min(facts.kv_heads, across):
        return f"{facts.kv_heads} key-value heads and {across} cards: one must divide the other"
    share = params.vllm.gpu_memory_utilization or 0.9  # as vLLM does
    card_gib = (card_mib or 0) / 1024
    if facts.weights_gib is not None and card_gib and facts.weights_gib / across >= card_gib * share:
        return (
            f"its weights take {facts.weights_gib / across:.1f} GiB of each card, which gives {card_gib * share:.1f} "
            f"GiB ({share:.0%} of {card_gib:.0f} GiB)"
        )
    return ""
