"""Weights on this machine's disk: where the hub's cache keeps them, if they are complete, if they fit the cards.

Only reads. A weights file counts as complete when its own header and its length agree, which costs one short read; the
names of the files come from the index beside them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tautools.errors import ParamsError
from tautools.files import expand_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tautools.params.models import ServerParams


_ID_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_MODEL_ID = re.compile(rf"{_ID_PART}(?:/{_ID_PART})?")
_WEIGHT_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "vocab.txt")
_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class LocalWeights:
    """A model's files on this disk."""

    folder: Path
    missing: tuple[str, ...] = ()
    """What is not there or not whole, each with the reason."""
    size_bytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether a server can load it."""
        return not self.missing


def check_model_id(model: str) -> str:
    """Return `model` when the hub could have a repository of that name.

    Raises
    ------
    ParamsError
        When it could not; nothing is looked for, on disk or elsewhere.
    """
    if not _MODEL_ID.fullmatch(model) or "--" in model or ".." in model or len(model) > 96:
        raise ParamsError(
            f"{model!r} is neither a folder here nor a name that the hub could have.",
            next_step="Give it as ORGANISATION/NAME, such as Qwen/Qwen3-8B, or as the path of a folder of weights.",
        )
    return model


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder in which the hub's client, and with it vLLM, keeps models."""
    named = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(named or hub_home(environ) / "hub").expanduser()


def hub_home(environ: Mapping[str, str]) -> Path:
    """Return the folder in which the hub's client keeps its token and, unless told otherwise, its cache."""
    caches = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME") or Path.home()) / ".cache"
    return Path(environ.get("HF_HOME") or Path(caches) / "huggingface").expanduser()


def free_bytes(folder: Path) -> int:
    """Return the space left where `folder` is or will be [bytes]."""
    return shutil.disk_usage(next(each for each in (folder, *folder.absolute().parents) if each.is_dir())).free


def local_weights(model: str, *, cache: Path) -> LocalWeights | None:
    """Return what is on this disk of a model id, or of a folder of weights; None when there is nothing.

    Raises
    ------
    ParamsError
        When `model` is neither a folder nor a possible id.
    """
    folder = expand_home(model)
    if folder.is_dir() and ("/" in model or (folder / "config.json").is_file()):
        if not (folder / "config.json").is_file() and _MODEL_ID.fullmatch(model):
            return _cached_weights(model, cache)
        return _inspect_folder(folder)
    return _cached_weights(check_model_id(model), cache)


def _cached_weights(model: str, cache: Path) -> LocalWeights | None:
    repo = cache / f"models--{model.replace('/', '--')}"
    snapshots = repo / "snapshots"
    try:
        commit = (repo / "refs" / "main").read_text().strip()
    except OSError:
        commit = ""
    named = snapshots / commit if re.fullmatch(r"[A-Za-z0-9]{1,64}", commit) else None
    if named is None or not named.is_dir():
        there = sorted(snapshots.iterdir(), key=os.path.getmtime) if snapshots.is_dir() else []
        if not there:
            return None
        named = there[-1]
    halves = sorted((repo / "blobs").glob("*.incomplete"))
    found = _inspect_folder(named)
    if halves and found.missing:
        noted = f"{len(halves)} downloads that were broken off"
        return LocalWeights(found.folder, (*found.missing, noted), found.size_bytes)
    return found


def _inspect_folder(folder: Path) -> LocalWeights:
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        missing.append("a tokenizer")
    wanted = _weight_files(folder)
    if not wanted:
        missing.append("weights")
    missing += [f"{name} ({reason})" for name in wanted if (reason := _why_incomplete(folder / name))]
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return LocalWeights(folder, tuple(missing), size)


def _weight_files(folder: Path) -> list[str]:
    """Return the names of the files of weights that have to be there."""
    for name in _WEIGHT_INDEXES:
        try:
            listed = json.loads((folder / name).read_text())["weight_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        # A name that leads out of the folder is no file of this model.
        return sorted({each for each in listed if isinstance(each, str) and Path(each).name == each})
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    return names or sorted(path.name for path in folder.glob("*.bin"))


def _why_incomplete(path: Path) -> str:
    try:
        size = path.stat().st_size
        if path.suffix != ".safetensors":
            return "" if size else "empty"
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size, _MAX_HEADER_BYTES):
                return "its beginning is damaged"
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError:
        return "not there"
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "its beginning is damaged"
    whole = 8 + length + max(ends, default=0)
    return "" if size == whole else f"{size} of {whole} bytes"


_DEFAULT_GPU_UTILIZATION = 0.9
_GIB = 1024**3
_WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.pt")


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
    config = _read_config(folder)
    text = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    heads = _positive_int(text, "num_attention_heads")
    return ModelFacts(
        heads,
        _positive_int(text, "num_key_value_heads") or heads,
        _weights_gib(folder),
        _positive_int(text, "max_position_embeddings"),
    )


def find_snapshot(model: str, *, workspace: Path, environ: Mapping[str, str] | None = None) -> Path | None:
    """Return the folder with the model's `config.json`; None when this machine has none."""
    environ = os.environ if environ is None else environ
    local = workspace / expand_home(model)
    if (local / "config.json").is_file():
        return local
    home = Path(environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    cache = Path(environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    repo = cache / f"models--{model.replace('/', '--')}"
    named = repo / "snapshots" / _read_text_or(repo / "refs" / "main")
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
    share = params.vllm.gpu_memory_utilization or _DEFAULT_GPU_UTILIZATION
    if facts.weights_gib is not None and card_mib:
        each, room = facts.weights_gib / across, card_mib / 1024 * share
        if each >= room:
            return (
                f"its weights take {each:.1f} GiB of each card, which gives {room:.1f} GiB ({share:.0%} of "
                f"{card_mib / 1024:.0f} GiB)"
            )
    return ""


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _positive_int(config: Any, name: str) -> int | None:
    value = config.get(name)
    return value if isinstance(value, int) and value > 0 else None


def _weights_gib(folder: Path) -> float | None:
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        return float(index["metadata"]["total_size"]) / _GIB
    except (OSError, ValueError, KeyError, TypeError):
        pass
    for pattern in _WEIGHT_PATTERNS:
        sizes = [path.stat().st_size for path in folder.glob(pattern) if path.exists()]
        if sizes:
            return sum(sizes) / _GIB
    return None


def _read_text_or(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "?"
