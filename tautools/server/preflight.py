"""What of a server file can be checked before anything is started or submitted: the vLLM's options, the model."""

from __future__ import annotations

import logging
import os
import shutil
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.server.vllm.command import Place, server_argv, server_env
from tautools.server.vllm.flags import check_flags
from tautools.server.weights.here import require_weights

if TYPE_CHECKING:
    from tautools.params.models import ServerParams, SiteParams
    from tautools.server.registry import Registry

__all__ = ["check_model", "check_options", "look_for_model"]

_LOG = logging.getLogger(__name__)


def check_options(params: ServerParams, site: SiteParams, registry: Registry) -> None:
    """Raise when the vLLM that would be started does not take an option.

    A vLLM that cannot be seen from this session, such as one that a job activates, is not checked.

    Raises
    ------
    ParamsError
        With each flag it does not know, and what to write instead.
    """
    command = params.serve_command or site.serve_command
    if params.engine != "vllm" or shutil.which(command[0]) is None:
        return
    argv = server_argv(params, site, Place(site.host, params.port or 0, alias="check"))
    env = server_env(params, site, key="", cache=registry.folder / "cache", inherited=os.environ)
    check_flags(argv, command=command, env=env, folder=registry.folder / "flags")


def check_model(params: ServerParams, site: SiteParams, registry: Registry) -> None:
    """Raise when the model that a server of this machine shall load is nowhere.

    Raises
    ------
    ServerError
        When it is in no folder and not in the cache, and the hub may not be asked or has it not.
    ParamsError
        When it is neither a folder nor a possible name.
    """
    command = params.serve_command or site.serve_command
    if params.engine == "vllm":
        env = server_env(params, site, key="", cache=registry.folder / "cache", inherited=os.environ)
        require_weights(params, command=command, env=env, workspace=registry.workspace.resolve())


def look_for_model(params: ServerParams, site: SiteParams, registry: Registry) -> None:
    """Log when a job's model is not to be found from here; the node may have other folders, so nothing is refused."""
    try:
        check_model(params, site, registry)
    except TautoolsError as error:
        _LOG.warning("Seen from here, the node may have it: %s", error)
