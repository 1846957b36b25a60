"""Which models play the roles of a run, and where they answer.

With servers needed, every role is asked for and proven before anything is made: a server that is not there, a wrong key
or a model that is not served is an error here. Without, only names are settled, as far as params and registry tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.llm.request import switch_of
from tautools.params import load_server
from tautools.records import ModelConfig
from tautools.servers import Registry, endpoints
from tautools.servers.addresses import address_from_env, servers_for_role

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tautools.llm.types import Endpoint
    from tautools.params.models import RoleParams, RunParams


@dataclass(frozen=True)
class Models:
    """The parties of a run."""

    parties: Mapping[str, ModelConfig]
    """Every model by its part: `agent`, `user`, `judge`, `expert:<name>`."""
    simulated: tuple[bool, ...]
    """Whether any of them is simulated; both answers, the likelier first, when no server could be asked."""
    endpoints: Mapping[str, Sequence[Endpoint]] = field(default_factory=dict)
    """Where each part answers; empty when servers were not needed."""


def resolve_models(run: RunParams, *, workspace: Path, need_servers: bool) -> Models:
    """Settle the models of a run.

    Raises
    ------
    TautoolsError
        When servers are needed and one of them is not there, refuses the key or serves another model.
    """
    roles = run.roles
    if not need_servers:
        return _models_by_name(roles, workspace)
    found = {part: endpoints(params, workspace=workspace, role_name=part) for part, params in roles.items()}
    return Models(
        parties={part: model_config_of(params, found[part][0].model) for part, params in roles.items()},
        simulated=(any(endpoint.simulated for each in found.values() for endpoint in each),),
        endpoints=found,
    )


def model_config_of(params: RoleParams, model: str) -> ModelConfig:
    """Return how the model of a role is asked; raise `ParamsError` when it cannot think as it shall."""
    name = params.model or model
    return ModelConfig(
        model=name,
        provider=params.provider,
        sampling=params.sampling,
        thinking=params.thinking,
        thinking_switch=switch_of(name, params.thinking, params.thinking_switch),
    )


def _models_by_name(roles: Mapping[str, RoleParams], workspace: Path) -> Models:
    named = {part: _named(params, workspace) for part, params in roles.items()}
    known = [simulated for _, simulated in named.values()]
    return Models(
        parties={part: model_config_of(params, named[part][0]) for part, params in roles.items()},
        simulated=(True,) if True in known else (False, True) if None in known else (False,),
    )


def _named(params: RoleParams, workspace: Path) -> tuple[str, bool | None]:
    """Return the model's name and whether it is simulated; None when only its server could tell and does not."""
    wanted = params.model or params.server or ""
    if params.provider != "openai":
        return wanted, False
    if params.base_url is not None:
        return wanted, _answers_simulated(params, workspace)
    registered = servers_for_role(params, Registry(workspace).list())
    if registered:
        return params.model or registered[0].model, registered[0].simulated
    if address_from_env(params) is not None:
        return wanted, _answers_simulated(params, workspace)
    if params.server is None or "/" in params.server:
        return wanted, None
    server = load_server(params.server, workspace=workspace)
    return params.model or server.serves, server.simulated


def _answers_simulated(params: RoleParams, workspace: Path) -> bool | None:
    try:
        return any(each.simulated for each in endpoints(params, workspace=workspace, role_name="planned"))
    except TautoolsError:  # nobody there yet
        return None
