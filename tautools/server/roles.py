"""Which addresses answer for a role, checked before any work starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tautools.errors import ServerError, VerifyError
from tautools.llm.types import Endpoint
from tautools.server.address import as_base_url
from tautools.server.proof.certificate import target_of
from tautools.server.proof.ladder import recheck
from tautools.server.proof.light import Models, ask_models, nearest
from tautools.server.registry import Registry
from tautools.server.state import server_state
from tautools.server.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tautools.http import Http
    from tautools.params.models import RoleParams
    from tautools.records import ServerRecord

__all__ = ["endpoints", "fitting", "usual_address"]

_USUAL_ADDRESS = ("OPENAI_API_BASE", "OPENAI_BASE_URL")
_USUAL_KEY = "OPENAI_API_KEY"
"""Goes only to the address that stands beside it."""


def endpoints(role: RoleParams, *, workspace: Path, role_name: str) -> list[Endpoint]:
    """Return every address that answers for a role now; each was asked for its models with its key.

    Parameters
    ----------
    role : RoleParams
        Which server or model.
    workspace : Path
        Whose registry is looked into.
    role_name : str
        For messages: `agent`, `user`, ….

    Returns
    -------
    list of Endpoint
        One, or several when replicas of the model run.

    Raises
    ------
    ServerError
        When no such server is there or ready.
    VerifyError
        When an address answers and refuses the key, or does not serve the model.
    ModelCallError
        When a hosted provider's key is missing.
    """
    from tautools.http import Http

    if role.provider != "openai":
        return [_hosted(role, role_name)]
    registry, http = Registry(workspace), Http()
    if role.base_url is not None:
        return [_at_address(role, role.base_url, registry, role_name=role_name, http=http)]
    usual = None if fitting(role, registry.list()) else usual_address(role)
    if usual is not None:
        return [_at_address(role, usual, registry, role_name=role_name, http=http)]
    return _registered(role, registry, role_name, http)


def fitting(role: RoleParams, records: Sequence[ServerRecord]) -> list[ServerRecord]:
    """Return the registered servers that a role means: by the server's name, else by the model it serves."""
    by_name = [each for each in records if role.server and role.server in {each.name, each.spec.get("name")}]
    wanted = role.model or role.server or ""
    return by_name or [each for each in records if each.model == wanted]


def usual_address(role: RoleParams) -> str | None:
    """Return where a model is asked that is named alone and that no registered server serves.

    Those who come from tau-bench have the address in `OPENAI_API_BASE`, as litellm reads it, or in the openai package's
    `OPENAI_BASE_URL`.
    """
    if role.provider != "openai" or role.base_url is not None or role.server is not None:
        return None
    return next((address for name in _USUAL_ADDRESS if (address := os.environ.get(name))), None)


def _hosted(role: RoleParams, role_name: str) -> Endpoint:
    from tautools.llm import check_hosted_key

    model = role.model or role.server or ""
    key = _key_from_env(role, role_name)
    if not key:
        check_hosted_key(role.provider, model)
    return Endpoint(role.base_url or "", model, key=key, provider=role.provider)


def _at_address(role: RoleParams, address: str, registry: Registry, *, role_name: str, http: Http) -> Endpoint:
    base_url = as_base_url(address)
    key = _key_from_env(role, role_name)
    if role.base_url is None and not key:
        key = os.environ.get(_USUAL_KEY, "")
    known = next((record for record in registry.list() if record.base_url == base_url), None)
    if known is not None and not role.api_key_env:
        key = registry.key(known)
    answer = ask_models(base_url, key=key, http=http)
    return _checked(base_url, role.model or "", key, answer, role_name=role_name, name=known.name if known else "")


def _registered(role: RoleParams, registry: Registry, role_name: str, http: Http) -> list[Endpoint]:
    records = registry.list()
    wanted = role.model or role.server or ""
    found: list[Endpoint] = []
    told: list[str] = []
    for record in fitting(role, records):
        snapshot = server_state(record, workspace=registry.workspace, http=http)
        if snapshot.state is not State.READY:
            told.append(f"{record.name} is {snapshot}")
            continue
        # The certificate may be a day old: what costs the server nothing is proven again at each use.
        done = recheck(target_of(record, registry.key(record)), http=http)
        failed = next((rung for rung in done.rungs if rung.passed is False), None)
        if failed is not None or done.models is None:
            told.append(
                f"{record.name} is not what was proven" + (f": {failed.name}: {failed.detail}" if failed else "")
            )
            continue
        model, key = role.model or record.model, done.target.key
        found.append(_checked(record.base_url, model, key, done.models, role_name=role_name, name=record.name))
    if not found:
        raise _none_ready(wanted, "; ".join(told), records, role, role_name)
    return found


def _checked(base_url: str, model: str, key: str, answer: Models, *, role_name: str, name: str) -> Endpoint:
    where = f"{name} ({base_url})" if name else base_url
    if answer.status == 0:
        raise ServerError(
            f"Nobody answers for the {role_name} at {where}.",
            evidence=answer.detail,
            next_step="Try `tautools server test URL`; mind that a server on loopback answers on its own node only.",
        )
    if answer.status in {401, 403}:
        raise VerifyError(
            f"The server for the {role_name} at {where} refuses the key ({answer.status}).",
            evidence=answer.detail,
            next_step="Put the server's key in an environment variable and name it with `api_key_env`.",
        )
    if answer.status != 200 or not answer.names:
        raise VerifyError(
            f"{where} does not answer like a model server: /v1/models gives {answer.status}.",
            evidence=answer.detail,
            next_step="The address must end in /v1 and belong to an OpenAI-compatible server.",
        )
    if model not in answer.names:
        near = nearest(model, answer.names)
        raise VerifyError(
            f"The server {where} does not serve {model!r}, which the {role_name} needs.",
            evidence=f"It serves: {', '.join(answer.names)}.",
            next_step=f"Ask for {near!r}." if near else "Ask for one of those, or start a server for the model.",
        )
    length = answer.length_of(model)
    return Endpoint(base_url, model, key=key, name=name, simulated=answer.simulated, max_model_len=length)


def _key_from_env(role: RoleParams, role_name: str) -> str:
    if not role.api_key_env:
        return ""
    key = os.environ.get(role.api_key_env, "")
    if not key:
        raise ServerError(
            f"The key of the {role_name} is to come from {role.api_key_env}, which is not set.",
            next_step=f"Set it in this session: export {role.api_key_env}=…, or leave `api_key_env` out.",
        )
    return key


def _none_ready(wanted: str, told: str, records: list[ServerRecord], role: RoleParams, role_name: str) -> ServerError:
    if told:
        name = next(iter(record.name for record in records if record.name in told), wanted)
        return ServerError(
            f"No server for the {role_name} is ready: {told}.",
            next_step=f"See `tautools server logs {name}`; start it again with `tautools server up {name}`.",
        )
    names = sorted({record.name for record in records} | {record.model for record in records})
    near = nearest(wanted, names)
    start = role.server or "NAME"
    return ServerError(
        f"No running server serves {wanted!r}, which the {role_name} needs.",
        evidence=f"Registered: {', '.join(names)}." if names else "No server is registered in this workspace.",
        next_step=f"Start it with `tautools server up {start}`, or give its address with `base_url` or OPENAI_API_BASE"
        + (f"; did you mean {near!r}?" if near else "."),
    )
