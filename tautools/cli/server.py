"""`tautools server`: start model servers, stop them, read their logs, restart those that failed."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tautools.cli.options import ParamsName, json_option, set_option, site_option, workspace_option
from tautools.cli.output import guard
from tautools.cli.server_address import attach, export, test, verify
from tautools.cli.server_plan import (
    dry_run,
    layout_options,
    plan,
    script,
    show_advice,
    start_servers,
    take_layout,
    when,
)
from tautools.cli.server_status import cards, list_servers, server_dict, top
from tautools.errors import TautoolsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.params.models import ServerParams, SiteParams
    from tautools.servers import Diagnosis, Server
    from tautools.servers.lease import LeaseTerms


F = TypeVar("F", bound="Callable[..., Any]")


def lease_options(function: F) -> F:
    """Add `--idle-stop` and `--lease` as `idle_stop: float | None` and `lease: str | None`."""
    lease = click.option(
        "--lease",
        metavar="PID|kernel",
        help="Stop when this process, or the notebook kernel it is typed in, is gone and nothing uses the server.",
    )
    idle = click.option(
        "--idle-stop", type=click.FloatRange(0, min_open=True), metavar="MIN", help="Stop after minutes of no request."
    )
    return idle(lease(function))


def lease_terms(idle_stop: float | None, lease: str | None) -> LeaseTerms | None:
    """Return when servers shall end, None when never; an owner that is not there is said before anything starts."""
    if idle_stop is None and lease is None:
        return None
    from tautools.servers.lease import LeaseTerms, kernel_process, owner_process

    owner = None
    if lease == "kernel":
        owner = kernel_process()
    elif lease is not None:
        if not (lease.isascii() and lease.isdecimal()):
            raise click.UsageError(f"--lease {lease!r}: give the pid of a process, or the word kernel")
        owner = owner_process(int(lease))
    idle_s = None if idle_stop is None else idle_stop * 60
    return LeaseTerms(idle_s, owner, every_s=min(15.0, max(0.5, (idle_s or 60) / 4)))


def start_watchdogs(servers: Sequence[Server], terms: LeaseTerms | None) -> None:
    """Start a keeper for each server that has not failed; one that cannot be started is said and hinders nothing."""
    if terms is None:
        return
    from tautools.servers.lease import start_watchdog

    for server in servers:
        if server.state().state.final:
            continue
        try:
            start_watchdog(server, terms)
        except TautoolsError as error:
            click.secho(f"{server.name} will not end by itself: {error}", err=True, fg="red")


resubmit_option = click.option(
    "--resubmit",
    "tries",
    type=click.IntRange(0, 20),
    default=0,
    metavar="N",
    help="Submit a job up to N times more, without the node, when others hold its cards there.",
)


def check_resubmit(tries: int, site: SiteParams | None, *, no_wait: bool, one_job: bool = False) -> None:
    """Raise a usage error where nobody would be there to submit again, or several servers share the job."""
    if tries and one_job:
        raise click.UsageError("--resubmit is for a job of one server; leave out --one-job")
    if tries and no_wait:
        raise click.UsageError("--resubmit waits for the jobs; leave out --no-wait")
    if tries and (site is None or not site.uses_slurm):
        raise click.UsageError("--resubmit is for a site with Slurm, such as --site sol-gaudi")


def wait_and_resubmit(
    servers: list[Server], tries: int, *, workspace: Path, timeout_s: float | None, quiet: bool
) -> dict[str, TautoolsError]:
    """Wait for all servers, submitting again those whose cards were held; return what went wrong at last, by name.

    Parameters
    ----------
    servers : list of Server
        Just launched; a server that was submitted again takes the place of its former launch.
    tries : int
        Most submissions more of each.
    workspace, timeout_s, quiet
        As of `watch_starts`.
    """
    from tautools.cli.output import watch_starts
    from tautools.servers.start import held_node, resubmit

    failures = watch_starts(servers, timeout_s=timeout_s, quiet=quiet)
    for number in range(1, tries + 1):
        again = []
        for place, server in enumerate(servers):
            node = held_node(server.record) if server.name in failures else None
            if node is None:
                continue
            servers[place] = resubmit(server.record, node, workspace=workspace)
            again.append(servers[place])
            told = f"the cards of {node} are held by others; submitted again without it"
            click.echo(f"{server.name}: {told}, job {servers[place].record.job_id} ({number} of {tries})", err=True)
        if not again:
            break
        names = {server.name for server in again}
        left = {name: error for name, error in failures.items() if name not in names}
        failures = left | watch_starts(again, timeout_s=timeout_s, quiet=quiet)
    return failures


@click.command(
    epilog="\b\nExamples:\n  tautools server why qwen3-8b\n  tautools server why logs/user_1.out errors/user_1.err"
)
@click.argument("sources", nargs=-1, required=True, metavar="NAME|LOG...")
@workspace_option
@json_option
@guard
def why(sources: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Tell why a server failed, and what helps.

    NAME is a registered server; LOG are log files of any vLLM or Slurm job, read in the given order.
    """
    from tautools.servers import Registry, diagnose_log
    from tautools.servers.server import cause_of

    logs = [Path(source) for source in sources if Path(source).is_file()]
    if logs:
        if len(logs) < len(sources):
            raise click.UsageError("give the name of one server, or log files that exist")
        lines = [line for log in logs for line in log.read_text(errors="replace").splitlines()]
        found = diagnose_log(lines)
    elif len(sources) > 1:
        raise click.UsageError("give the name of one server, or log files that exist")
    else:
        registry = Registry(workspace)
        found = cause_of(registry.get(sources[0]), registry)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1, ensure_ascii=False))
    else:
        _show_diagnosis(found)


