"""`tautools server verify`, `test`, `attach` and `export`: servers by their address."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.options import json_option, workspace_option
from tautools.cli.output import guard
from tautools.cli.server_status import server_dict, shell_variable, show_certificate, show_check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.records import ServerRecord
    from tautools.servers import Registry, Server


CONCURRENCY = 8
"""Chats at once when all checks are asked for: as many as a run holds by default."""

key_option = click.option("--key-env", help="Environment variable that holds its key; never the key itself.")
_model_option = click.option("--model", help="Name that must be served at an address.  [default: the first it tells]")
_full_option = click.option("--full", is_flag=True, help="Load the server, too: context limit, chats at once, repeats.")
_many_option = click.option(
    "--concurrency", type=click.IntRange(1, 1024), help=f"Chats at once; means --full.  [default: {CONCURRENCY}]"
)
_thinking_option = click.option(
    "--thinking", type=click.Choice(["on", "off"]), help="Whether its model must think when nothing is asked."
)


@click.command(
    epilog="\b\nExamples:\n  tautools server verify qwen3-8b --full --concurrency 32\n"
    "  tautools server verify http://gaudi001:8007/v1 --thinking off --key-env MY_KEY"
)
@click.argument("server", metavar="NAME|URL")
@_full_option
@_many_option
@_model_option
@key_option
@_thinking_option
@workspace_option
@json_option
@guard
def verify(server: str, workspace: Path, **asked: Any) -> None:
    """Prove a registered server again, or any server by its address.

    The whole ladder is climbed. Of a registered server the certificate is written down, and one that fails is not
    ready any more; what must hold of it is in its record, so --model, --key-env and --thinking are for addresses.
    """
    if ":" in server or "/" in server:
        _at_address(server, **asked)
        return
    given = [f"--{name.replace('_', '-')}" for name in ("model", "key_env", "thinking") if asked[name]]
    if given:
        raise click.UsageError(f"{', '.join(given)}: for an address; {server!r} is the name of a registered server")
    from tautools.servers import open_server

    tell = None if asked["as_json"] else show_check
    opened = open_server(server, workspace=workspace)
    certificate = opened.verify(tell, concurrency=_chats(asked["full"], asked["concurrency"]))
    show_certificate(certificate, as_json=asked["as_json"])


@click.command(
    epilog="\b\nExamples:\n  tautools server test http://localhost:8000\n"
    "  tautools server test http://gaudi001:8007/v1 --model Qwen/Qwen3-32B --key-env MY_KEY"
)
@click.argument("url")
@_full_option
@_many_option
@_model_option
@key_option
@_thinking_option
@json_option
@guard
def test(url: str, **asked: Any) -> None:
    """Prove any server by its address.

    Any OpenAI-compatible one: does it answer, what does it serve, is the key asked for, a chat, tool calls.
    """
    _at_address(url, **asked)


def key_from(variable: str | None) -> str:
    """Return the key that an environment variable holds; empty when none is named.

    Raises
    ------
    click.UsageError
        When the variable is not set, or empty.
    """
    if variable and not os.environ.get(variable):
        raise click.UsageError(f"--key-env {variable}: no such environment variable in this session")
    return os.environ[variable] if variable else ""


def _at_address(url: str, **asked: Any) -> None:
    from tautools.records import Thinking
    from tautools.servers.addresses import verify_target
    from tautools.servers.checks.target import CheckTarget

    target = CheckTarget(
        url,
        asked["model"] or "",
        key=key_from(asked["key_env"]),
        thinking=Thinking(asked["thinking"] or "default"),
        concurrency=_chats(asked["full"], asked["concurrency"]),
    )
    tell = None if asked["as_json"] else show_check
    show_certificate(verify_target(target, on_check=tell), as_json=asked["as_json"])


def _chats(full: bool, concurrency: int | None) -> int:
    return concurrency or (CONCURRENCY if full else 0)


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
    from tautools.servers.start import attach as attach_one

    _show_attached([attach_one(name, url, workspace=workspace, model=model, key=key)], as_json=as_json)


def _attach_file(path: Path, key: str, workspace: Path, *, as_json: bool) -> None:
    from tautools.servers.addresses import read_model_config
    from tautools.servers.start import attach_all

    done, failures = attach_all(read_model_config(path), workspace=workspace, key=key)
    _show_attached(done, as_json=as_json)
    for name, error in failures.items():
        click.secho(f"{name}: {error}", err=True, fg="red")
    if failures:
        raise SystemExit(1)


def _show_attached(servers: list[Server], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([server_dict(server) for server in servers], indent=1))
        return
    for server in servers:
        click.echo(f"{server.name}: attached, {server.record.base_url}  model {server.record.model}")


@click.command(
    "export",
    epilog="\b\nExamples:\n  tautools server export --user qwen3-32b\n"
    '  eval "$(tautools server export --user qwen3-32b --agent qwen3-8b)"',
)
@click.option("--user", help="Server that plays the customer: USER_MODEL_API_BASE and friends.")
@click.option("--agent", help="Server of the agent: AGENT_MODEL_API_BASE and friends, and OPENAI_API_BASE.")
@click.option(
    "--model-config", type=click.Path(path_type=Path), help="Write a ToolOrchestra model_config*.json instead."
)
@click.option("--show-keys", is_flag=True, help="Print the keys themselves; by default the files that hold them.")
@workspace_option
@guard
def export(user: str | None, agent: str | None, model_config: Path | None, show_keys: bool, workspace: Path) -> None:
    """Print export lines for shell scripts.

    Without options, of every proven server. OPENAI_API_BASE, OPENAI_BASE_URL and OPENAI_API_KEY, which tau-bench and
    its client read, are the agent's. Of a server that is not proven a comment says so.
    --model-config writes the addresses of every proven server by model, replicas as one list.
    """
    from tautools.servers import Registry

    registry = Registry(workspace)
    if model_config is not None:
        if user or agent or show_keys:
            raise click.UsageError("--model-config holds every proven server, and no key")
        _write_model_config(model_config, registry)
        return
    chosen = {"USER_MODEL": user, "AGENT_MODEL": agent}
    records = {prefix: registry.get(name) for prefix, name in chosen.items() if name}
    records = records or {shell_variable(record.name): record for record in registry.list() if record.certificate}
    for prefix, record in records.items():
        for line in _export_lines(prefix, record, registry, show_keys=show_keys):
            click.echo(line)


def _write_model_config(path: Path, registry: Registry) -> None:
    from tautools.servers.addresses import write_model_config

    proven = [record for record in registry.list() if record.certificate is not None and record.certificate.passed]
    if not proven:
        click.echo("No server is proven; `tautools server ls` shows how they are.", err=True)
        raise SystemExit(1)
    for served in write_model_config(path, proven):
        click.echo(f"{served.model}: {', '.join(served.base_urls)}")
    keyed = [record.name for record in proven if record.key_file]
    if keyed:
        click.echo(f"The file holds no keys, and these servers ask for theirs: {', '.join(keyed)}", err=True)


def _export_lines(prefix: str, record: ServerRecord, registry: Registry, *, show_keys: bool) -> Iterator[str]:
    if record.certificate is None or not record.certificate.passed:
        yield f"# {record.name} is not proven: run `tautools server verify {record.name}` first"
    key = ""
    if record.key_file:
        key = shlex.quote(registry.key(record)) if show_keys else f'"$(cat {shlex.quote(record.key_file)})"'
    base = shlex.quote(record.base_url)
    yield f"export {prefix}_API_BASE={base}"
    yield f"export {prefix}={shlex.quote(record.model)}"
    if key:
        yield f"export {prefix}_API_KEY={key}"
    if prefix == "AGENT_MODEL":
        yield f"export OPENAI_API_BASE={base}"
        yield f"export OPENAI_BASE_URL={base}"
        # A client of OpenAI's demands some key, also of a server that asks for none.
        yield f"export OPENAI_API_KEY={key or 'none'}"
