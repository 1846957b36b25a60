"""`tautools server script` and `server up --dry-run`: what would be submitted or started, to read and to do by hand."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import guard
from tautools.cli.options import ParamsName, set_option, site_option, workspace_option
from tautools.cli.server_profile import show_profile

if TYPE_CHECKING:
    from tautools.params.models import ServerParams, SiteParams

__all__ = ["dry_run", "script"]


@click.command(
    epilog="\b\nExamples:\n  tautools server script qwen3-32b --site sol-gaudi\n"
    "  tautools server script qwen3-32b --site sol-gaudi -o user-server.sh && sbatch user-server.sh"
)
@click.argument("name", type=ParamsName("servers"))
@site_option
@set_option
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; it must be new.")
@workspace_option
@guard
def script(name: str, site: str | None, overrides: tuple[str, ...], out: Path | None, workspace: Path) -> None:
    """Print the Slurm job script of a server; nothing is submitted.

    Submitted by hand from the workspace, the job registers its server itself: `server ls`, `verify`, `stop` know it.
    """
    from tautools.files import ensure_folder, write_new
    from tautools.params import load_server, load_site
    from tautools.server.slurm_launch import script_text

    where = load_site(site, workspace=workspace) if site else None
    if where is None or where.scheduler != "slurm":
        raise click.UsageError("--site must name a site with Slurm, such as sol-gaudi")
    text = script_text(load_server(name, workspace=workspace, overrides=overrides), workspace=workspace, site=where)
    if out is None:
        click.echo(text, nl=False)
        return
    if not write_new(out, text):
        raise click.UsageError(f"{out} exists already")
    for folder in ("logs", "errors"):  # Slurm ends a job without a word when it cannot write these
        ensure_folder(workspace / folder)
    click.echo(f"Written to {out}. Submit it with: sbatch {shlex.quote(str(out))}")


def dry_run(chosen: list[ServerParams], site: SiteParams | None, workspace: Path) -> None:
    """Print what a start would do, and whether it would be taken; nothing is started or written."""
    from tautools.params.models import SiteParams
    from tautools.server import Registry, check_launch
    from tautools.server.command import Place, server_argv
    from tautools.server.preflight import check_options
    from tautools.server.slurm_launch import check_job, script_text

    where = site or SiteParams(name="local")
    for params in chosen:
        show_profile(params, where)
        if where.scheduler == "slurm":
            click.echo(script_text(params, workspace=workspace, site=where))
            check_options(params, where, Registry(workspace))
            begins = check_job(params, workspace=workspace, site=where)
            when = time.strftime(" and thinks it starts at %Y-%m-%d %H:%M", time.localtime(begins)) if begins else ""
            click.echo(f"{params.name}: Slurm would take this job{when}.", err=True)
        else:
            check_launch(params, workspace=workspace, site=where)
            place = Place(where.host, params.port or 0, alias="launch-…")
            click.echo(shlex.join(server_argv(params, where, place)))
