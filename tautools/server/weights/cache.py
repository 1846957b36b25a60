"""Weights on this machine's disk: where the hub's cache keeps them, and whether they are whole.

Only reads. A file of weights is taken as whole when its own header and its length agree, which costs one short read;
the names of the files come from the index that lies beside them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.errors import ParamsError
from tautools.files import at_home

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Copy", "cache_folder", "check_model_id", "free_bytes", "hub_home", "local_copy"]

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_MODEL_ID = re.compile(rf"{_PART}(?:/{_PART})?")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json", "vocab.txt")
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True, slots=True)
class Copy:
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


def local_copy(model: str, *, cache: Path) -> Copy | None:
    """Return what is on this disk of a model id, or of a folder of weights; None when there is nothing.

    Raises
    ------
    ParamsError
        When `model` is neither a folder nor a possible id.
    """
    folder = at_home(model)
    if folder.is_dir() and ("/" in model or (folder / "config.json").is_file()):
        if not (folder / "config.json").is_file() and _MODEL_ID.fullmatch(model):
            return _cached(model, cache)
        return _look(folder)
    return _cached(check_model_id(model), cache)


def _cached(model: str, cache: Path) -> Copy | None:
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
    found = _look(named)
    if halves and found.missing:
        noted = f"{len(halves)} downloads that were broken off"
        return Copy(found.folder, (*found.missing, noted), found.size_bytes)
    return found


def _look(folder: Path) -> Copy:
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        missing.append("a tokenizer")
    wanted = _weights(folder)
    if not wanted:
        missing.append("weights")
    missing += [f"{name} ({reason})" for name in wanted if (reason := _why_not_whole(folder / name))]
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    return Copy(folder, tuple(missing), size)


def _weights(folder: Path) -> list[str]:
    """Return the names of the files of weights that have to be there."""
    for name in _INDEXES:
        try:
            listed = json.loads((folder / name).read_text())["weight_map"].values()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        # A name that leads out of the folder is no file of this model.
        return sorted({each for each in listed if isinstance(each, str) and Path(each).name == each})
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    return names or sorted(path.name for path in folder.glob("*.bin"))


def _why_not_whole(path: Path) -> str:
    try:
        size = path.stat().st_size
        if path.suffix != ".safetensors":
            return "" if size else "empty"
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size, _LONGEST_HEADER):
                return "its beginning is damaged"
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except FileNotFoundError:
        return "not there"
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return "its beginning is damaged"
    whole = 8 + length + max(ends, default=0)
    return "" if size == whole else f"{size} of {whole} bytes"
