"""`tautools server`: the group of the verbs about model servers, and those that start and stop them."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from tautools.cli.commands import GroupedOption, LazyGroup, command, examples_text, refuse_if, wants_json
from tautools.cli.options import (
    LayoutRequest,
    ParamsName,
    dry_run_option,
    gathered,
    layout_options,
    site_options,
    usual_options,
    workspace_option,
)
from tautools.cli.output import show_failures, show_servers, watch_starts
from tautools.cli.server_plan import show_dry_run
from tautools.cli.server_status import show_diagnosis
from tautools.errors import TautoolsError
from tautools.params import load_server
from tautools.params.models import ServerParams, SiteParams
from tautools.servers import Registry, Server, launch_all, launch_one_job, open_server
from tautools.servers.backends import backend_of
from tautools.servers.lease import LeaseTerms, kernel_process, owner_process, start_watchdog
from tautools.servers.start import Restart, exclude_node, held_node, plan_restart
from tautools.servers.start import restart as start_again
from tautools.servers.vllm.flags import warnings_for

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
        "list": ("", f"{_STATUS}:list_servers"),  # what people type who know other tools
        "ls": ("List servers with their state and load now.", f"{_STATUS}:list_servers"),
        "top": ("Watch servers until Ctrl-C.", f"{_STATUS}:top"),
        "logs": ("Print the end of a server's log.", f"{_STATUS}:logs"),
        "diagnose": ("Say why a server failed, and what helps.", f"{_STATUS}:diagnose"),
        "cards": ("Show this node's cards: memory, and who holds them.", f"{_STATUS}:cards"),
    },
    "Check and connect": {
        "verify": ("Verify a registered server again, or any address.", f"{_ADDRESS}:verify"),
        "test": ("Verify any server by its address.", f"{_ADDRESS}:verify"),
        "attach": ("Register servers that run already.", f"{_ADDRESS}:attach"),
        "export": ("Print export lines for shell scripts.", f"{_ADDRESS}:export"),
    },
}

_EPILOG = examples_text(
    "tautools server up sim-small sim-user        start two, wait until both are verified",
    "tautools server ls                           what runs, and how it is",
    "tautools server test http://gaudi001:8007/v1 verify anyone's server",
    "tautools server logs qwen3-8b -f             follow a log",
    "tautools server stop --all",
)


@click.group("server", cls=LazyGroup, verbs=_SECTIONS, epilog=_EPILOG)
def server_command() -> None:
    """Start model servers, verify that they work, find and stop them."""


def _lease_terms(idle_stop: float | None, lease: str | None) -> LeaseTerms | None:
    """Return when servers end by themselves, None when never; an owner that does not run is an error."""
    wrong = lease not in {None, "kernel"} and not re.fullmatch("[0-9]+", str(lease))
    refuse_if(wrong, f"--lease {lease!r}: give the pid of a process, or the word kernel")
    if idle_stop is None and lease is None:
        return None
    owner = None if lease is None else kernel_process() if lease == "kernel" else owner_process(int(lease))
    idle_s = None if idle_stop is None else idle_stop * 60
    return LeaseTerms(idle_s=idle_s, owner=owner, every_s=min(15.0, max(0.5, (idle_s or 60) / 4)))


_lease_option = partial(click.option, cls=GroupedOption, group="End by itself")

lease_options = gathered(
    "terms",
    _lease_terms,
    _lease_option("--idle-stop", type=click.FloatRange(0, min_open=True), metavar="MIN",
                  help="Stop after minutes of no request."),
    _lease_option("--lease", metavar="PID|kernel",
                  help="Stop when this process, or the notebook kernel it is typed in, is gone and nothing uses the "
                  "server."),
)  # fmt: skip


def start_servers(
    servers: Sequence[ServerParams], layout: LayoutRequest, site: SiteParams, workspace: Path
) -> list[Server]:
    """Start the arranged servers, all or none; errors as `tautools.servers.launch_all`."""
    if layout.one_job:
        return launch_one_job(servers, workspace=workspace, site=site)
    say = partial(click.echo, err=True)
    return launch_all(servers, workspace=workspace, site=site, gpu_ids=layout.gpu_ids, force=layout.force, emit=say)


def start_watchdogs(servers: Sequence[Server], terms: LeaseTerms | None) -> None:
    """Start a watchdog for each server that has not failed; one that cannot be started is a warning."""
    for server in servers:
        try:
            if terms is not None and not server.state().state.final:
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
@site_options
@click.option("--timeout", "timeout_s", type=click.FloatRange(1), help="Most seconds to wait.  [default: no progress]")
@click.option("--no-wait", is_flag=True, help="Return at once; `server ls` shows how far they are.")
@dry_run_option
@click.option("--resubmit", "tries", type=click.IntRange(0, 20), default=0, metavar="N",
              help="Submit a job up to N times more, without the node, when others hold its cards there.")  # fmt: skip
@lease_options
@usual_options
def up(names: tuple[str, ...], layout: LayoutRequest, site: SiteParams, workspace: Path, **options: Any) -> None:
    """Start servers and wait until each is verified.

    NAME is a file under params/servers/ of the workspace or of the package. All are started side by side, unless
    --stagger says otherwise. Models get idle cards of this node; `server plan` shows which.
    """
    tries = options["tries"]
    refuse_if(options["port"] and len(names) > 1, "--port is for one server; leave it out to give each a free port")
    twice = len(set(names)) < len(names)
    refuse_if(twice, "a name is given twice; copy its file under params/servers/ to run it twice")
    chosen_cards = layout.one_job and layout.gpu_ids is not None
    refuse_if(chosen_cards, "--gpu-ids: Slurm chooses the cards of a job; leave it out")
    refuse_if(tries and layout.one_job, "--resubmit is for a job of one server; leave out --one-job")
    refuse_if(tries and options["no_wait"], "--resubmit waits for the jobs; leave out --no-wait")
    refuse_if(tries and not site.uses_slurm, "--resubmit is for a site with Slurm, such as --site sol-gaudi")
    chosen = layout.arranged([_chosen(name, workspace, options) for name in names])
    if options["dry_run"]:
        show_dry_run(chosen, layout, site, workspace)
        return
    servers, failures = start_servers(chosen, layout, site, workspace), dict[str, TautoolsError]()
    try:
        if not options["no_wait"]:
            failures = _wait_and_resubmit(servers, tries, workspace, options["timeout_s"])
    except KeyboardInterrupt:
        click.echo(f"{', '.join(names)} may still start: `tautools server ls`, `tautools server stop NAME`.", err=True)
        raise
    finally:
        start_watchdogs(servers, options["terms"])
    if wants_json() or not failures:
        show_servers(servers)
    show_failures(failures)


def _chosen(name: str, workspace: Path, options: dict[str, Any]) -> ServerParams:
    """Return a server file with the flags laid over it; what may be wrong with it is a warning."""
    given = {"port": options["port"], "simulate.skill": options["skill"], "simulate.speed": options["speed"]}
    words = [f"{field}={value}" for field, value in given.items() if value is not None]
    params = load_server(name, workspace=workspace, overrides=[*options["overrides"], *words])
    if params.simulated:
        return params
    simulating = options["skill"] is not None or options["speed"] is not None
    refuse_if(simulating, f"--skill and --speed are for simulated servers; {name} is not one")
    for line in warnings_for(params):
        click.secho(f"{params.name}: {line}", err=True, fg="yellow")
    return params


def _wait_and_resubmit(
    servers: list[Server], tries: int, workspace: Path, timeout_s: float | None
) -> dict[str, TautoolsError]:
    """Wait for all servers and return what went wrong, by name; jobs whose cards were held are submitted again.

    A server that was submitted again takes the place of its former launch in `servers`.
    """
    failures = watch_starts(servers, timeout_s)
    for number in range(1, tries + 1):
        failed = [place for place, server in enumerate(servers) if server.name in failures]
        held = {place: node for place in failed if (node := held_node(servers[place].record))}
        for place, node in held.items():
            plan = exclude_node(Restart(servers[place].record), node)
            servers[place] = server = start_again(plan, workspace=workspace)
            del failures[server.name]
            reason = f"the cards of {node} are held by others; submitted again without it"
            click.echo(f"{server.name}: {reason}, job {server.record.job_id} ({number} of {tries})", err=True)
        if not held:
            break
        failures |= watch_starts([servers[place] for place in held], timeout_s)
    return failures


@command("tautools server stop sim-small", "tautools server stop --all")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--all", "every", is_flag=True, help="All servers of the workspace.")
@workspace_option
def stop(names: tuple[str, ...], every: bool, workspace: Path) -> None:
    """Stop servers with everything they started.

    SIGTERM, repeated, then SIGKILL for the whole process group; ends when nothing of them runs. One that was attached
    is only forgotten.
    """
    refuse_if(every == bool(names), "give the names of servers, or --all")
    chosen = [record.name for record in Registry(workspace).list()] if every else names
    for server in [open_server(name, workspace=workspace) for name in chosen]:
        server.stop(partial(_show_signal, server.name))
        click.echo(f"{server.name}: {'stopped' if backend_of(server.record).owns else 'detached'}")
    if not chosen:
        click.echo("No server is registered.")


def _show_signal(name: str, sent: str) -> None:
    click.echo(f"{name}: {sent}")


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
        show_diagnosis(plan.diagnosis)
    for change in plan.changes:
        click.secho(f"  {change}", bold=True)
    if how["dry_run"]:
        click.echo(f"{name} would be started again{' with this change' if plan.changes else ' as it was'}.")
        return
    if fix and plan.changes and not how["yes"]:
        click.confirm("Start it with this change?", abort=True, err=True)
    server = start_again(plan, workspace=workspace)
    if not how["no_wait"]:
        for failure in watch_starts([server]).values():
            raise failure
    show_servers([server])
