"""`tautools server attach`: take in servers that run already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option
from tautools.cli.server_verify import key_from, key_option
from tautools.cli.server_words import told

if TYPE_CHECKING:
    from tautools.server import Server

__all__ = ["attach"]


@click.command(
    epilog="\b\nExamples:\n"
    "  tautools server attach mine http://gaudi001:8007/v1 --model Qwen/Qwen3-32B --key-env MY_KEY\n"
    "  tautools server attach --model-config model_config_local.json"
)
@click.argument("name", required=False)
@click.argument("url", required=False)
@click.option("--model", help="Name that requests carry.  [default: the first it tells]")
@key_option
@click.option(
    "--model-config", type=click.Path(path_type=Path), help="Every address of a ToolOrchestra model_config*.json."
)
@workspace_option
@json_option
@guard
def attach(name: str | None, url: str | None, model_config: Path | None, *, workspace: Path, **asked: Any) -> None:
    """Register servers that run already, each once it is proven.

    They are listed, checked and used like those started here; `server stop` only forgets them. A model with several
    addresses in the file becomes NAME-1, NAME-2, …, and a role that names NAME or the model gets them all.
    """
    key, as_json = key_from(asked["key_env"]), asked["as_json"]
    if model_config is None:
        if not name or not url:
            raise click.UsageError("give NAME and URL, or --model-config FILE")
        _attach_one(name, url, asked["model"] or "", key, workspace=workspace, as_json=as_json)
    elif name or asked["model"]:
        raise click.UsageError("--model-config has names, addresses and models of its own")
    else:
        _attach_file(model_config, key, workspace, as_json=as_json)


def _attach_one(name: str, url: str, model: str, key: str, *, workspace: Path, as_json: bool) -> None:
    from tautools.server.attach import attach as attach_one

    _tell([attach_one(name, url, workspace=workspace, model=model, key=key)], as_json=as_json)


def _attach_file(path: Path, key: str, workspace: Path, *, as_json: bool) -> None:
    from tautools.server.attach import attach_all
    from tautools.server.model_config import read_model_config

    done, failures = attach_all(read_model_config(path), workspace=workspace, key=key)
    _tell(done, as_json=as_json)
    for name, error in failures.items():
        click.secho(f"{name}: {error}", err=True, fg="red")
    if failures:
        raise SystemExit(1)


def _tell(servers: list[Server], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([told(server) for server in servers], indent=1))
        return
    for server in servers:
        click.echo(f"{server.name}: attached, {server.record.base_url}  model {server.record.model}")
