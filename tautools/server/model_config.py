"""ToolOrchestra's `model_config*.json`: which addresses serve which model.

::

    {"/path/to/model": [{"ip_addr": "127.0.0.1", "port": "1900"}, {"ip_addr": "127.0.0.1", "port": "1901"}],
     "vllm_model_config_path": "model_config_local.json"}

The name of a model is the one that requests carry; every address of its list is a replica. Keys are not in it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tautools.errors import ParamsError
from tautools.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tautools.records import ServerRecord

__all__ = ["Served", "read_model_config", "short_name", "write_model_config"]

_OWN_PATH = "vllm_model_config_path"
"""The file's own path, which ToolOrchestra keeps in it."""
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


@dataclass(frozen=True, slots=True)
class Served:
    """A model and the addresses that serve it."""

    model: str
    base_urls: tuple[str, ...]


def read_model_config(path: Path) -> list[Served]:
    """Return the models of a `model_config*.json`, in its order.

    Raises
    ------
    ParamsError
        When it cannot be read, or an entry is not a list of `{"ip_addr", "port"}`.
    """
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ParamsError(
            f"{path} cannot be read as a model configuration.",
            evidence=str(error),
            next_step='It must be JSON: {"model": [{"ip_addr": "127.0.0.1", "port": "1900"}]}.',
        ) from error
    if not isinstance(stored, dict):
        raise _wrong(path, "the whole file", stored)
    found = [
        Served(model, tuple(_address(path, model, entry) for entry in _list(path, model, entries)))
        for model, entries in stored.items()
        if model != _OWN_PATH
    ]
    if not found:
        raise ParamsError(f"{path} names no model.", next_step="Give a file that lists addresses of running servers.")
    return found


def write_model_config(path: Path, records: Iterable[ServerRecord]) -> list[Served]:
    """Write the addresses of servers by model, replicas as one list; return what was written.

    Parameters
    ----------
    path : Path
        The file; replaced whole.
    records : iterable of ServerRecord
        What is to be in it.

    Raises
    ------
    ParamsError
        When a server's address is more than a host and a port, which the format cannot say.
    FilesError
        When the file cannot be written.
    """
    by_model: dict[str, list[str]] = {}
    for record in records:
        by_model.setdefault(record.model, []).append(record.base_url)
    content: dict[str, Any] = {model: [_entry(url) for url in urls] for model, urls in by_model.items()}
    content[_OWN_PATH] = str(path)
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return [Served(model, tuple(urls)) for model, urls in by_model.items()]


def short_name(model: str) -> str:
    """Return a model's last part as the name of a server: `/models/My Model` is `My-Model`."""
    last = model.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:56] or "server"


def _list(path: Path, model: str, entries: Any) -> Sequence[Any]:
    if not isinstance(entries, list) or not entries:
        raise _wrong(path, repr(model), entries)
    return entries


def _address(path: Path, model: str, entry: Any) -> str:
    if not isinstance(entry, dict):
        raise _wrong(path, repr(model), entry)
    host, port = str(entry.get("ip_addr", "")), str(entry.get("port", ""))
    if not _HOST.fullmatch(host) or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise _wrong(path, repr(model), entry)
    return f"http://[{host}]:{int(port)}/v1" if ":" in host else f"http://{host}:{int(port)}/v1"


def _entry(base_url: str) -> dict[str, str]:
    parts = urlsplit(base_url)
    if parts.scheme != "http" or parts.path.rstrip("/") != "/v1" or not parts.hostname:
        raise ParamsError(
            f"{base_url} cannot be written to a model configuration, which knows hosts and ports alone.",
            next_step="Leave that server out by naming the others.",
        )
    return {"ip_addr": parts.hostname, "port": str(parts.port or 80)}


def _wrong(path: Path, where: str, seen: Any) -> ParamsError:
    return ParamsError(
        f"{path}: {where} is not a list of addresses.",
        evidence=json.dumps(seen)[:200],
        next_step='Write [{"ip_addr": "127.0.0.1", "port": "1900"}], one for each replica.',
    )
