"""Servers that somebody else started: verify one at its address, register it, read and write lists of addresses.

The lists are ToolOrchestra's `model_config*.json`. A model's name is the one that requests carry; every address of its
list is a replica. Keys are not in it::

    {"/path/to/model": [{"ip_addr": "127.0.0.1", "port": "1900"}, {"ip_addr": "127.0.0.1", "port": "1901"}],
     "vllm_model_config_path": "model_config_local.json"}
"""

import getpass
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from tautools.errors import ParamsError, TautoolsError, VerifyError
from tautools.files import write_atomic
from tautools.params.keys import read_key
from tautools.records import Certificate, Check, ServerRecord
from tautools.servers.addresses import as_base_url
from tautools.servers.backends import name_taken
from tautools.servers.checks.run import OnWait, certificate_of, run_checks
from tautools.servers.checks.target import CheckTarget
from tautools.servers.ports import bracketed
from tautools.servers.registry import Registry, check_name
from tautools.servers.server import Server

_ATTACHED_AT_ONCE = 8
_OWN_PATH = "vllm_model_config_path"
"""The file's own path, which ToolOrchestra keeps in it."""
_HOST_NAME = r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*)$"


class _Address(BaseModel):
    ip_addr: str = Field(pattern=_HOST_NAME)
    port: int = Field(gt=0, lt=65536)

    @property
    def base_url(self) -> str:
        return f"http://{bracketed(self.ip_addr)}:{self.port}/v1"


_MODELS = TypeAdapter(dict[str, Annotated[list[_Address], Field(min_length=1)]])


def verify_target(
    target: CheckTarget, *, on_check: Callable[[Check], None] | None = None, on_wait: OnWait | None = None
) -> Certificate:
    """Run the checks at any OpenAI-compatible address and return the certificate.

    `on_check` is called with each finished check, `on_wait` about once a second with what is waited for.
    Without a key the check that tests it does not apply. An address that is none is a ParamsError.
    """
    target = replace(target, base_url=as_base_url(target.base_url))
    return certificate_of(urlsplit(target.base_url).netloc, run_checks(target, on_check=on_check, on_wait=on_wait))


