"""The addresses that answer for a role: of registered servers, of an address that is given, or of a hosted provider."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from tautools.errors import ModelCallError, NoServerError, ParamsError, ServerError, VerifyError, nearest
from tautools.llm.types import Endpoint
from tautools.params import load_all
from tautools.params.keys import read_key
from tautools.params.models import RoleParams, ServerParams
from tautools.records import ServerRecord
from tautools.servers.backends import backend_of
from tautools.servers.checks.run import recheck
from tautools.servers.checks.target import ModelList, ask, ask_models, target_of
from tautools.servers.registry import Registry
from tautools.servers.server import states_of
from tautools.servers.state import Snapshot, State

_ADDRESS_VARIABLES = ("OPENAI_API_BASE", "OPENAI_BASE_URL")
_KEY_VARIABLE = "OPENAI_API_KEY"
"""Sent only to the address in one of those variables."""


def as_base_url(url: str) -> str:
    """Return `url` as an address that ends in `/v1`; a bare host and port get it added, other words a ParamsError."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ParamsError(
            f"{url!r} is not the address of a server.",
            next_step="Give it as http://HOST:PORT/v1, as the server prints it.",
        )
    if "@" in parts.netloc:  # addresses are in every record
        raise ParamsError(
            "The address of a server must not contain a user or a password.",
            next_step="Put the key in an environment variable and name it with `api_key_env` (--key-env).",
        )
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def endpoints(
    role: RoleParams,
    *,
    workspace: Path,
    role_name: str,
    records: Sequence[ServerRecord] | None = None,
    try_out: bool = True,
) -> list[Endpoint]:
    """Return every address that answers for a role now, several when replicas run; each was asked for its models.

    An address without a model list is taken on the word of the role that names its model.

    Parameters
    ----------
    role : RoleParams
        Which server or model.
    workspace : Path
        Whose registry is looked into.
    role_name : str
        For messages: `agent`, `user`, ….
    records : sequence of ServerRecord, optional
        What the registry holds, where it was read just now.
    try_out : bool
        Whether an address without a model list is asked for an answer.

    Raises
    ------
    ServerError
        When no such server is there or ready.
    VerifyError
        When an address answers and refuses the key, or does not serve the model.
    ModelCallError
        When a hosted provider's key is missing.
    """
    registry = Registry(workspace)
    if role.provider == "openai" and records is None:
        records = registry.list()
    search = _Search(role, role_name, registry, records or [], try_out)
    return [replace(each, affinity_header=role.affinity_header or "") for each in _found(search)]


def _found(search: "_Search") -> list[Endpoint]:
    role = search.role
    if role.provider != "openai":
        return [search.hosted()]
    known = servers_for_role(role, search.records)
    address = role.base_url or (None if known else address_from_env(role))
    return [search.at(address)] if address is not None else search.registered(known)


def servers_for_role(role: RoleParams, records: Sequence[ServerRecord]) -> list[ServerRecord]:
    """Return the registered servers that a role means: by the server's name, else by the model it serves."""
    by_name = [each for each in records if role.server and role.server in {each.name, each.spec.get("name")}]
    wanted = role.model or role.server or ""
    return by_name or [each for each in records if each.model == wanted]


