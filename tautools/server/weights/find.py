"""A model's weights: are they here and whole, could they be had, is there room; and fetch them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tautools.errors import ServerError
from tautools.server.vllm.families import first_release_of
from tautools.server.weights.cache import Copy, cache_folder, free_bytes, local_copy
from tautools.server.weights.hub import HubAnswer, HubState, ask_hub, download

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Weights", "check_weights", "fetch_weights"]

_SPARE_BYTES = 2**30
"""Left free on the disk after a download."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What is known of a model's weights."""

    model: str
    cache: Path
    copy: Copy | None
    """What is on this disk; None when nothing is."""
    hub: HubAnswer | None
    """What the hub says; None when a folder was named, which the hub does not know."""
    free_bytes: int
    near: str = ""
    """A name that the hub does have, when this one it has not."""

    @property
    def usable(self) -> bool:
        """Whether a server can load them now."""
        return self.copy is not None and self.copy.complete

    @property
    def needed_bytes(self) -> int:
        """What a download would still bring [bytes], as far as the hub tells."""
        if self.usable or self.hub is None:
            return 0
        there = self.copy.size_bytes if self.copy is not None else 0
        return max(0, self.hub.size_bytes - there)

    @property
    def fits(self) -> bool:
        """Whether the disk has room for what is missing."""
        return self.needed_bytes == 0 or self.free_bytes - self.needed_bytes >= _SPARE_BYTES

    @property
    def state(self) -> str:
        """One word for programs."""
        if self.usable:
            return "complete"
        if self.hub is None or self.hub.state is HubState.ABSENT:
            return "absent" if self.copy is None else "incomplete"
        if self.hub.state is HubState.THERE:
            return "fetchable" if self.fits else "no_room"
        return self.hub.state.value if self.copy is None else "incomplete"

    def __str__(self) -> str:
        return "\n".join([f"{self.model}: {self._on_disk()}", *self._at_hub(), *self._remedy()])

    def _on_disk(self) -> str:
        if self.copy is None:
            return f"not in the cache {self.cache}"
        size = _size(self.copy.size_bytes)
        if self.copy.complete:
            return f"complete, {size}, {self.copy.folder}"
        most = ", ".join(self.copy.missing[:4])
        more = f" and {len(self.copy.missing) - 4} more" if len(self.copy.missing) > 4 else ""
        return f"incomplete, {size} in {self.copy.folder}; lacks {most}{more}"

    def _at_hub(self) -> list[str]:
        if self.hub is None:
            return []
        words = {
            HubState.THERE: f"at the hub, {_size(self.hub.size_bytes)}",
            HubState.GATED: "at the hub, and gated: this account may not have it",
            HubState.ABSENT: "not at the hub: no such repository, or a private one that this token does not open",
            HubState.OFFLINE: f"whether the hub has it is not known: {self.hub.detail}",
            HubState.SILENT: f"whether the hub has it is not known, it does not answer: {self.hub.detail}",
        }
        lines = [f"  {words[self.hub.state]}"]
        if self.needed_bytes:
            enough = "enough" if self.fits else "NOT enough"
            lines.append(f"  {_size(self.needed_bytes)} to fetch, {_size(self.free_bytes)} free: {enough}")
        return lines

    def _remedy(self) -> list[str]:
        if self.usable or self.hub is None:
            return []
        meant = first_release_of(self.model)
        if meant is not None and self.copy is None and self.hub.state is not HubState.THERE:
            return [f"  The 2507 release has no model of this size. Next: use {meant}, which is what exists."]
        remedies = {
            "fetchable": f"`tautools model fetch {self.model}`",
            "no_room": "Free space, or set HF_HOME to a larger disk.",
            "gated": "Accept its licence on the hub's page of it and set HF_TOKEN.",
            "absent": f"Did you mean {self.near}?" if self.near else "Check the name at the hub.",
            "offline": "Fetch it where there is network, into the same HF_HOME; or unset HF_HUB_OFFLINE.",
            "silent": "Fetch it on a node with network, into the same HF_HOME.",
            "incomplete": f"`tautools model fetch {self.model}` where there is network; it goes on where it stopped.",
        }
        return [f"  Next: {remedies[self.state]}"]


def check_weights(model: str, *, environ: Mapping[str, str] | None = None) -> Weights:
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
    environ = os.environ if environ is None else environ
    cache = cache_folder(environ)
    copy = local_copy(model, cache=cache)
    if copy is not None and not copy.folder.is_relative_to(cache):
        return Weights(model, cache, copy, None, free_bytes(cache))
    hub = ask_hub(model, environ)
    near = _near(model, environ) if hub.state is HubState.ABSENT else ""
    return Weights(model, cache, copy, hub, free_bytes(cache), near)


def fetch_weights(model: str, *, environ: Mapping[str, str] | None = None) -> Weights:
    """Bring a model into the cache, going on where a download was broken off, and return what is known then.

    Raises
    ------
    ServerError
        When it cannot be had, or there is no room for it; nothing is fetched then.
    ParamsError
        When it is no possible name.
    """
    environ = os.environ if environ is None else environ
    known = check_weights(model, environ=environ)
    if known.usable:
        return known
    if known.hub is None or known.hub.state is not HubState.THERE or not known.fits:
        raise ServerError(
            f"{model} cannot be fetched.",
            evidence=str(known),
            next_step="Do what is said above, then run `tautools model fetch` again.",
        )
    import httpx  # noqa: TID251 - its errors only; the hub's client opens the connection
    from huggingface_hub.errors import HfHubHTTPError

    try:
        download(model, environ, cache=known.cache, ignored=known.hub.ignored)
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise ServerError(
            f"The download of {model} broke off.",
            evidence=str(error)[:500],
            next_step=f"Run `tautools model fetch {model}` again: it goes on where it stopped.",
        ) from None
    return check_weights(model, environ=environ)


def _near(model: str, environ: Mapping[str, str]) -> str:
    """Return the first release's name when the hub has that one and not the dated one."""
    plain = model.removesuffix("-2507").removesuffix("-Instruct")
    return plain if plain != model and ask_hub(plain, environ).state is HubState.THERE else ""


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**29 else f"{number / 2**20:.1f} MiB"
