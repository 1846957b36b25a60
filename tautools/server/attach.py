"""Take in a server that runs already, whoever started it: the same handle, proven the same way, never ended by us."""

from __future__ import annotations

import getpass
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tautools.errors import ParamsError, ServerError, TautoolsError, VerifyError
from tautools.files import write_atomic
from tautools.records import ServerRecord
from tautools.server.address import as_base_url
from tautools.server.handle import Server
from tautools.server.model_config import short_name
from tautools.server.proof.light import ask_models
from tautools.server.registry import Registry, check_name

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tautools.server.model_config import Served

__all__ = ["attach", "attach_all"]

_AT_ONCE = 8


def attach(
    name: str,
    url: str,
    *,
    workspace: Path,
    model: str = "",
    key: str = "",
    group: str = "",
) -> Server:
    """Prove a running server and register it; `stop` forgets it again without touching its process.

    Parameters
    ----------
    name : str
        What it shall be called here.
    url : str
        Its address, such as `http://gaudi001:8007/v1`.
    workspace : Path
        Where it is registered.
    model : str
        The name that requests carry; the first that the server tells by default.
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
        When a rung of the ladder fails; nothing is registered then.
    """
    registry, base_url = Registry(workspace), _plain(url)
    _require_new(check_name(name), registry)
    record = ServerRecord(
        name=name,
        how="attach",
        engine="attached",
        model=model or _first_model(base_url, key),
        base_url=base_url,
        key_file=str((registry.folder / f"{name}.key").resolve()) if key else "",
        spec={"name": check_name(group)} if group else {},
        started_at=time.time(),
        owner=getpass.getuser(),
    )
    with registry.claim():
        _require_new(name, registry)
        if key:
            write_atomic(registry.folder / f"{name}.key", key + "\n", mode=0o600)
        registry.add(record)
    server = Server(record, workspace=workspace)
    try:
        _prove(server)
    except BaseException:
        registry.remove(record)
        raise
    return server


def attach_all(
    found: Iterable[Served], *, workspace: Path, key: str = ""
) -> tuple[list[Server], dict[str, TautoolsError]]:
    """Attach every address of every model, side by side.

    Parameters
    ----------
    found : iterable of Served
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

    def one(job: tuple[str, str, str, str]) -> Server | TautoolsError:
        name, group, model, url = job
        try:
            return attach(name, url, workspace=workspace, model=model, key=key, group=group)
        except TautoolsError as error:
            return error

    jobs = _jobs(found)
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        came = dict(zip((job[0] for job in jobs), pool.map(one, jobs), strict=True))
    done = [server for server in came.values() if isinstance(server, Server)]
    return done, {name: error for name, error in came.items() if isinstance(error, TautoolsError)}


def _jobs(found: Iterable[Served]) -> list[tuple[str, str, str, str]]:
    """Return name, group, model and address of each server; models of one short name get groups of their own."""
    jobs: list[tuple[str, str, str, str]] = []
    groups: Counter[str] = Counter()
    for served in found:
        plain = short_name(served.model)
        groups[plain] += 1
        group = plain if groups[plain] == 1 else f"{plain}_{groups[plain]}"
        many = len(served.base_urls) > 1
        jobs += [
            (f"{group}-{number}" if many else group, group, served.model, url)
            for number, url in enumerate(served.base_urls, start=1)
        ]
    return jobs


def _first_model(base_url: str, key: str) -> str:
    from tautools.http import Http

    answer = ask_models(base_url, key=key, http=Http())
    if not answer.names:
        refused = answer.status in {401, 403}
        raise VerifyError(
            f"{base_url} does not tell which models it serves.",
            evidence=answer.detail or f"/v1/models answers {answer.status}",
            next_step="Name the variable that holds its key with --key-env."
            if refused
            else "Check the address, and that the server runs.",
        )
    return answer.names[0]


def _plain(url: str) -> str:
    base_url = as_base_url(url)
    if "@" in urlsplit(base_url).netloc:
        raise ParamsError(
            "The address of a server must not hold a user or a password.",
            next_step="Put the key in an environment variable and name it with --key-env.",
        )
    return base_url


def _require_new(name: str, registry: Registry) -> None:
    known = registry.find(name)
    if known is not None:
        raise ServerError(
            f"A server named {name!r} is registered already.",
            evidence=known.base_url,
            next_step=f"Attach this one under another name, or `tautools server stop {name}` first.",
        )


def _prove(server: Server) -> None:
    certificate = server.verify()
    failed = next((rung for rung in certificate.rungs if rung.passed is False), None)
    if failed is not None:
        raise VerifyError(
            f"{server.record.base_url} is not attached: it fails rung {failed.number} of the ladder, {failed.name}.",
            evidence=failed.detail,
            next_step=f"Mend it, then see with `tautools server verify {server.record.base_url}`.",
        )