def address_from_env(role: RoleParams) -> str | None:
    """Return where a model is asked that is named alone and that no registered server serves.

    Those who come from tau-bench have the address in `OPENAI_API_BASE`, as litellm reads it, or in the openai package's
    `OPENAI_BASE_URL`.
    """
    if role.provider != "openai" or role.base_url is not None or role.server is not None:
        return None
    return next((address for name in _ADDRESS_VARIABLES if (address := os.environ.get(name))), None)


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a registered server is not used."""

    text: str
    replaced: bool = False
    """Whether another server answers in its place."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class _Search:
    """One role, looked for among the servers of one registry."""

    role: RoleParams
    role_name: str
    registry: Registry
    records: Sequence[ServerRecord]
    try_out: bool = True

    @property
    def wanted(self) -> str:
        return self.role.model or self.role.server or ""

    def hosted(self) -> Endpoint:
        from tautools.llm import check_hosted_key

        key = self._key_from_env()
        if not key:
            check_hosted_key(self.role.provider, self.wanted)
        return Endpoint(self.role.base_url or "", self.wanted, key=key, provider=self.role.provider)

    def at(self, address: str) -> Endpoint:
        base_url = as_base_url(address)
        key = self._key_from_env()
        if self.role.base_url is None and not key:
            key = read_key(os.environ.get(_KEY_VARIABLE, ""), _KEY_VARIABLE)
        known = next((record for record in self.records if record.base_url == base_url), None)
        if known is not None and not self.role.api_key_env:
            key = self.registry.key(known)
        name, warm = (known.name, self.registry.is_warm(known)) if known else ("", False)
        endpoint = Endpoint(base_url, self.role.model or "", key=key, name=name, warm=warm)
        answer = ask_models(base_url, key=key)
        if answer.status == 0 and known is not None:
            raise self._none_ready([known], [_Problem(answer.detail)], states_of([known], self.registry))
        return self._checked(endpoint, answer)

    def registered(self, candidates: Sequence[ServerRecord]) -> list[Endpoint]:
        with ThreadPoolExecutor(max_workers=min(32, len(candidates) or 1)) as pool:  # one that hangs delays none
            checked = list(pool.map(self._recheck, candidates))
        ready = [found for found in checked if isinstance(found, Endpoint)]
        if ready:
            return ready
        if not candidates:
            raise self._unknown()
        snapshots = states_of(candidates, self.registry)
        raise self._none_ready(candidates, [found for found in checked if isinstance(found, _Problem)], snapshots)

    def _none_ready(
        self, candidates: Sequence[ServerRecord], problems: Sequence["_Problem"], snapshots: Sequence[Snapshot]
    ) -> ServerError:
        """Return the error for a role none of whose servers is ready, with the state of each and how it comes back."""
        states = [
            f"{record.name} is {f'not what was verified: {problem}' if snapshot.state is State.READY else snapshot}"
            for record, problem, snapshot in zip(candidates, problems, snapshots, strict=True)
        ]
        first, backend, seen = candidates[0], backend_of(candidates[0]), snapshots[0]
        advice = f"{seen.next_step} ".lstrip() if seen.state.final else ""
        if "logs" not in backend.unfit and f"logs {first.name}" not in advice:
            advice += f"See `tautools server logs {first.name}`. "
        if (again := backend.start_again(first)) not in advice:
            advice += again
        ended = [each.state.final or each.state is State.STOPPING for each in snapshots]
        gone = all(over or problem.replaced for over, problem in zip(ended, problems, strict=True))
        kind = NoServerError if gone else ServerError
        text = "; ".join(state.rstrip(".") for state in states)
        return kind(f"No server for the {self.role_name} is ready: {text}.", next_step=advice.strip())

    def _recheck(self, record: ServerRecord) -> "Endpoint | _Problem":
        """Check a server that was verified once more; return its endpoint, or what is wrong.

        The certificate may be a day old: what costs the server nothing is checked again at each use.
        """
        if record.certificate is None or self.registry.activity(record):
            return _Problem("it is not verified")
        try:
            done = recheck(target_of(record, self.registry.key(record)))
        except ServerError as error:
            return _Problem(error.problem)
        checks = (*record.certificate.checks, *done.checks)
        failed = next((check for check in checks if check.passed is False), None)
        if failed is not None:
            models = done.models
            replaced = models.refuses_key or bool(models.names and record.model not in models.names)
            return _Problem(f"{failed.name}: {failed.detail}", replaced)
        if done.without.keys() - record.certificate.without.keys():
            return _Problem("identity: it listed its models when it was verified, and does not now", replaced=True)
        model = self.role.model or record.model
        warm = self.registry.is_warm(record)
        found = Endpoint(done.target.base_url, model, key=done.target.key, name=record.name, warm=warm)
        return self._checked(found, done.models)

    def _checked(self, endpoint: Endpoint, answer: ModelList) -> Endpoint:
        """Return the endpoint with what its server says of itself; raise when it does not serve the role."""
        where = f"{endpoint.name} ({endpoint.base_url})" if endpoint.name else endpoint.base_url
        if answer.status == 0:
            raise ServerError(
                f"Nothing answers for the {self.role_name} at {where}.",
                evidence=answer.detail,
                next_step=f"Start it where it runs, then try `tautools server test {endpoint.base_url}`; a server on "
                "loopback answers on its own node only.",
            )
        if answer.refuses_key:
            raise VerifyError(
                f"The server for the {self.role_name} at {where} refuses the key ({answer.status}).",
                evidence=answer.detail,
                next_step="Put the server's key in an environment variable and name it with `api_key_env`.",
            )
        if answer.absent and endpoint.model:
            if self.try_out and not endpoint.name:
                self._require_answer(endpoint, where)
            return endpoint
        if answer.status != 200 or not answer.names:
            kind = ServerError if answer.status >= 500 else VerifyError  # a proxy says so while its server starts
            raise kind(
                f"{where} does not answer like a model server: /v1/models gives {answer.status}.",
                evidence=answer.detail,
                next_step="The address must end in /v1 and belong to an OpenAI-compatible server.",
            )
        if endpoint.model not in answer.names:
            near = nearest(endpoint.model, answer.names)
            raise VerifyError(
                f"The server {where} does not serve {endpoint.model!r}, which the {self.role_name} needs.",
                evidence=f"It serves: {', '.join(answer.names)}.",
                next_step=f"Ask for {near[0]!r}." if near else "Ask for one of those, or start a server for the model.",
            )
        return replace(endpoint, simulated=answer.simulated, max_model_len=answer.lengths.get(endpoint.model))

    def _require_answer(self, endpoint: Endpoint, where: str) -> None:
        """Ask a server that has no model list for one answer; any will do."""
        try:
            ask(endpoint, [{"role": "user", "content": "Answer with the one word: ready"}], max_tokens=16)
        except ModelCallError as error:
            raise VerifyError(
                f"{where} has no model list, and no answer for {endpoint.model!r}, which the {self.role_name} needs.",
                evidence=error.seen,
                next_step="Correct the address, the model's name or the key (`api_key_env`).",
            ) from error

    def _key_from_env(self) -> str:
        name = self.role.api_key_env
        key = read_key(os.environ.get(name, ""), name) if name else ""
        if name and not key:
            raise ServerError(
                f"The key of the {self.role_name} is to come from {name}, which is not set or holds none.",
                next_step=f"Set it in this session: export {name}=…, or leave `api_key_env` out.",
            )
        return key

    def _file_name(self) -> str:
        """Return the server file that a person means, or that has the model; empty when there is none."""
        if self.role.server:
            return self.role.server
        files = load_all(ServerParams, self.registry.workspace)[0]
        return next((name for name, params in files.items() if params.serves == self.wanted), "")

    def _unknown(self) -> NoServerError:
        names = sorted({name for record in self.records for name in (record.name, record.model)})
        near = nearest(self.wanted, names)
        start = (
            f"Start one with `tautools server up {self._file_name()}`" if self._file_name() else "Write a server file"
        )
        advice = f"{start}, or give its address with `base_url`"
        return NoServerError(
            f"No running server serves {self.wanted!r}, which the {self.role_name} needs.",
            evidence=f"Registered: {', '.join(names)}." if names else "No server is registered in this workspace.",
            next_step=f"{advice} or OPENAI_API_BASE" + (f"; did you mean {near[0]!r}?" if near else "."),
        )
