"""The proof of the servers that a run used, kept beside its results: `certificates/<writer>.json`, one for each run.

What a server was asked for, which vLLM it ran and what the ladder found stays known when the server is long gone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tautools.files import ensure_folder, write_atomic
from tautools.server import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.llm.types import Endpoint
    from tautools.run.roles import Cast

__all__ = ["FOLDER", "keep_certificates"]

FOLDER = "certificates"


def keep_certificates(cast: Cast, folder: Path, writer: str, *, workspace: Path) -> None:
    """Write down the certificates of a run's servers, by role.

    A server that is not registered has none: its address and model are written down with `null`.

    Parameters
    ----------
    cast : Cast
        Whose endpoints answer for the run.
    folder : Path
        The setting's.
    writer : str
        Name of the run's writer.
    workspace : Path
        Where the servers are registered.

    Raises
    ------
    FilesError
        When the file cannot be written.
    """
    registry = Registry(workspace)
    found = {role: [_proof(endpoint, registry) for endpoint in each] for role, each in cast.endpoints.items() if each}
    if found:
        path = ensure_folder(folder / FOLDER) / f"{writer}.json"
        write_atomic(path, json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def _proof(endpoint: Endpoint, registry: Registry) -> dict[str, Any]:
    record = registry.find(endpoint.name) if endpoint.name else None
    proof = record.certificate if record is not None else None
    return {
        "server": endpoint.name,
        "base_url": endpoint.base_url,
        "model": endpoint.model,
        "certificate": proof.model_dump(mode="json") if proof is not None else None,
    }
