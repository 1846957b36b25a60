"""Which vLLM a command would start, read from the names of files beside it: asking vLLM itself takes six seconds."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["packages_folders", "versions_beside"]

_TOLD = {"vllm", "vllm_gaudi", "habana_torch_plugin", "torch", "transformers", "tokenizers"}
_INFO = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[^-]+)\.(?:dist|egg)-info")


def packages_folders(command: Sequence[str]) -> list[Path]:
    """Return the `site-packages` folders of the environment that a command belongs to; none when it is not here."""
    found = shutil.which(command[0]) if command else None
    if found is None:
        return []
    # Not resolved further: the `python` of a virtual environment is a link to another one's.
    return sorted(Path(found).absolute().parent.parent.glob("lib/python3*/site-packages"))


def versions_beside(command: Sequence[str]) -> dict[str, str]:
    """Return the versions of vLLM and what decides about it, by package; empty when they cannot be seen from here.

    Parameters
    ----------
    command : sequence of str
        What starts the server, such as `["/opt/vllm/bin/vllm", "serve"]`.
    """
    versions: dict[str, str] = {}
    for folder in packages_folders(command):
        for path in folder.iterdir():
            info = _INFO.fullmatch(path.name)
            if info and (name := info["name"].lower()) in _TOLD:
                versions[name] = info["version"]
    return versions
