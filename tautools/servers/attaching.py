"""Servers that somebody else started: verify one at its address, register it, read and write lists of addresses.

The lists are ToolOrchestra's `model_config*.json`. A model's name is the one that requests carry; every address of its
list is a replica. Keys are not in it::

    {"/path/to/model": [{"ip_addr": "127.0.0.1", "port": "1900"}, {"ip_addr": "127.0.0.1", "port": "1901"}],
     "vllm_model_config_path": "model_config_local.json"}
"""

from __future__ import annotations

import getpass
import json
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tautools.errors import ParamsError, TautoolsError, VerifyError
from tautools.files import write_atomic
from tautools.records import ServerRecord
from tautools.servers.addresses import as_base_url
from tautools.servers.backends import name_taken
from tautools.servers.checks.run import certificate_of, run_checks
from tautools.servers.checks.target import CheckTarget, ask_models
from tautools.servers.registry import Registry, check_name
from tautools.servers.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tautools.records import Certificate, Check

_ATTACHED_AT_ONCE = 8
_OWN_PATH = "vllm_model_config_path"
"""The file's own path, which ToolOrchestra keeps in it."""
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")


def verify_target(target: CheckTarget, *, on_check: Callable[[Check], None] | None = None) -> Certificate:
    """Run the checks at any OpenAI-compatible address and return the certificate.

    Parameters
    ----------
    target : CheckTarget
        The address, such as `http://gaudi001:8007/v1`, and what must be true there. Without a key the check that tests
        it does not apply.
    on_check : callable, optional
        Called with each finished check.

    Raises
    ------
    ParamsError
        When the address is not one.
    """
    target = replace(target, base_url=as_base_url(target.base_url))
    return certificate_of(urlsplit(target.base_url).netloc, run_checks(target, on_check=on_check))


def attach(
    name: str,
    url: str,
    *,
    workspace: Path,
    model: str = "",
    key: str = "",
    group: str = "",
) -> Server:
    """Verify a running server and register it; `stop` forgets it again without touching its process.

    Parameters
    ----------
    name : str
        Its name here.
    url : str
        Its address, such as `http://gaudi001:8007/v1`.
    workspace : Path
        Where it is registered.
    model : str
        The name that requests carry; the first that the server lists by default.
    key : str
        Its key, if it has one; kept in `servers/<name>.key`, mode 0600, until it is detached.
    group : str
        A name shared by replicas: a role that asks for it gets all of them.

    Raises
    ------
    ParamsError
        When the name or the address cannot be used.
    ServerError
        When a server of that name is registered already.
    VerifyError
        When a check fails; nothing is registered then.
    """
    registry, base_url = Registry(workspace), as_base_url(url)
    if "@" in urlsplit(base_url).netloc:
        raise ParamsError(
            "The address of a server must not contain a user or a password.",
            next_step="Put the key in an environment variable and name it with --key-env.",
        )
    _require_new(name, registry)
    model, key_file = model or _first_model(base_url, key), registry.folder.resolve() / f"{name}.key"
    record = ServerRecord(
        name=name,
        backend="attached",
        engine="attached",
        model=model,
        base_url=base_url,
        key_file=str(key_file) if key else "",
        spec={"name": check_name(group)} if group else {},
        started_at=time.time(),
        owner=getpass.getuser(),
    )
    with registry.claim():
        _require_new(name, registry)
        if key:
            write_atomic(key_file, key + "\n", mode=0o600)
        registry.add(record)
    server = Server(record, workspace=workspace)
    try:
        failed = server.verify().failed
        if failed is not None:
            raise VerifyError(
                f"{base_url} is not attached: it fails check {failed.number}, {failed.name}.",
                evidence=failed.detail,
                next_step=f"Fix it, then see with `tautools server test {base_url}`.",
            )
    except BaseException:
        registry.remove(record)
        raise
    return server


def _require_new(name: str, registry: Registry) -> None:
    """Raise a ServerError when a server of that name is registered."""
    known = registry.find(name)
    if known is not None:
        raise name_taken(known, "is registered already", known.base_url, "Forget")


def _first_model(base_url: str, key: str) -> str:
    """Return the first model that a server lists; raise a VerifyError when it lists none."""
    answer = ask_models(base_url, key=key)
    if not answer.names:
        refused = answer.status in {401, 403}
        raise VerifyError(
            f"{base_url} does not list its models.",
            evidence=answer.detail or f"/v1/models answers {answer.status}",
            next_step="Name the variable that holds its key with --key-env."
            if refused
            else "Check the address, and that the server runs.",
        )
    return answer.names[0]


