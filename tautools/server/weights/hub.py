"""What the hub says of a model: is it there, is it gated, how large are the files that a server needs.

The hub's own client asks, because the hub lies behind the site's proxy and its addresses, tokens and mirrors are that
client's business. Addresses and folders are read from the environment at each call and handed to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from tautools.server.weights.cache import hub_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from huggingface_hub import HfApi

__all__ = ["HubAnswer", "HubState", "ask_hub", "download", "offline"]

_OTHER_FORMATS = ("*.pth", "*.pt", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.ot", "original/*", "metal/*", "onnx/*")
"""Copies of the weights that vLLM does not load."""


class HubState(StrEnum):
    """What is known of a model at the hub."""

    THERE = "there"
    GATED = "gated"
    """There, and this account may not have it."""
    ABSENT = "absent"
    """No repository of that name, or a private one that this token does not open."""
    OFFLINE = "offline"
    """Not asked: the environment says so."""
    SILENT = "silent"
    """It does not answer."""


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """The hub's answer for one model."""

    state: HubState
    files: tuple[tuple[str, int], ...] = ()
    """Files that a server needs, with their sizes [bytes]."""
    ignored: tuple[str, ...] = ()
    """Patterns of files that it does not need."""
    detail: str = ""

    @property
    def size_bytes(self) -> int:
        """Size of all files that a server needs."""
        return sum(size for _name, size in self.files)


def offline(environ: Mapping[str, str]) -> bool:
    """Whether the environment forbids asking the hub."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(environ.get(name, "").lower() in {"1", "true", "on", "yes"} for name in names)


def ask_hub(model: str, environ: Mapping[str, str], *, timeout_s: float = 10.0) -> HubAnswer:
    """Ask the hub for a model; never raises for what it says."""
    if offline(environ):
        return HubAnswer(HubState.OFFLINE, detail="HF_HUB_OFFLINE is set")
    import httpx  # noqa: TID251 - its errors only; the hub's client opens the connection
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    api = HfApi(endpoint=environ.get("HF_ENDPOINT") or None, token=_token(environ))
    try:
        told = api.model_info(model, files_metadata=True, timeout=timeout_s)
    except GatedRepoError as error:
        return HubAnswer(HubState.GATED, detail=_first_line(error))
    except RepositoryNotFoundError as error:
        return HubAnswer(HubState.ABSENT, detail=_first_line(error))
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        return HubAnswer(HubState.SILENT, detail=_first_line(error))
    sizes = [(each.rfilename, each.size or 0) for each in told.siblings or []]
    ignored = _not_needed([name for name, _size in sizes])
    files = tuple((name, size) for name, size in sizes if not any(fnmatch(name, pattern) for pattern in ignored))
    gated = bool(told.gated) and not _may_have(api, model)
    return HubAnswer(HubState.GATED if gated else HubState.THERE, files, ignored)


def download(model: str, environ: Mapping[str, str], *, cache: Path, ignored: tuple[str, ...]) -> Path:
    """Bring a model into the cache and return its folder; what is there already is not fetched again.

    Parameters
    ----------
    model : str
        Hub id.
    environ : mapping of str to str
        Where `HF_ENDPOINT` and `HF_TOKEN` are looked up.
    cache : Path
        The hub's cache folder.
    ignored : tuple of str
        Patterns of files that are not fetched.

    Raises
    ------
    OSError, huggingface_hub.errors.HfHubHTTPError
        When it cannot be had; told by the caller.
    """
    from huggingface_hub import snapshot_download

    folder = snapshot_download(
        model,
        cache_dir=cache,
        endpoint=environ.get("HF_ENDPOINT") or None,
        token=_token(environ),
        ignore_patterns=list(ignored),
    )
    return Path(str(folder))


def _token(environ: Mapping[str, str]) -> str | None:
    """Return the account's token as the server would find it; None leaves the search to the hub's client."""
    file = Path(environ.get("HF_TOKEN_PATH") or hub_home(environ) / "token").expanduser()
    try:
        return environ.get("HF_TOKEN") or file.read_text().strip() or None
    except OSError:
        return None


def _may_have(api: HfApi, model: str) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.auth_check(model)
    except (HfHubHTTPError, OSError):
        return False
    return True


def _not_needed(names: list[str]) -> tuple[str, ...]:
    """Return patterns of further copies of the same weights."""
    if not any(name.endswith(".safetensors") for name in names):
        return _OTHER_FORMATS
    sharded = any(fnmatch(name, "model*.safetensors") for name in names)
    return (*_OTHER_FORMATS, "*.bin", *(("consolidated*",) if sharded else ()))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
