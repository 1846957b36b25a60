"""A model's weights: are they here, does the hub have them, is there room; download them, and fail fast when missing.

The hub's own client asks the hub, because proxy, tokens and mirrors are that client's business. A start is refused only
when it is certain that the model is nowhere; what is only likely is logged. Nothing is asked about a model that lies in
a folder or complete in the cache, nor for a command that is not vLLM itself, which may see other folders.
"""

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from tautools.errors import ServerError
from tautools.params.keys import read_key
from tautools.params.models import ServerParams
from tautools.redaction import redacted
from tautools.servers.model_cache import (
    LocalWeights,
    cache_folder,
    check_model_id,
    free_bytes,
    hub_is_off,
    hub_token_file,
    local_weights,
)
from tautools.servers.vllm.flags import first_release_of

_LOG = logging.getLogger(__name__)

_OTHER_FORMATS = ("*.pth", "*.pt", "*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.ot", "original/*", "metal/*", "onnx/*")
"""Copies of the weights that vLLM does not load."""


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """The hub's answer for one model."""

    state: Literal["there", "gated", "absent", "offline", "silent"]
    """What is known; `_AT_HUB` says what each means."""
    size_bytes: int = 0
    """Size of all files that a server needs."""
    ignored: tuple[str, ...] = ()
    """Patterns of files that it does not need."""
    detail: str = ""


def _ask_hub(model: str, environ: Mapping[str, str]) -> HubAnswer:
    """Ask the hub for a model; every failure is an answer, too."""
    if hub_is_off(environ):
        return HubAnswer("offline", detail="HF_HUB_OFFLINE is set")
    import httpx  # noqa: TID251 - its errors only; the hub's client opens the connection
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    api = HfApi(**_hub_account(environ))
    try:
        info = api.model_info(model, files_metadata=True, timeout=10.0)
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        detail = next(filter(None, map(str.strip, redacted(str(error)).splitlines())), type(error).__name__)[:300]
        if isinstance(error, GatedRepoError):
            return HubAnswer("gated", detail=detail)
        return HubAnswer("absent" if isinstance(error, RepositoryNotFoundError) else "silent", detail=detail)
    gated = False
    if info.gated:
        try:
            api.auth_check(model)
        except (HfHubHTTPError, OSError):
            gated = True
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
    ignored = _ignored_patterns(list(sizes))
    size = sum(size for name, size in sizes.items() if not any(fnmatch(name, pattern) for pattern in ignored))
    return HubAnswer("gated" if gated else "there", size, ignored)


