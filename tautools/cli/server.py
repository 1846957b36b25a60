"""`tautools server`: start model servers, stop them, read their logs, diagnose and restart those that failed."""

from __future__ import annotations

import functools
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.commands import GroupedOption, LazyGroup, command
from tautools.cli.options import (
    ParamsName,
    dry_run_option,
    json_option,
    set_option,
    site_option,
    workspace_option,
)
from tautools.cli.output import emit, show_failures, watch_starts
from tautools.cli.server_plan import layout_options, show_dry_run, start_servers
from tautools.cli.server_status import server_dict
from tautools.errors import TautoolsError
from tautools.files import read_lines
from tautools.params import load_server
from tautools.servers import Registry, diagnose_log, open_server
from tautools.servers.backends import backend_of, require_fit
from tautools.servers.lease import LeaseTerms, kernel_process, owner_process, start_watchdog
from tautools.servers.restart import exclude_node, held_node, plan_restart, resubmit
from tautools.servers.restart import restart as start_again
from tautools.servers.vllm.flags import warnings_for
from tautools.servers.vllm.log import read_cold_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tautools.cli.server_plan import LayoutRequest
    from tautools.params.models import ServerParams, SiteParams
    from tautools.servers import Diagnosis, Server
    from tautools.servers.vllm.log import ColdShapes

_HERE, _PLAN, _STATUS, _ADDRESS = (f"tautools.cli.server{part}" for part in ("", "_plan", "_status", "_address"))

_SECTIONS = {
    "Start and stop": {
        "plan": ("Show which card holds what, and when it would start.", f"{_PLAN}:plan"),
        "up": ("Start servers and wait until each is verified.", f"{_HERE}:up"),
        "stop": ("Stop servers with everything they started.", f"{_HERE}:stop"),
        "restart": ("Start a server again, as it was or with a fix.", f"{_HERE}:restart"),
        "script": ("Print the Slurm job script of a server.", f"{_PLAN}:script"),
    },
    "Look": {
        "ls": ("List servers with their state and load now.", f"{_STATUS}:list_servers"),
        "top": ("Watch servers until Ctrl-C.", f"{_STATUS}:top"),
        "logs": ("Print the end of a server's log.", f"{_HERE}:logs"),
        "diagnose": ("Say why a server failed, and what helps.", f"{_HERE}:diagnose"),
        "cards": ("Show this node's cards: memory, and who holds them.", f"{_STATUS}:cards"),
    },
    "Check and connect": {
        "verify": ("Verify a registered server again, or any address.", f"{_ADDRESS}:verify"),
        "test": ("Verify any server by its address.", f"{_ADDRESS}:test"),
        "attach": ("Register servers that run already.", f"{_ADDRESS}:attach"),
        "export": ("Print export lines for shell scripts.", f"{_ADDRESS}:export"),
    },
}

_SERVER_EPILOG = """\b
Examples:
  tautools server up sim-small sim-user        start two, wait until both are verified
  tautools server ls                           what runs, and how it is
  tautools server test http://gaudi001:8007/v1 verify anyone's server
  tautools server logs qwen3-8b -f             follow a log
  tautools server stop --all
"""


# `list` is what people type who know other tools; help shows one of the two.
@click.group("server", cls=LazyGroup, verbs=_SECTIONS, same_as={"list": "ls"}, epilog=_SERVER_EPILOG)
def server_command() -> None:
    """Start model servers, verify that they work, find and stop them."""


_LEASE_GROUP = "End by itself"


