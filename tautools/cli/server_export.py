"""`tautools server export`: lines for hand-written shell scripts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import workspace_option
from tautools.cli.server_words import variable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tautools.records import ServerRecord
    from tautools.server import Registry

__all__ = ["export"]


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
    from tautools.server import Registry

    registry = Registry(workspace)
    if model_config is not None:
        if user or agent or show_keys:
            raise click.UsageError("--model-config holds every proven server, and no key")
        _write_model_config(model_config, registry)
        return
    chosen = {"USER_MODEL": user, "AGENT_MODEL": agent}
    records = {prefix: registry.get(name) for prefix, name in chosen.items() if name}
    records = records or {variable(record.name): record for record in registry.list() if record.certificate}
    for prefix, record in records.items():
        for line in _lines(prefix, record, registry, show_keys=show_keys):
            click.echo(line)


def _write_model_config(path: Path, registry: Registry) -> None:
    from tautools.server.model_config import write_model_config

    proven = [record for record in registry.list() if record.certificate is not None and record.certificate.passed]
    if not proven:
        click.echo("No server is proven; `tautools server ls` shows how they are.", err=True)
        raise SystemExit(1)
    for served in write_model_config(path, proven):
        click.echo(f"{served.model}: {', '.join(served.base_urls)}")
    keyed = [record.name for record in proven if record.key_file]
    if keyed:
        click.echo(f"The file holds no keys, and these servers ask for theirs: {', '.join(keyed)}", err=True)


def _lines(prefix: str, record: ServerRecord, registry: Registry, *, show_keys: bool) -> Iterator[str]:
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