def attach(
    name: str, url: str, *, workspace: Path, model: str = "", key: str = "", on_wait: OnWait | None = None
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
        The name that requests carry; the first that the server lists by default. One without a model list is used on
        your word, once it answers for that name.
    key : str
        Its key, if it has one; kept in `servers/<name>.key`, mode 0600, until it is detached.
    on_wait : callable, optional
        Called about once a second with which checks are waited for, and for how long already.

    Raises
    ------
    ParamsError
        When the name or the address cannot be used.
    ServerError
        When a server of that name is registered already.
    VerifyError
        When a check fails; nothing is registered then.
    """
    return _attach(name, CheckTarget(as_base_url(url), model, key=key), workspace, on_wait=on_wait)


def _attach(
    name: str, target: CheckTarget, workspace: Path, *, group: str = "", on_wait: OnWait | None = None
) -> Server:
    """Do what `attach` says; `group` is a name shared by replicas: a role that asks for it gets all of them."""
    registry, base_url = Registry(workspace), target.base_url
    _require_new(name, registry)
    key = read_key(target.key, "`key`")
    spec = {"name": check_name(group)} if group else {}
    certificate = verify_target(replace(target, key=key), on_wait=on_wait).model_copy(update={"server": name})
    if (failed := certificate.failed) is not None:
        raise VerifyError(
            f"{base_url} is not attached: it fails check {failed.number}, {failed.name}.",
            evidence=failed.detail,
            next_step=f"Fix it, then see with `tautools server test {base_url}`.",
        )
    with registry.claim():
        _require_new(name, registry)
        record = ServerRecord(
            name=name,
            backend="attached",
            engine="attached",
            model=certificate.model,
            base_url=base_url,
            key_file=str(registry.new_key(name, key)[1].resolve()) if key else "",
            spec=spec,
            started_at=time.time(),
            certificate=certificate,
            simulated=certificate.simulated,
            owner=getpass.getuser(),
        )
        registry.add(record)
        registry.certify(record)
    return Server(record, workspace=workspace)


def _require_new(name: str, registry: Registry) -> None:
    """Raise a ServerError when a server of that name is registered."""
    if (known := registry.find(name)) is not None:
        raise name_taken(known, "is registered already", known.base_url, "Forget")


def attach_all(
    models: Mapping[str, Sequence[str]], *, workspace: Path, key: str = ""
) -> tuple[list[Server], dict[str, TautoolsError]]:
    """Attach every address of every model, side by side; return those that were, and what is wrong with the others.

    Each is registered under the last part of the model's name, numbered from 1 when it has replicas.

    Parameters
    ----------
    models : mapping of str to sequence of str
        Models with their base URLs, as `read_model_config` gives them.
    workspace : Path
        Where they are registered.
    key : str
        The key of all of them, if they have one.
    """
    jobs: list[dict[str, str]] = []
    groups: Counter[str] = Counter()
    for model, urls in models.items():  # models of one short name get groups of their own
        short = short_name(model)
        groups[short] += 1
        group = short if groups[short] == 1 else f"{short}_{groups[short]}"
        for number, url in enumerate(urls, start=1):
            name = f"{group}-{number}" if len(urls) > 1 else group
            jobs.append({"name": name, "url": url, "model": model, "group": group})

    def attach_one(job: dict[str, str]) -> Server | TautoolsError:
        try:
            target = CheckTarget(as_base_url(job["url"]), job["model"], key=key)
            return _attach(job["name"], target, workspace, group=job["group"])
        except TautoolsError as error:
            return error

    with ThreadPoolExecutor(max_workers=_ATTACHED_AT_ONCE) as pool:
        results = list(pool.map(attach_one, jobs))
    problems = {job["name"]: each for job, each in zip(jobs, results, strict=True) if isinstance(each, TautoolsError)}
    return [each for each in results if isinstance(each, Server)], problems


def short_name(model: str) -> str:
    """Return a model's last part as the name of a server: `/models/My Model` is `My-Model`."""
    last = model.rstrip("/").rsplit("/", 1)[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:56] or "server"


def read_model_config(path: Path) -> dict[str, list[str]]:
    """Return the base URLs of each model of a `model_config*.json`, in its order.

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
    if isinstance(stored, dict):
        stored.pop(_OWN_PATH, None)
    try:
        models = _MODELS.validate_python(stored)
    except ValidationError as error:
        model = next(iter(error.errors()[0]["loc"]), None)
        where, seen = ("the whole file", stored) if model is None else (repr(model), stored[model])
        raise ParamsError(
            f"{path}: {where} is not a list of addresses.",
            evidence=json.dumps(seen)[:200],
            next_step='Write [{"ip_addr": "127.0.0.1", "port": "1900"}], one for each replica.',
        ) from error
    if not models:
        raise ParamsError(f"{path} names no model.", next_step="Give a file that lists addresses of running servers.")
    return {model: [address.base_url for address in addresses] for model, addresses in models.items()}


def write_model_config(path: Path, records: Iterable[ServerRecord]) -> dict[str, list[str]]:
    """Write the addresses of servers by model, replicas as one list, in place of a file; return what was written.

    Raises
    ------
    ParamsError
        When a server's address is more than a host and a port, which the format cannot say.
    FilesError
        When the file cannot be written.
    """
    urls: dict[str, list[str]] = {}
    entries: dict[str, list[dict[str, str]]] = {}
    for record in records:
        parts = urlsplit(record.base_url)
        if parts.scheme != "http" or parts.path.rstrip("/") != "/v1" or not parts.hostname:
            raise ParamsError(
                f"{record.base_url} cannot be written to a model configuration, which knows hosts and ports alone.",
                next_step="Leave that server out by naming the others.",
            )
        urls.setdefault(record.model, []).append(record.base_url)
        entries.setdefault(record.model, []).append({"ip_addr": parts.hostname, "port": str(parts.port or 80)})
    write_atomic(path, json.dumps(entries | {_OWN_PATH: str(path)}, indent=2, ensure_ascii=False) + "\n")
    return urls
