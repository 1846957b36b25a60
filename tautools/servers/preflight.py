"""What can be checked in a server file before anything is started or submitted: vLLM's options, the model."""

from __future__ import annotations

import logging
import os
import shutil
from typing import TYPE_CHECKING

from tautools.errors import TautoolsError
from tautools.servers.vllm.command import ListenAddress, server_argv, server_env
from tautools.servers.vllm.flags import check_flags, first_release_of, tool_parser_of
from tautools.servers.weights import require_weights

if TYPE_CHECKING:
    from tautools.params.models import ServerParams, SiteParams
    from tautools.servers.registry import Registry


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
    if params.simulated or shutil.which(command[0]) is None:
        return
    argv = server_argv(params, site, ListenAddress(site.host, params.port or 0, alias="check"))
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
    if not params.simulated:
        env = server_env(params, site, key="", cache=registry.folder / "cache", inherited=os.environ)
        require_weights(params, command=command, env=env, workspace=registry.workspace.resolve())


def warn_missing_model(params: ServerParams, site: SiteParams, registry: Registry) -> None:
    """Log when a job's model is not to be found from here; the node may have other folders, so nothing is refused."""
    try:
        check_model(params, site, registry)
    except TautoolsError as error:
        _LOG.warning("Seen from here, the node may have it: %s", error)


_SPECULATIVE_OPTIONS = {"speculative_config", "speculative-config"}


def warnings_for(params: ServerParams) -> list[str]:
    """Return warnings about a server file, one sentence or two each."""
    if params.simulated:
        return []
    said = []
    meant = first_release_of(params.model)
    if meant is not None:
        said.append(
            f"The hub has no repository {params.model}: the 2507 release has no model of this size. "
            f"{meant} with `chat_template_kwargs: {{enable_thinking: false}}` is the nearest that exists "
            f"(server file `{meant.rpartition('/')[2].lower()}`)."
        )
    usual = tool_parser_of(params.model)
    parser = params.vllm.tool_call_parser
    if parser is None:
        name = f"`{usual}` for this family" if usual else "which one, the model's card tells"
        said.append(f"No `tool_call_parser` is set ({name}): every turn of the benchmark that uses tools is refused.")
    elif usual is not None and parser != usual:
        said.append(f"`tool_call_parser` is `{parser}`; models of this family mostly need `{usual}`.")
    if _SPECULATIVE_OPTIONS & set(params.vllm.args) and (params.vllm.gpu_memory_utilization or 0.9) > 0.9:
        said.append("Drafting ahead needs memory of its own: above 0.9 `gpu_memory_utilization` it may run out.")
    return said