@click.command(
    epilog="\b\nExamples:\n  tautools server relaunch qwen3-8b\n  tautools server relaunch qwen3-8b --fix --yes\n"
    "  tautools server relaunch qwen3-32b --exclude gaudi003"
)
@click.argument("name")
@click.option("--fix", is_flag=True, help="Change what its log asks for; shown before it is done.")
@click.option(
    "--exclude", metavar="[NODE]", is_flag=False, flag_value="", help="Not on this node.  [NODE: the log's held one]"
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Return at once; `server ls` shows how far it is.")
@workspace_option
@guard
def relaunch(name: str, fix: bool, exclude: str | None, yes: bool, no_wait: bool, workspace: Path) -> None:
    """Start a server again as it was started, or with what mends it, or away from a node.

    A changed value is written into its record and shown by `server ls --json`; the server file stays as it is.
    """
    from tautools.cli.output import watch_starts
    from tautools.servers.start import exclude_node, plan_restart
    from tautools.servers.start import restart as start_again

    plan = plan_restart(name, workspace=workspace, fix=fix)
    if exclude is not None:
        plan = exclude_node(plan, exclude)
    if plan.diagnosis is not None:
        _show_diagnosis(plan.diagnosis)
    for change in plan.changes:
        click.secho(f"  {change}", bold=True)
    if fix and plan.changes and not yes:
        click.confirm("Start it with this change?", abort=True, err=True)
    server = start_again(plan, workspace=workspace)
    failures = {} if no_wait else watch_starts([server], timeout_s=None, quiet=False)
    if failures:
        raise failures[name]
    click.echo(f"{server.name}: {server.record.base_url}  model {server.record.model}")


def _show_diagnosis(found: Diagnosis) -> None:
    click.echo(f"Cause:    {found.cause}")
    for line in (found.evidence, *found.also):
        if line and line != found.cause:
            click.secho(f"  log:    {line[:400]}", dim=True)
    click.echo(f"Fix:      {found.fix}")
    for name, value in found.changes.items():
        value_text = "not set" if value is None else json.dumps(value)
        click.echo(f"Change:   {name} = {value_text}   (server relaunch --fix)")


@click.command(epilog="\b\nExamples:\n  tautools server shapes qwen3-8b\n  tautools server shapes qwen3-8b --json")
@click.argument("name")
@workspace_option
@json_option
@guard
def shapes(name: str, workspace: Path, as_json: bool) -> None:
    """Count the requests that met a shape which a Gaudi server had not warmed up, and propose wider buckets.

    Each of them waited for a compilation: many of them spoil a latency figure.
    """
    from tautools.files import read_lines
    from tautools.servers import Registry
    from tautools.servers.vllm.log import read_cold_shapes

    record = Registry(workspace).get(name)
    logs = [Path(log) for log in (record.log_out, record.log_err) if log and Path(log).exists()]
    cold = read_cold_shapes(line.decode(errors="replace") for log in logs for line in read_lines(log))
    if as_json:
        rows = [
            {
                "phase": phase.lower(),
                "batch_size": batch,
                "query_tokens": query,
                "context_blocks": blocks,
                "count": count,
            }
            for (phase, batch, query, blocks), count in cold.counts.items()
        ]
        click.echo(
            json.dumps({"name": name, "count": cold.total, "shapes": rows, "proposed": cold.proposed()}, indent=1)
        )
        return
    if not cold.total:
        click.echo(f"{name}: no request met a shape that was not warmed up.")
        return
    click.echo(f"{name}: {cold.total} requests met {len(cold.counts)} shapes that were not warmed up, and waited.")
    for (phase, batch, query, blocks), count in sorted(cold.counts.items(), key=lambda item: -item[1])[:12]:
        size = f"{query} tokens, " if phase == "PROMPT" else ""
        click.echo(f"  {count:4} x {phase.lower()}: batch {batch}, {size}{blocks} context blocks")
    click.echo("Buckets that hold them, for `env` of the server file; the warm-up takes longer by the graphs added:")
    for variable, value in cold.proposed().items():
        click.echo(f'  {variable}: "{value}"')


_SERVER_EPILOG = """\b
Examples:
  tautools server up sim-small sim-user        start two, wait until both are proven
  tautools server ls                           what runs, and how it is
  tautools server test http://gaudi001:8007/v1 prove anyone's server
  tautools server logs qwen3-8b -f             follow a log
  tautools server stop --all
"""


@click.group("server", epilog=_SERVER_EPILOG)
def server_command() -> None:
    """Start model servers, prove that they work, find and stop them."""


server_command.add_command(why)
server_command.add_command(relaunch)
server_command.add_command(cards)
server_command.add_command(plan)
server_command.add_command(script)
server_command.add_command(shapes)
server_command.add_command(when)


@server_command.command(
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
@lease_options
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
    site, tries, asked = how.pop("site"), how.pop("tries"), take_layout(how)
    terms = lease_terms(how.pop("idle_stop"), how.pop("lease"))
    chosen = [_chosen(name, workspace, **how) for name in names]
    where = load_site(site, workspace=workspace) if site else None
    check_resubmit(tries, where, no_wait=no_wait, one_job=asked.one_job)
    if dry:
        dry_run(chosen, asked, where, workspace)
        return
    servers = start_servers(chosen, asked, where, workspace)
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
        start_watchdogs(servers, terms)
    if as_json:
        click.echo(json.dumps([server_dict(server) for server in servers], indent=1))
    elif not failures:
        for server in servers:
            where_it_is = server.record.base_url or f"job {server.record.job_id}"
            click.echo(f"{server.name}: {where_it_is}  model {server.record.model}")
    for name, error in failures.items():
        click.secho(f"{name}: {error}", err=True, fg="red")
    if failures:
        raise SystemExit(1)


server_command.add_command(list_servers)
server_command.add_command(top)
server_command.add_command(export)
# `list` is what people type who know other tools; help shows one of the two.
server_command.add_command(
    click.Command("list", params=list_servers.params, callback=list_servers.callback, hidden=True)
)


server_command.add_command(attach)
server_command.add_command(test)
server_command.add_command(verify)


@server_command.command()
@click.argument("name")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="Lines of each file.")
@click.option("-f", "--follow", "keep_on", is_flag=True, help="Go on until the server ends or Ctrl-C.")
@workspace_option
@guard
def logs(name: str, lines: int, keep_on: bool, workspace: Path) -> None:
    """Print the end of a server's log.

    Output first and then errors; -f goes on with what is added.
    """
    from tautools.servers import Registry
    from tautools.servers.backends import require_fit
    from tautools.servers.server import follow
    from tautools.servers.state import log_lines

    record = Registry(workspace).get(name)
    require_fit(record, "logs")
    for line in follow(record, workspace=workspace, lines=lines) if keep_on else log_lines(record, lines):
        click.echo(line)


@server_command.command(epilog="\b\nExamples:\n  tautools server stop sim-small\n  tautools server stop --all")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "every", is_flag=True, help="All servers of the workspace.")
@workspace_option
@guard
def stop(names: tuple[str, ...], every: bool, workspace: Path) -> None:
    """Stop servers whole.

    SIGTERM, repeated, then SIGKILL for the whole process group; ends when nothing of them runs.
    """
    from tautools.servers import Registry, open_server
    from tautools.servers.backends import backend_of

    if every == bool(names):
        raise click.UsageError("give the names of servers, or --all")
    chosen = [record.name for record in Registry(workspace).list()] if every else list(names)
    servers = [open_server(name, workspace=workspace) for name in chosen]
    for server in servers:
        server.stop(partial(_say_signal, server.name))
        click.echo(f"{server.name}: {'stopped' if backend_of(server.record).owns else 'detached'}")
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
    if not params.simulated and not (skill is speed is None):
        raise click.UsageError(f"--skill and --speed are for simulated servers; {name} is not one")
    show_advice(params)
    return params