def attach_all(
    models: Iterable[ModelAddresses], *, workspace: Path, key: str = ""
) -> tuple[list[Server], dict[str, TautoolsError]]:
    """Attach every address of every model, side by side.

    Parameters
    ----------
    models : iterable of ModelAddresses
        Models with their addresses, as `read_model_config` gives them.
    workspace : Path
        Where they are registered: under the last part of the model's name, numbered from 1 when it has replicas.
    key : str
        The key of all of them, if they have one.

    Returns
    -------
    list of Server, dict of str to TautoolsError
        Those that were attached, and by name what is wrong with the others.
    """
    done: list[Server] = []
    problems: dict[str, TautoolsError] = {}

    def one(job: tuple[str, str, str, str]) -> Server | TautoolsError:
        name, group, model, url = job
        try:
            return attach(name, url, workspace=workspace, model=model, key=key, group=group)
        except TautoolsError as error:
            return error

    jobs = _named_addresses(models)
    with ThreadPoolExecutor(max_workers=_ATTACHED_AT_ONCE) as pool:
        for (name, *_), result in zip(jobs, pool.map(one, jobs), strict=True):
            if isinstance(result, Server):
                done.append(result)
            else:
                problems[name] = result
    return done, problems


def _named_addresses(models: Iterable[ModelAddresses]) -> list[tuple[str, str, str, str]]:
    """Return name, group, model and address of each server; models of one short name get groups of their own."""
    jobs: list[tuple[str, str, str, str]] = []
    groups: Counter[str] = Counter()
    for entry in models:
        short = short_name(entry.model)
        groups[short] += 1
        group = short if groups[short] == 1 else f"{short}_{groups[short]}"
        many = len(entry.base_urls) > 1
        jobs += [
            (f"{group}-{number}" if many else group, group, entry.model, url)
            for number, url in enumerate(entry.base_urls, start=1)
        ]
    return jobs


@dataclass(frozen=True, slots=True)
class ModelAddresses:
    """A model and the addresses that serve it."""

    model: str
    base_urls: tuple[str, ...]


def read_model_config(path: Path) -> list[ModelAddresses]:
    """Return the models of a `model_config*.json`, in its order.

    Raises
    ------
    ParamsError
        When it cannot be read, or an entry is not a list of `{"ip_addr", "port"}`.
    """
    try:
        stored = json.loads(path.read_bytes())
    except OSError as error:
        raise ParamsError(
            f"The model configuration {path} cannot be opened.",
            evidence=error.strerror or str(error),
            next_step="Check the path; `tautools server export --model-config FILE` writes one.",
        ) from error
    except ValueError as error:
        raise ParamsError(
            f"{path} cannot be read as a model configuration.",
            evidence=str(error),
            next_step='It must be JSON: {"model": [{"ip_addr": "127.0.0.1", "port": "1900"}]}.',
        ) from error
    if not isinstance(stored, dict):
        raise _not_addresses(path, "the whole file", stored)
    models = []
    for model, entries in stored.items():
        if model == _OWN_PATH:
            continue
        if not isinstance(entries, list) or not entries:
            raise _not_addresses(path, repr(model), entries)
        models.append(ModelAddresses(model, tuple(_read_address(path, model, entry) for entry in entries)))
    if not models:
        raise ParamsError(f"{path} names no model.", next_step="Give a file that lists addresses of running servers.")
    return models


def write_model_config(path: Path, records: Iterable[ServerRecord]) -> list[ModelAddresses]:
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
    content: dict[str, Any] = {model: [_address_entry(url) for url in urls] for model, urls in by_model.items()}
    content[_OWN_PATH] = str(path)
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return [ModelAddresses(model, tuple(urls)) for model, urls in by_model.items()]


def short_name(model: str) -> str:
    """Return a model's last part as the name of a server: `/models/My Model` is `My-Model`."""
    last = model.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:56] or "server"


def _read_address(path: Path, model: str, entry: Any) -> str:
    if not isinstance(entry, dict):
        raise _not_addresses(path, repr(model), entry)
    host, port = str(entry.get("ip_addr", "")), str(entry.get("port", ""))
    if not _HOST_NAME.fullmatch(host) or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise _not_addresses(path, repr(model), entry)
    return f"http://[{host}]:{int(port)}/v1" if ":" in host else f"http://{host}:{int(port)}/v1"


def _address_entry(base_url: str) -> dict[str, str]:
    parts = urlsplit(base_url)
    if parts.scheme != "http" or parts.path.rstrip("/") != "/v1" or not parts.hostname:
        raise ParamsError(
            f"{base_url} cannot be written to a model configuration, which knows hosts and ports alone.",
            next_step="Leave that server out by naming the others.",
        )
    return {"ip_addr": parts.hostname, "port": str(parts.port or 80)}


def _not_addresses(path: Path, where: str, seen: Any) -> ParamsError:
    return ParamsError(
        f"{path}: {where} is not a list of addresses.",
        evidence=json.dumps(seen)[:200],
        next_step='Write [{"ip_addr": "127.0.0.1", "port": "1900"}], one for each replica.',
    )
