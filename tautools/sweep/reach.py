"""Whether anything of a sweep can be done at all: addresses and keys that it names are tried before anything starts.

One bad address does not stop the cells of the others; when no cell could do its work, the sweep ends before any of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.server import endpoints

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.params.models import RoleParams
    from tautools.sweep.cells import SweepCell

__all__ = ["check_reach"]


def check_reach(cells: Sequence[SweepCell], *, workspace: Path) -> None:
    """Try each address and hosted provider that cells name, once; servers of ours are proven when they are started.

    Raises
    ------
    TautoolsError
        The first cell's error, when every cell has a role that cannot work now.
    """
    tried: dict[str, TautoolsError | None] = {}
    errors = [_error_of(cell, workspace, tried) for cell in cells]
    first = next((error for error in errors if error is not None), None)
    if first is not None and None not in errors:
        raise first


def _error_of(cell: SweepCell, workspace: Path, tried: dict[str, TautoolsError | None]) -> TautoolsError | None:
    for name, role in cell.run.roles.items():
        if role.base_url is None and role.provider == "openai":
            continue
        key = f"{name} {role.model_dump_json()}"
        if key not in tried:
            tried[key] = _try(role, name, workspace)
        if tried[key] is not None:
            return tried[key]
    return None


def _try(role: RoleParams, name: str, workspace: Path) -> TautoolsError | None:
    try:
        endpoints(role, workspace=workspace, role_name=name)
    except TautoolsError as error:
        return error
    return None
