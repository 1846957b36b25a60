"""`tautools config`: what will be used, and where each value came from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import guard
from tautools.cli.options import (
    ParamsName,
    json_option,
    run_flags,
    run_options,
    set_option,
    site_option,
    workspace_option,
)
from tautools.params import (
    KINDS,
    Resolved,
    find_params,
    list_params,
    resolve_persona,
    resolve_run,
    resolve_server,
    resolve_site,
    resolve_sweep,
    shipped,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["command", "show"]

_EPILOG = """\b
Examples:
  tautools config list
  tautools config sweep demo --set agent.temperature=0.2
  tautools config server qwen3-4b --json
  tautools config server qwen3-8b --site sol-gaudi
  tautools config persona anger
  tautools config run --env retail --model M --limit 2
"""


def show(resolved: Resolved[Any], *, as_json: bool = False) -> None:
    """Print params with where each value came from: what `--show-config` prints."""
    if as_json:
        click.echo(json.dumps(resolved.as_json(), indent=1, ensure_ascii=False))
        return
    rows = [(row.key, _shown(row.value), str(row.origin)) for row in resolved.rows()]
    wide = [max(len(row[column]) for row in [*rows, ("key", "value", "")]) for column in (0, 1)]
    value_width = min(wide[1], 60)
    click.secho(f"{'key':<{wide[0]}}  {'value':<{value_width}}  from", bold=True)
    for key, value, place in rows:
        line = f"{key:<{wide[0]}}  {value:<{value_width}}  {place}"
        click.secho(line, dim=place == "default")


@click.group("config", epilog=_EPILOG)
def command() -> None:
    """Show sites, servers, sweeps, personas and runs as they will be used; nothing is started."""


@command.command("list")
@click.argument("kind", required=False, type=click.Choice(KINDS))
@workspace_option
@json_option
@guard
def list_command(kind: str | None, workspace: Path, as_json: bool) -> None:
    """List what can be named: the workspace's own params and the shipped ones."""
    rows = [
        {"kind": each, "name": name, "file": str(find_params(each, name, workspace))}
        for each in KINDS
        if kind in (None, each)
        for name in list_params(each, workspace)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    ours = str(shipped("params"))
    for row in rows:
        place = "shipped" if row["file"].startswith(ours) else row["file"]
        click.echo(f"{row['kind']:<8} {row['name']:<28} {place}")


def _by_name(kind: Any, resolve: Callable[..., Resolved[Any]]) -> None:
    @command.command(kind[:-1], help=f"Show one {kind[:-1]} as it will be used, by name or path.")
    @click.argument("name", type=ParamsName(kind))
    @set_option
    @workspace_option
    @json_option
    @guard
    def one(name: str, overrides: tuple[str, ...], workspace: Path, as_json: bool) -> None:
        show(resolve(name, workspace=workspace, overrides=overrides), as_json=as_json)


_by_name("sites", resolve_site)
_by_name("sweeps", resolve_sweep)
_by_name("personas", resolve_persona)


@command.command("server")
@click.argument("name", type=ParamsName("servers"))
@site_option
@set_option
@workspace_option
@json_option
@guard
def server_command(name: str, site: str | None, overrides: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Show one server as it will be used, by name or path, with the profile of the site's cards."""
    from tautools.cli.server_profile import show_profile
    from tautools.params import load_site
    from tautools.params.models import SiteParams

    resolved = resolve_server(name, workspace=workspace, overrides=overrides)
    show(resolved, as_json=as_json)
    if not as_json:
        show_profile(resolved.params, load_site(site, workspace=workspace) if site else SiteParams(name="local"))


@command.command("run")
@run_options
@click.option("--file", type=click.Path(), default=None, help="YAML file with the params of one run.")
@set_option
@workspace_option
@json_option
@guard
def run_command(file: str | None, overrides: tuple[str, ...], workspace: Path, as_json: bool, **options: Any) -> None:
    """Show one run as `tautools run` with the same options would do it."""
    resolved = resolve_run(run_flags(options), workspace=workspace, file=file, overrides=overrides)
    show(resolved, as_json=as_json)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) and "\n" not in value else json.dumps(value, ensure_ascii=False)