def _hub_account(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the hub's address and the token as the server would find them; None leaves it to the hub's client."""
    named = (read_key(environ.get(name, ""), name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    token = next(filter(None, named), "")
    with contextlib.suppress(OSError):
        file = hub_token_file(environ)
        token = token or read_key(file.read_text(errors="replace"), f"the file {file}")
    return {"endpoint": environ.get("HF_ENDPOINT") or None, "token": token or None}


def _ignored_patterns(names: list[str]) -> tuple[str, ...]:
    if not any(name.endswith(".safetensors") for name in names):
        return _OTHER_FORMATS
    sharded = any(fnmatch(name, "model*.safetensors") for name in names)
    return (*_OTHER_FORMATS, "*.bin", *(("consolidated*",) if sharded else ()))


_AT_HUB = {
    "there": "at the hub, {size}",
    "gated": "at the hub, and gated: this account may not have it",
    "absent": "not at the hub: no such repository, or a private one that this token does not open",
    "offline": "whether the hub has it is not known: {hub.detail}",
    "silent": "whether the hub has it is not known, it does not answer: {hub.detail}",
}
_NEXT_STEPS = {
    "fetchable": "`tautools model fetch {model}`",
    "no_room": "Free space, or set HF_HOME to a larger disk.",
    "gated": "Accept its licence on its page at the hub and set HF_TOKEN.",
    "absent": "{near}",
    "offline": "Fetch it where there is network, into the same HF_HOME; or unset HF_HUB_OFFLINE.",
    "silent": "Fetch it on a node with network, into the same HF_HOME.",
    "incomplete": "`tautools model fetch {model}` where there is network; it goes on where it stopped.",
}
"""By the state of `Weights`: what to do."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What is known of a model's weights."""

    model: str
    cache: Path
    copy: LocalWeights | None
    """What is on this disk; None when nothing is."""
    hub: HubAnswer | None
    """What the hub says; None when it was not asked, because the copy is complete or a folder was named."""
    free_bytes: int
    near: str = ""
    """A name that the hub does have, when this one it has not."""

    @property
    def usable(self) -> bool:
        """Whether a server can load them now."""
        return self.copy is not None and self.copy.complete

    @property
    def needed_bytes(self) -> int:
        """What a download would still bring [bytes], as far as the hub says."""
        here = self.copy.size_bytes if self.copy is not None else 0
        return max(0, self.hub.size_bytes - here) if self.hub is not None else 0

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what is missing."""
        return self.needed_bytes == 0 or self.free_bytes - self.needed_bytes >= 2**30  # 1 GiB is left free

    @property
    def state(self) -> str:
        """One word for programs."""
        if self.usable:
            return "complete"
        if self.hub is None or self.hub.state == "absent":
            return "absent" if self.copy is None else "incomplete"
        if self.hub.state == "there":
            return "fetchable" if self.fits else "no_room"
        return self.hub.state if self.copy is None else "incomplete"

    def __str__(self) -> str:
        lines = [f"{self.model}: {self._on_disk()}"]
        if self.hub is not None:
            lines.append(f"  {_AT_HUB[self.hub.state].format(size=_size_text(self.hub.size_bytes), hub=self.hub)}")
            if self.needed_bytes:
                there = f"{_size_text(self.free_bytes)} free: {'enough' if self.fits else 'NOT enough'}"
                lines.append(f"  {_size_text(self.needed_bytes)} to fetch, {there}")
            lines.append(f"  {self._next_step(self.hub)}")
        return "\n".join(lines)

    def _on_disk(self) -> str:
        if self.copy is None:
            return f"not in the cache {self.cache}"
        size = _size_text(self.copy.size_bytes)
        if self.copy.complete:
            return f"complete, {size}, {self.copy.folder}"
        more = f" and {len(self.copy.missing) - 4} more" if len(self.copy.missing) > 4 else ""
        return f"incomplete, {size} in {self.copy.folder}; lacks {', '.join(self.copy.missing[:4])}{more}"

    def _next_step(self, hub: HubAnswer) -> str:
        existing = first_release_of(self.model)
        if existing is not None and self.copy is None and hub.state != "there":
            return f"The 2507 release has no model of this size. Next: use {existing}, which is what exists."
        near = f"Did you mean {self.near}?" if self.near else "Check the name at the hub."
        return f"Next: {_NEXT_STEPS[self.state].format(model=self.model, near=near)}"


def check_weights(model: str, *, environ: Mapping[str, str] = os.environ) -> Weights:
    """Return what is known of a model's weights; nothing is fetched.

    Parameters
    ----------
    model : str
        The hub's name of it, or a folder.
    environ : mapping, optional
        Where HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN are read; this process's environment by default.

    Raises
    ------
    ParamsError
        When it is neither a folder nor a possible name.
    """
    cache = cache_folder(environ)
    copy = local_weights(model, cache=cache)
    if copy is not None and (copy.complete or not copy.folder.is_relative_to(cache)):
        return Weights(model, cache, copy, None, free_bytes(cache))
    hub = _ask_hub(model, environ)
    # The hub may have the first release, not the dated one.
    plain = model.removesuffix("-2507").removesuffix("-Instruct")
    exists = hub.state == "absent" and plain != model and _ask_hub(plain, environ).state == "there"
    return Weights(model, cache, copy, hub, free_bytes(cache), plain if exists else "")


def fetch_weights(model: str, *, environ: Mapping[str, str] = os.environ) -> Weights:
    """Download a model into the cache, going on where a download was broken off, and return what is known then.

    Parameters
    ----------
    model, environ
        As of `check_weights`.

    Raises
    ------
    ServerError
        When it cannot be had, or there is no room for it; nothing is fetched then.
    ParamsError
        When it is not a possible name.
    """
    known = check_weights(model, environ=environ)
    if known.usable:
        return known
    if known.hub is None or known.hub.state != "there" or not known.fits:
        raise ServerError(
            f"{model} cannot be fetched.",
            evidence=str(known),
            next_step="Follow the advice above, then run `tautools model fetch` again.",
        )
    import httpx  # noqa: TID251 - its errors only; the hub's client opens the connection
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        ignored = list(known.hub.ignored)
        snapshot_download(model, cache_dir=known.cache, ignore_patterns=ignored, **_hub_account(environ))
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise ServerError(
            f"The download of {model} broke off.",
            evidence=redacted(str(error))[:500],
            next_step=f"Run `tautools model fetch {model}` again: it goes on where it stopped.",
        ) from None
    return check_weights(model, environ=environ)


def _size_text(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**29 else f"{number / 2**20:.1f} MiB"


_OTHER_SOURCES = {"download_dir", "load_format", "revision", "hf_token", "config", "model_loader_extra_config"}
"""Flags with which the weights may come from elsewhere than the hub's cache."""


def require_weights(params: ServerParams, *, command: Sequence[str], env: Mapping[str, str], workspace: Path) -> None:
    """Raise when the model that a server of this machine is to load is nowhere; log what is only likely.

    A model that the hub has and that is not here yet passes: vLLM fetches it. The cache and the hub are those of the
    server's environment; relative paths count from the workspace, where the server runs. It raises when the folder does
    not exist, when the model is not in the cache and the hub may not be asked or has none, and for an impossible name.
    """
    model = params.model
    if params.simulated or not _reads_hub_cache(params, command, env) or (workspace / model).exists():
        return
    if model.startswith(("/", "./", "../", "~")):
        raise ServerError(
            f"The model of server {params.name!r} is the folder {model}, which does not exist here.",
            next_step="Correct `model` in the server file: a folder with config.json, or ORGANISATION/NAME at the hub.",
        )
    known = check_weights(check_model_id(model), environ=env)
    if known.copy is None and known.state in {"offline", "absent"}:
        raise ServerError(
            f"Server {params.name!r} cannot load its model.",
            evidence=str(known),
            next_step="Follow the advice above. `tautools model check` asks again.",
        )
    if known.state not in {"complete", "fetchable"}:
        _LOG.warning("Server %s may not be able to load its model. %s", params.name, known)


def _reads_hub_cache(params: ServerParams, command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether this is a vLLM that loads its weights from the hub or its cache, as far as can be seen."""
    words = [Path(command[0]).name, *(after for word, after in pairwise(command) if word == "-m")]
    flags = {name.lstrip("-").replace("-", "_") for name in params.vllm.args}
    other_hub = env.get("VLLM_USE_MODELSCOPE", "").lower() in {"1", "true"}
    # A colon: the address of a bucket, or `repository:quantisation`.
    elsewhere = other_hub or ":" in params.model or flags & _OTHER_SOURCES
    return not elsewhere and any(word.partition(".")[0] == "vllm" for word in words)
