"""What of a server file can be checked against the installed vLLM before anything is started or submitted."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from tautools.server.command import Place, server_argv, server_env
from tautools.server.flags import check_flags

if TYPE_CHECKING:
    from tautools.params.models import ServerParams, SiteParams
    from tautools.server.registry import Registry

__all__ = ["check_options"]


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
