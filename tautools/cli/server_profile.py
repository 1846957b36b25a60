"""What `server up --dry-run` says beside the command: the profile of the cards, its environment, and warnings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tautools.params.models import ServerParams, SiteParams

__all__ = ["show_advice", "show_profile"]


def show_profile(params: ServerParams, site: SiteParams) -> None:
    """Print the profile and the variables that the server gets and this session has not, on the error stream."""
    from tautools.params.secrets import without_secrets
    from tautools.server.vllm.command import KEY_VARIABLE, server_env
    from tautools.server.vllm.installed import versions_beside
    from tautools.server.vllm.profiles import choose_profile

    versions = versions_beside(params.serve_command or site.serve_command)
    profile = choose_profile(params, site, versions)
    shown = ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "versions cannot be seen"
    click.secho(f"# {params.name}: profile {profile.name} ({shown})", err=True, bold=True)
    env = server_env(params, site, key="", cache=Path("servers/cache") / params.name, inherited=os.environ)
    for name, value in sorted(without_secrets(env).items()):
        if os.environ.get(name) != env[name] and name != KEY_VARIABLE:
            click.echo(f"#   {name}={value}", err=True)
    for note in profile.notes:
        click.echo(f"# {note}", err=True)


def show_advice(params: ServerParams) -> None:
    """Print what may be wrong with a server file, on the error stream."""
    from tautools.server.advice import advice

    for line in advice(params):
        click.secho(f"{params.name}: {line}", err=True, fg="yellow")
