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
    from tautools.cli.server_layout import Asked
    from tautools.params.models import ServerParams, SiteParams
    from tautools.server.layout.plan import Planned

__all__ = ["dry_run", "script"]

_OUT = "File to write; it must be new. With replicas FILE-0, FILE-1, …"


@click.command(
    epilog="\b\nExamples:\n  tautools server script qwen3-32b --site sol-gaudi\n"
    "  tautools server script qwen3-32b --site sol-gaudi -o user-server.sh && sbatch user-server.sh"
)
@click.argument("name", type=ParamsName("servers"))
@site_option
@set_option
@click.option("--replicas", type=click.IntRange(1, 256), help="A script for each of so many servers of this model.")
@click.option("-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help=_OUT)
@workspace_option
@guard
def script(
    name: str, site: str | None, overrides: tuple[str, ...], replicas: int | None, out: Path | None, workspace: Path
) -> None:
    """Print the Slurm job script of a server; nothing is submitted.

    Submitted by hand from the workspace, the job registers its server itself: `server ls`, `verify`, `stop` know it.
    Replicas are jobs of their own: NAME-0, NAME-1 and so on.
    """
    from tautools.params import load_server, load_site
    from tautools.server.layout.fleet import arrange, plan_here
    from tautools.server.on_slurm.launch import script_text

    where = load_site(site, workspace=workspace) if site else None
    if where is None or where.scheduler != "slurm":
        raise click.UsageError("--site must name a site with Slurm, such as sol-gaudi")
    params = load_server(name, workspace=workspace, overrides=overrides)
    asked = arrange([params], replicas={params.name: replicas} if replicas is not None else {})
    places = plan_here(asked, workspace=workspace, site=where).require().places
    texts = {
        place.name: script_text(place.params, workspace=workspace, site=where, name=place.name) for place in places
    }
    if out is None:
        click.echo("\n".join(texts.values()), nl=False)
        return
    _write(texts, out, workspace)


def _write(texts: dict[str, str], out: Path, workspace: Path) -> None:
    """Write one script to `out`, several beside it with their number before the ending."""
    from tautools.files import ensure_folder, write_new

    several = len(texts) > 1
    files = [out.with_name(f"{out.stem}-{number}{out.suffix}") if several else out for number in range(len(texts))]
    there = [file for file in files if file.exists()]
    if there:
        raise click.UsageError(f"{there[0]} exists already")
    for folder in ("logs", "errors"):  # Slurm ends a job without a word when it cannot write these
        ensure_folder(workspace / folder)
    for file, text in zip(files, texts.values(), strict=True):
        if not write_new(file, text):
            raise click.UsageError(f"{file} exists already")
        click.echo(f"Written to {file}. Submit it with: sbatch {shlex.quote(str(file))}")


def dry_run(chosen: list[ServerParams], asked: Asked, site: SiteParams | None, workspace: Path) -> None:
    """Print what a start would do, each replica for itself, and whether it would be taken; nothing is started."""
    from tautools.params.models import SiteParams
    from tautools.server.cards.node import CardDoor
    from tautools.server.layout.plan import plan_layout
    from tautools.server.layout.surroundings import on_any_node, on_this_node

    where = site or SiteParams(name="local")
    servers = asked.arranged(chosen)
    for params in servers:
        show_profile(params, where)
    if asked.one_job:
        _show_one_job(servers, where, workspace)
        return
    # A command for a node with cards can be read on one without.
    away = where.scheduler == "slurm" or CardDoor(where.device).device is None
    around = (on_any_node if away else on_this_node)(servers, where, workspace, force=asked.force)
    layout = plan_layout(servers, around, gpu_ids=asked.gpu_ids)
    show = _show_job if where.scheduler == "slurm" else _show_command
    for place in layout.require().places:
        show(place, where, workspace, asked.force)


def _show_one_job(servers: list[ServerParams], site: SiteParams, workspace: Path) -> None:
    from tautools.server import Registry
    from tautools.server.layout.fleet import plan_one_job
    from tautools.server.on_slurm.together import check_together, together_text, without_cards
    from tautools.server.preflight import check_options

    places = plan_one_job(servers, workspace=workspace, site=site).require().places
    click.echo(together_text(places, workspace=workspace, site=site))
    for place in places:
        check_options(without_cards(place), site, Registry(workspace))
    begins = check_together(places, workspace=workspace, site=site)
    click.echo(f"{', '.join(place.name for place in places)}: Slurm would take this job{_when(begins)}.", err=True)


def _when(begins: float | None) -> str:
    return time.strftime(" and thinks it starts at %Y-%m-%d %H:%M", time.localtime(begins)) if begins else ""


def _show_job(place: Planned, site: SiteParams, workspace: Path, _force: bool) -> None:
    from tautools.server import Registry
    from tautools.server.on_slurm.launch import check_job, script_text
    from tautools.server.preflight import check_options

    click.echo(script_text(place.params, workspace=workspace, site=site, name=place.name))
    check_options(place.params, site, Registry(workspace))
    begins = check_job(place.params, workspace=workspace, site=site, name=place.name)
    click.echo(f"{place.name}: Slurm would take this job{_when(begins)}.", err=True)


def _show_command(place: Planned, site: SiteParams, workspace: Path, force: bool) -> None:
    from tautools.server import check_launch
    from tautools.server.vllm.command import Place, server_argv

    check_launch(place.params, workspace=workspace, site=site, name=place.name, force=force)
    click.echo(shlex.join(server_argv(place.params, site, Place(site.host, place.params.port or 0, alias="launch-…"))))