def lease_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--idle-stop` and `--lease`; the command gets `terms: LeaseTerms | None`."""

    @click.option("--idle-stop", type=click.FloatRange(0, min_open=True), metavar="MIN", cls=GroupedOption,
                  group=_LEASE_GROUP, help="Stop after minutes of no request.")  # fmt: skip
    @click.option("--lease", metavar="PID|kernel", cls=GroupedOption, group=_LEASE_GROUP,
                  help="Stop when this process, or the notebook kernel it is typed in, is gone and nothing uses the "
                  "server.")  # fmt: skip
    @functools.wraps(verb)
    def with_lease(idle_stop: float | None, lease: str | None, **options: Any) -> Any:
        return verb(terms=_lease_terms(idle_stop, lease), **options)

    return with_lease


def _lease_terms(idle_stop: float | None, lease: str | None) -> LeaseTerms | None:
    """Return when servers end by themselves, None when never; an owner that does not run is an error."""
    if idle_stop is None and lease is None:
        return None
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
    """Start a watchdog for each server that has not failed; one that cannot be started is a warning."""
    if terms is None:
        return
    for server in servers:
        if server.state().state.final:
            continue
        try:
            start_watchdog(server, terms)
        except TautoolsError as error:
            click.secho(f"{server.name} will not end by itself: {error}", err=True, fg="red")


@command(
    "tautools server up sim-small sim-user",
    "tautools server up sim-small --skill 0.9 --port 8007",
    "tautools server up sim-small --replicas 4 --start-port 1900 --stagger loaded",
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
@dry_run_option
@click.option("--resubmit", "tries", type=click.IntRange(0, 20), default=0, metavar="N",
              help="Submit a job up to N times more, without the node, when others hold its cards there.")  # fmt: skip
@lease_options
@workspace_option
@json_option
def up(
    names: tuple[str, ...],
    layout: LayoutRequest,
    site: SiteParams,
    terms: LeaseTerms | None,
    workspace: Path,
    **options: Any,
) -> None:
    """Start servers and wait until each is verified.

    NAME is a file under params/servers/ of the workspace or of the package. All are started side by side, unless
    --stagger says otherwise. Models get idle cards of this node; `server plan` shows which.
    """
    if options["port"] is not None and len(names) > 1:
        raise click.UsageError("--port is for one server; leave it out to give each a free port")
    if len(set(names)) < len(names):
        raise click.UsageError("a name is given twice; copy its file under params/servers/ to run it twice")
    chosen = [_chosen(name, workspace, options) for name in names]
    tries, as_json = options["tries"], options["as_json"]
    _check_resubmit(tries, site, no_wait=options["no_wait"], one_job=layout.one_job)
    if options["dry_run"]:
        show_dry_run(chosen, layout, site, workspace)
        return
    servers, failures = start_servers(chosen, layout, site, workspace), dict[str, TautoolsError]()
    try:
        if not options["no_wait"]:
            failures = _wait_and_resubmit(servers, tries, workspace, timeout_s=options["timeout_s"], quiet=as_json)
    except KeyboardInterrupt:
        click.echo(f"{', '.join(names)} may still start: `tautools server ls`, `tautools server stop NAME`.", err=True)
        raise
    finally:
        start_watchdogs(servers, terms)
    if as_json or not failures:
        _show_started(servers, as_json=as_json)
    show_failures(failures)


def _chosen(name: str, workspace: Path, options: dict[str, Any]) -> ServerParams:
    """Return a server file with the flags laid over it; what may be wrong with it is a warning."""
    given = {"port": options["port"], "simulate.skill": options["skill"], "simulate.speed": options["speed"]}
    words = [f"{field}={value}" for field, value in given.items() if value is not None]
    params = load_server(name, workspace=workspace, overrides=[*options["overrides"], *words])
    if params.simulated:
        return params
    if not (options["skill"] is options["speed"] is None):
        raise click.UsageError(f"--skill and --speed are for simulated servers; {name} is not one")
    for line in warnings_for(params):
        click.secho(f"{params.name}: {line}", err=True, fg="yellow")
    return params


def _show_started(servers: Sequence[Server], *, as_json: bool) -> None:
    if as_json:
        emit([server_dict(server) for server in servers], as_json=True)
        return
    for server in servers:
        click.echo(f"{server.name}: {server.record.base_url or f'job {server.record.job_id}'}  "
                   f"model {server.record.model}")  # fmt: skip


def _check_resubmit(tries: int, site: SiteParams, *, no_wait: bool, one_job: bool) -> None:
    """Refuse `--resubmit` where nothing waits for the jobs, or several servers share one."""
    if tries and one_job:
        raise click.UsageError("--resubmit is for a job of one server; leave out --one-job")
    if tries and no_wait:
        raise click.UsageError("--resubmit waits for the jobs; leave out --no-wait")
    if tries and not site.uses_slurm:
        raise click.UsageError("--resubmit is for a site with Slurm, such as --site sol-gaudi")


def _wait_and_resubmit(
    servers: list[Server], tries: int, workspace: Path, *, timeout_s: float | None, quiet: bool
) -> dict[str, TautoolsError]:
    """Wait for all servers and return what went wrong, by name; jobs whose cards were held are submitted again.

    A server that was submitted again takes the place of its former launch in `servers`.
    """
    failures = watch_starts(servers, timeout_s=timeout_s, quiet=quiet)
    for number in range(1, tries + 1):
        again = []
        for place, server in enumerate(servers):
            node = held_node(server.record) if server.name in failures else None
            if node is None:
                continue
            servers[place] = resubmit(server.record, node, workspace=workspace)
            again.append(servers[place])
            reason = f"the cards of {node} are held by others; submitted again without it"
            click.echo(f"{server.name}: {reason}, job {servers[place].record.job_id} ({number} of {tries})", err=True)
        if not again:
            break
        for server in again:
            del failures[server.name]
        failures |= watch_starts(again, timeout_s=timeout_s, quiet=quiet)
    return failures


@command("tautools server logs qwen3-8b -f")
@click.argument("name")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="Lines of each file.")
@click.option("-f", "--follow", "keep_on", is_flag=True, help="Go on until the server ends or Ctrl-C.")
@workspace_option
def logs(name: str, lines: int, keep_on: bool, workspace: Path) -> None:
    """Print the end of a server's log.

    Output first and then errors; -f goes on with what is added.
    """
    server = open_server(name, workspace=workspace)
    require_fit(server.record, "logs")
    for line in server.follow(lines) if keep_on else server.tail(lines):
        click.echo(line)


@command("tautools server stop sim-small", "tautools server stop --all")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "every", is_flag=True, help="All servers of the workspace.")
@workspace_option
def stop(names: tuple[str, ...], every: bool, workspace: Path) -> None:
    """Stop servers with everything they started.

    SIGTERM, repeated, then SIGKILL for the whole process group; ends when nothing of them runs. One that was attached
    is only forgotten.
    """
    if every == bool(names):
        raise click.UsageError("give the names of servers, or --all")
    chosen = [record.name for record in Registry(workspace).list()] if every else list(names)
    servers = [open_server(name, workspace=workspace) for name in chosen]
    for server in servers:
        server.stop(partial(_show_signal, server.name))
        click.echo(f"{server.name}: {'stopped' if backend_of(server.record).owns else 'detached'}")
    if not servers:
        click.echo("No server is registered.")


def _show_signal(name: str, sent: str) -> None:
    click.echo(f"{name}: {sent}")


@command("tautools server diagnose qwen3-8b", "tautools server diagnose logs/user_1.out errors/user_1.err")
@click.argument("sources", nargs=-1, required=True, metavar="NAME|LOG...")
@workspace_option
@json_option
def diagnose(sources: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Say why a server failed, and what helps.

    NAME is a registered server; LOG are log files of any vLLM or Slurm job, read in the given order. Of a Gaudi server
    it also counts the requests that met a shape which was not warmed up, and proposes wider buckets: each of them
    waited for a compilation, and many of them spoil a latency figure.
    """
    files = [Path(source) for source in sources if Path(source).is_file()]
    if len(files) < len(sources) and len(sources) > 1:
        raise click.UsageError("give the name of one server, or log files that exist")
    server = None if files else open_server(sources[0], workspace=workspace)
    if server is not None:
        files = [log for log in backend_of(server.record).logs(server.record) if log.exists()]
    lines = [line.decode(errors="replace") for file in files for line in read_lines(file)]
    cause = diagnose_log(lines) if server is None else server.cause()
    cold = read_cold_shapes(lines)

    def show() -> None:
        _show_diagnosis(cause)
        if cold.total:
            _show_cold_shapes(cold)

    emit(asdict(cause) | {"cold_shapes": _cold_shapes_dict(cold)}, as_json=as_json, text=show)


def _show_diagnosis(found: Diagnosis) -> None:
    click.echo(f"Cause:    {found.cause}")
    for line in (found.evidence, *found.also):
        if line and line != found.cause:
            click.secho(f"  log:    {line[:400]}", dim=True)
    click.echo(f"Fix:      {found.fix}")
    for name, value in found.changes.items():
        shown = "not set" if value is None else json.dumps(value)
        click.echo(f"Change:   {name} = {shown}   (server restart --fix)")


def _cold_shapes_dict(cold: ColdShapes) -> dict[str, Any]:
    rows = [
        {"phase": phase.lower(), "batch_size": batch, "query_tokens": query, "context_blocks": blocks, "count": count}
        for (phase, batch, query, blocks), count in cold.counts.items()
    ]
    return {"count": cold.total, "shapes": rows, "proposed": cold.proposed()}


def _show_cold_shapes(cold: ColdShapes) -> None:
    click.echo(f"{cold.total} requests met {len(cold.counts)} shapes that were not warmed up, and waited.")
    for (phase, batch, query, blocks), count in sorted(cold.counts.items(), key=lambda item: -item[1])[:12]:
        size = f"{query} tokens, " if phase == "PROMPT" else ""
        click.echo(f"  {count:4} x {phase.lower()}: batch {batch}, {size}{blocks} context blocks")
    click.echo("Buckets that hold them, for `env` of the server file; the warm-up takes longer by the graphs added:")
    for variable, value in cold.proposed().items():
        click.echo(f'  {variable}: "{value}"')


@command(
    "tautools server restart qwen3-8b",
    "tautools server restart qwen3-8b --fix --yes",
    "tautools server restart qwen3-32b --exclude gaudi003",
)
@click.argument("name")
@click.option("--fix", is_flag=True, help="Change what its log asks for; shown before it is done.")
@click.option("--exclude", metavar="[NODE]", is_flag=False, flag_value="",
              help="Not on this node.  [NODE: the log's held one]")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--no-wait", is_flag=True, help="Return at once; `server ls` shows how far it is.")
@dry_run_option
@workspace_option
def restart(name: str, fix: bool, exclude: str | None, workspace: Path, **how: bool) -> None:
    """Start a server again as it was started, or with what its log asks for, or away from a node.

    A changed value is written into its record and shown by `server ls --json`; the server file stays as it is.
    """
    plan = plan_restart(name, workspace=workspace, fix=fix)
    if exclude is not None:
        plan = exclude_node(plan, exclude)
    if plan.diagnosis is not None:
        _show_diagnosis(plan.diagnosis)
    for change in plan.changes:
        click.secho(f"  {change}", bold=True)
    if how["dry_run"]:
        click.echo(f"{name} would be started again{' with this change' if plan.changes else ' as it was'}.")
        return
    if fix and plan.changes and not how["yes"]:
        click.confirm("Start it with this change?", abort=True, err=True)
    server = start_again(plan, workspace=workspace)
    failures = {} if how["no_wait"] else watch_starts([server])
    if failures:
        raise failures[name]
    _show_started([server], as_json=False)
