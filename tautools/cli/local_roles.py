"""Who plays in `tautools local`: the agent's server from a name or a folder, the customer from whatever was named."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tautools.errors import ParamsError
from tautools.files import at_home
from tautools.params import list_params, load_server
from tautools.params.models import RoleParams, ServerParams

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["agent_role", "agent_server", "user_role"]

_HOSTED = {
    r"(gpt-\d|chatgpt-|o\d)": {"base_url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY"},
    r"claude-": {"provider": "anthropic"},
    r"gemini-": {"provider": "gemini"},
}
"""Names of hosted models, by their beginning, and where they answer."""


def agent_server(model: str, *, workspace: Path, overrides: Sequence[str], tool_call_parser: str) -> ServerParams:
    """Return the server of the agent: a server file by its name, the file that serves the model, or one made up here.

    Parameters
    ----------
    model : str
        A file under `params/servers/`, a hub id, or a folder with weights.
    workspace : Path
        Where server files are looked for first.
    overrides : sequence of str
        `key=value` texts of `--set`.
    tool_call_parser : str
        For a model without a server file.

    Raises
    ------
    ParamsError
        When it looks like a folder and is none, or an override is wrong.
    """
    names = list_params("servers", workspace)
    if model in names or model.endswith((".yaml", ".yml")):
        return load_server(model, workspace=workspace, overrides=overrides)
    for name in names:
        if load_server(name, workspace=workspace).model == model:
            return load_server(name, workspace=workspace, overrides=overrides)
    folder = at_home(model)
    if folder.is_dir():
        model = str(folder.resolve())
    elif model.startswith(("/", ".", "~")):
        raise ParamsError(
            f"--agent-model: there is no folder {model}.",
            next_step="Name a folder with weights, a model of the hub, or a file under params/servers/.",
        )
    return _made_up(model, overrides, tool_call_parser)


def agent_role(params: ServerParams, *, workspace: Path, started: bool) -> RoleParams:
    """Return the agent's role: the servers started here by their file's name, or whichever serve the model."""
    if started and params.name in list_params("servers", workspace):
        return RoleParams(server=params.name, model=params.serves)
    return RoleParams(model=params.serves)


def user_role(name: str | None, agent: RoleParams, *, workspace: Path) -> tuple[RoleParams, ServerParams | None]:
    """Return the customer's role, and the server to start for it when it has a file and does not run.

    Parameters
    ----------
    name : str, optional
        A running server, a server file, a hosted model such as `gpt-4o`, or the model of a running server; the agent
        plays the customer too by default.
    agent : RoleParams
        The agent's role.
    workspace : Path
        Whose servers are meant.
    """
    from tautools.server import Registry

    if name is None:
        return agent, None
    records = Registry(workspace).list()
    if any(name in {record.name, record.spec.get("name")} for record in records):
        return RoleParams(server=name), None
    if any(record.model == name for record in records):
        return RoleParams(model=name), None
    if name in list_params("servers", workspace):
        return RoleParams(server=name), load_server(name, workspace=workspace)
    for beginning, where in _HOSTED.items():
        if re.match(beginning, name):
            return RoleParams.model_validate({"model": name} | where), None
    return RoleParams(model=name), None


def _made_up(model: str, overrides: Sequence[str], tool_call_parser: str) -> ServerParams:
    from tautools.params.check import validated
    from tautools.params.overrides import apply_overrides
    from tautools.params.tree import Tree
    from tautools.params.yaml_tree import Document

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-._").lower()[:60]
    data = {"name": name or "agent", "model": model, "vllm": {"tool_call_parser": tool_call_parser}}
    tree = Tree(Document("the command line", data))
    apply_overrides(tree, overrides)
    return validated(ServerParams, tree.data, tree)
