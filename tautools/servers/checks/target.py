"""What is checked, and the cheap question to a server: which models it serves, and whether it accepts our key."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tautools.errors import ModelCallError

if TYPE_CHECKING:
    from tautools.http import Http, HttpResponse


SIMULATED_OWNER = "tautools-simulate"
"""What a simulated server calls itself in `/v1/models`."""


@dataclass(frozen=True, slots=True)
class ModelList:
    """The answer of `/v1/models`."""

    status: int
    """HTTP status; 0 when nobody answered."""
    names: tuple[str, ...] = ()
    lengths: tuple[int | None, ...] = ()
    """`max_model_len` of each name, where the server tells it."""
    owners: tuple[str, ...] = ()
    detail: str = ""
    """Why there is no answer, or the beginning of an answer that is not what it should be."""

    @property
    def simulated(self) -> bool:
        """Whether the server says that it only simulates a model."""
        return SIMULATED_OWNER in self.owners

    def length_of(self, name: str) -> int | None:
        """Return the served context length [tokens] of a name, if told."""
        return dict(zip(self.names, self.lengths, strict=True)).get(name)


def ask_models(base_url: str, *, key: str, http: Http, timeout_s: float = 3.0) -> ModelList:
    """Ask `/v1/models` of `base_url` (which ends in `/v1`) and return the answer; never raises for what it says.

    Parameters
    ----------
    base_url : str
        The address; ends in `/v1`.
    key : str
        Sent as `Authorization: Bearer`; empty sends none.
    http : Http
        The door.
    timeout_s : float
        For connecting, and for each wait for data [s].

    Returns
    -------
    Models
        With status 0 when nobody answered; `detail` says why there are no names.
    """
    try:
        answer = http.get(f"{base_url}/models", key=key, timeout_s=timeout_s)
    except ModelCallError as error:
        return ModelList(0, detail=error.evidence or error.problem)
    if answer.status != 200:
        return ModelList(answer.status, detail=answer.text[:300])
    entries = _entries(answer)
    if entries is None:
        return ModelList(answer.status, detail=f"not a list of models: {answer.text[:300]}")
    return ModelList(
        answer.status,
        tuple(str(entry.get("id", "")) for entry in entries),
        tuple(_model_len(entry) for entry in entries),
        tuple(str(entry.get("owned_by", "")) for entry in entries),
    )


def root_of(base_url: str) -> str:
    """Return the address without its `/v1`: `/health` and `/version` lie there."""
    return base_url.rstrip("/").removesuffix("/v1")


def nearest_model(name: str, names: tuple[str, ...] | list[str]) -> str:
    """Return the likeliest of `names` for a misspelt one; empty when none is near."""
    by_lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return by_lower[found[0]] if found else ""


def _entries(answer: HttpResponse) -> list[dict[str, Any]] | None:
    try:
        data = answer.json()["data"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        return None
    return data


def _model_len(entry: dict[str, Any]) -> int | None:
    length = entry.get("max_model_len")
    return length if isinstance(length, int) else None
