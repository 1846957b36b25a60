"""`tautools server`: start model servers, prove them, see how they are, stop them.

Longer than other files because seven verbs that are read together stand together.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import guard
from tautools.cli.options import ParamsName, json_option, set_option, site_option, workspace_option
from tautools.cli.server_attach import attach
from tautools.cli.server_cards import cards
from tautools.cli.server_export import export
from tautools.cli.server_handover import handover
from tautools.cli.server_keep import keep_all, keep_options, terms_of
from tautools.cli.server_layout import layout_options, plan, start_asked, take_asked
from tautools.cli.server_profile import show_advice
from tautools.cli.server_relaunch import relaunch, why
from tautools.cli.server_resubmit import check_resubmit, resubmit_option, wait_and_resubmit
from tautools.cli.server_script import dry_run, script
from tautools.cli.server_shapes import shapes
from tautools.cli.server_verify import test, verify
from tautools.cli.server_watch import list_servers, top
from tautools.cli.server_when import when
from tautools.cli.server_words import told

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.params.models import ServerParams

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools server up sim-small sim-user        start two, wait until both are proven
  tautools server ls                           what runs, and how it is
  tautools server test http://gaudi001:8007/v1 prove anyone's server
  tautools server logs qwen3-8b -f             follow a log
  tautools server stop --all
"""


@click.group("server", epilog=_EPILOG)
def command() -> None:
    """Start model servers, prove that they work, find and stop them."""


command.add_command(why)
command.add_command(relaunch)
command.add_command(cards)
command.add_command(plan)
command.add_command(script)
command.add_command(handover)
command.add_command(shapes)
command.add_command(when)


@command.command(
    epilog="\b\nExamples:\n  tautools server up sim-small sim-user\n"
    "  tautools server up sim-small --skill 0.9 --port 8007\n"
    "  tautools server up sim-small --replicas 4 --start-port 1900 --stagger loaded"
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", type=ParamsName("servers"))
@click.option("--port", type=click.IntRange(1, 65535), help="This port and no other; for one server.")
@click.option("--skill", type=click.FloatRange(0, 1), help="Skill of simulated servers, instead of their file's.")
@click.option("--speed", type=click.FloatRange(0), help="Divides all times of simulated servers.")
@layout_options
@site_option
@set_option
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), help="Most seconds to wait.  [default: no progress]")
@click.option("--no-wait", is_flag=True, help="Return at once; `server ls` shows how far they are.")
@click.option("--dry-run", "dry", is_flag=True, help="Print the job script or command and check it; start nothing.")
@resubmit_option
@keep_options
@workspace_option
@json_option
@guard
def up(
    names: tuple[str, ...],
    timeout_s: float | None,
    no_wait: bool,
    dry: bool,
    workspace: Path,
    as_json: bool,
    **how: Any,
) -> None:
    """Start servers and wait until each is proven.

    NAME is a file under params/servers/ of the workspace or of the package. All are started side by side, unless
    --stagger says otherwise. Models get idle cards of this node; `server plan` shows which.
    """
    from tautools.params import load_site

    if how["port"] is not None and len(names) > 1:
        raise click.UsageError("--port is for one server; leave it out to give each a free port")
    if len(set(names)) < len(names):
        raise click.UsageError("a name is given twice; copy its file under params/servers/ to run it twice")
    site, tries, asked = how.pop("site"), how.pop("tries"), take_asked(how)
    terms = terms_of(how.pop("idle_stop"), how.pop("lease"))
    chosen = [_chosen(name, workspace, **how) for name in names]
    where = load_site(site, workspace=workspace) if site else None
    check_resubmit(tries, where, no_wait=no_wait, one_job=asked.one_job)
    if dry:
        dry_run(chosen, asked, where, workspace)
        return
    servers = start_asked(chosen, asked, where, workspace)
    try:
        failures = (
            {}
            if no_wait
            else wait_and_resubmit(servers, tries, workspace=workspace, timeout_s=timeout_s, quiet=as_json)
        )
    except KeyboardInterrupt:
        click.echo(f"{', '.join(names)} may still start: `tautools server ls`, `tautools server stop NAME`.", err=True)
        raise
    finally:
        keep_all(servers, terms)
    if as_json:
        click.echo(json.dumps([told(server) for server in servers], indent=1))
    elif not failures:
        for server in servers:
            where_it_is = server.record.base_url or f"job {server.record.job_id}"
            click.echo(f"{server.name}: {where_it_is}  model {server.record.model}")
    for name, error in failures.items():
        click.secho(f"{name}: {error}", err=True, fg="red")
    if failures:
        raise SystemExit(1)


command.add_command(list_servers)
command.add_command(top)
command.add_command(export)
# `list` is what people type who know other tools; help shows one of the two.
command.add_command(click.Command("list", params=list_servers.params, callback=list_servers.callback, hidden=True))


command.add_command(attach)
command.add_command(test)
command.add_command(verify)


@command.command()
@click.argument("name")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="Lines of each file.")
@click.option("-f", "--follow", "keep_on", is_flag=True, help="Go on until the server ends or Ctrl-C.")
@workspace_option
@guard
def logs(name: str, lines: int, keep_on: bool, workspace: Path) -> None:
    """Print the end of a server's log.

    Output first and then errors; -f goes on with what is added.
    """
    from tautools.server import Registry
    from tautools.server.logs import follow
    from tautools.server.state import log_lines

    record = Registry(workspace).get(name)
    for line in follow(record, workspace=workspace, lines=lines) if keep_on else log_lines(record, lines):
        click.echo(line)


@command.command(epilog="\b\nExamples:\n  tautools server stop sim-small\n  tautools server stop --all")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "every", is_flag=True, help="All servers of the workspace.")
@workspace_option
@guard
def stop(names: tuple[str, ...], every: bool, workspace: Path) -> None:
    """Stop servers whole.

    SIGTERM, repeated, then SIGKILL for the whole process group; ends when nothing of them runs.
    """
    from tautools.server import Registry, open_server

    if every == bool(names):
        raise click.UsageError("give the names of servers, or --all")
    chosen = [record.name for record in Registry(workspace).list()] if every else list(names)
    servers = [open_server(name, workspace=workspace) for name in chosen]
    for server in servers:
        server.stop(partial(_say_signal, server.name))
        click.echo(f"{server.name}: {'detached' if server.record.how == 'attach' else 'stopped'}")
    if not servers:
        click.echo("No server is registered.")


def _say_signal(name: str, sent: str) -> None:
    click.echo(f"{name}: {sent}")


def _chosen(
    name: str,
    workspace: Path,
    *,
    overrides: tuple[str, ...],
    skill: float | None,
    speed: float | None,
    port: int | None,
) -> ServerParams:
    from tautools.params import load_server

    given = {"port": port, "simulate.skill": skill, "simulate.speed": speed}
    words = [f"{field}={value}" for field, value in given.items() if value is not None]
    params = load_server(name, workspace=workspace, overrides=[*overrides, *words])
    if params.engine != "simulate" and not (skill is speed is None):
        raise click.UsageError(f"--skill and --speed are for simulated servers; {name} is not one")
    show_advice(params)
    return params
