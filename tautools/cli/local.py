"""`tautools local`: start servers on this machine, run the domains in turn, stop the servers."""

import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tautools.cli.commands import EXIT_INTERRUPTED, EXIT_UNFINISHED, ListOption, command, exit_if, refuse_if, wants_json
from tautools.cli.options import (
    LayoutRequest,
    dry_run_option,
    run_flags,
    run_options,
    site_options,
    stagger_value,
    usual_options,
)
from tautools.cli.output import cell_progress, cell_result_dict, emit, pick, watch_starts
from tautools.cli.run import plan_dict, plan_text
from tautools.cli.server import start_servers, start_watchdogs
from tautools.errors import ParamsError
from tautools.files import ensure_folder, expand_home, write_atomic
from tautools.params import find_params, list_params, load_all, load_server, resolve_run
from tautools.params.models import RoleParams, ServerParams
from tautools.params.paths import looks_like_path
from tautools.params.resolve import apply_overrides
from tautools.params.yaml import ParamsTree, validated
from tautools.run import Cell, CellResult, prepare_cell, run_cell
from tautools.servers import Registry, attach_all, endpoints
from tautools.servers.attaching import read_model_config, write_model_config
from tautools.servers.lease import LeaseTerms, owner_process

# ToolOrchestra's file of addresses: written while our servers run, read with `--skip-server-start`.
MODEL_CONFIG = "model_config_local.json"

_STARTING = {"num_servers", "gpu_ids", "start_port", "stagger", "server_timeout", "tool_call_parser"}
_STARTING |= {"log_dir", "force", "site", "overrides"}  # they only mean something when servers are started

_HOSTED = {  # names of hosted models, by their beginning, and where they answer
    r"(gpt-\d|chatgpt-|o\d)": {"base_url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY"},
    r"claude-": {"provider": "anthropic"},
    r"gemini-": {"provider": "gemini"},
}


def agent_server(model: str, *, workspace: Path, overrides: Sequence[str], tool_call_parser: str) -> ServerParams:
    """Return the server of the agent: a server file by its name, the file that serves the model, or one made up here.

    `model` is a file under `params/servers/`, a hub id, or a folder with weights; what looks like one of them and is
    none is a `ParamsError`. `tool_call_parser` is for a model without a server file.
    """
    if model in list_params("servers", workspace) or model.endswith((".yaml", ".yml")):
        return load_server(model, workspace=workspace, overrides=overrides)
    for name, params in load_all(ServerParams, workspace)[0].items():
        if params.model == model:
            return load_server(name, workspace=workspace, overrides=overrides)
    folder = expand_home(model)
    if folder.is_dir():
        model = str(folder.resolve())
    elif model.startswith(("/", ".", "~")):
        raise ParamsError(
            f"--agent-model: there is no folder {model}.",
            next_step="Name a folder with weights, a model of the hub, or a file under params/servers/.",
        )
    elif "/" not in model:
        find_params("servers", model, workspace)  # a model of the hub has its owner before it; this is a wrong name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-._").lower()[:60]
    data = {"name": name or "agent", "model": model, "vllm": {"tool_call_parser": tool_call_parser}}
    tree = ParamsTree("the command line", data)
    apply_overrides(tree, overrides)
    return validated(ServerParams, tree.data, tree)


def running_role(name: str, *, workspace: Path) -> RoleParams | None:
    """Return the role that a registered server plays, found by its name, its file's name or its model; None without."""
    records = Registry(workspace).list()
    if any(name in {record.name, record.spec.get("name")} for record in records):
        return RoleParams(server=name)
    serving = [record for record in records if record.model == name]
    if serving and looks_like_path(name):  # as a model it would have to be a folder here
        return RoleParams(server=serving[0].spec.get("name") or serving[0].name)
    return RoleParams(model=name) if serving else None


def user_role(name: str | None, agent: RoleParams, *, workspace: Path) -> tuple[RoleParams, ServerParams | None]:
    """Return the customer's role, and the server to start for it when it has a file and does not run.

    `name` is a running server, a server file, a hosted model such as `gpt-4o`, or the model of a running server;
    without one the agent plays the customer too.
    """
    if name is None:
        return agent, None
    running = running_role(name, workspace=workspace)
    if running is not None:
        return running, None
    if name in list_params("servers", workspace):
        return RoleParams(server=name), load_server(name, workspace=workspace)
    for beginning, where in _HOSTED.items():
        if re.match(beginning, name):
            return RoleParams.model_validate({"model": name} | where), None
    return RoleParams(model=name), None


@command(
    "tautools local --agent-model qwen3-8b --num-servers 4 --gpu-ids 0 1 2 3 --start-port 1900",
    "tautools local --agent-model sim-small --domains retail airline --limit 5 --dry-run",
    "tautools local --agent-model ~/ckpt/Orchestrator-8B --user-llm gpt-4o --stagger-delay 30 --server-timeout 900",
    name="local",
    notes="Exit codes: 0 all done, 2 bad input, 3 some work is still pending (run it again), 130 interrupted.",
)
@click.option("--agent-model", "--model", required=True, help="Server file, model of the hub, or folder with weights.")
@click.option("--user-llm", "--user-model", help="Customer: server, hosted model such as gpt-4o.  [default: the agent]")
@click.option("--num-servers", "--replicas", type=click.IntRange(1, 256), default=1, show_default=True, help="Servers.")
@click.option(
    "--gpu-ids", cls=ListOption, numbers=True, help="Use these cards only, such as 0 1 2 3.  [default: idle ones]"
)
@click.option("--start-port", type=click.IntRange(1, 65535), help="First port; others follow.  [default: free ones]")
@click.option("--stagger-delay", "--stagger", "stagger", metavar="SECONDS|loaded", callback=stagger_value,
              default="loaded", show_default=True,
              help="Seconds between two starts, or `loaded`: when the former has loaded its weights.")  # fmt: skip
@click.option("--server-timeout", type=click.FloatRange(1), help="Most seconds to wait.  [default: no progress]")
@click.option("--skip-server-start", is_flag=True,
              help=f"Use servers of the workspace that run already, or those of {MODEL_CONFIG}.")  # fmt: skip
@click.option("--tool-call-parser", default="hermes", show_default=True, help="For a model without a server file.")
@click.option("--domains", "--envs", "domains", cls=ListOption, default=("retail,telecom,airline",), show_default=True,
              help="In turn.")  # fmt: skip
@run_options("strategy", "num_trials", "tasks.limit", "concurrency")
@click.option("--max-steps", type=click.IntRange(1), default=200, show_default=True, help="Of one conversation.")
@click.option("--output-dir", type=click.Path(path_type=Path, file_okay=False),
              help="Copy each domain's results there, as DOMAIN.json.")  # fmt: skip
@click.option("--log-dir", type=click.Path(path_type=Path, file_okay=False), help="Link the servers' logs there.")
@click.option("--force", is_flag=True, help="Use cards that are in use.")
@site_options
@dry_run_option
@usual_options
@click.pass_context
def local_command(ctx: click.Context, /, workspace: Path, **options: Any) -> None:
    """Start N servers of one model, run the domains in turn, stop the servers.

    What is finished is never run again: type the same command to go on. Everything is checked before a server starts.
    By default each server gets 8 conversations at a time.
    """
    given = {
        str(each.name): each.opts[0]
        for each in ctx.command.params
        if ctx.get_parameter_source(str(each.name)) is ParameterSource.COMMANDLINE
    }
    agent, user, servers = _roles_and_servers(workspace, options, given)
    if "site" not in given:  # the workspace's own site, with its servers as processes of this machine
        options["site"] = options["site"].model_copy(update={"scheduler": "none"})
    if options["user_llm"] is None:
        click.echo("No --user-llm is given: the agent's model plays the customer, too.", err=True)
    flags = {"concurrency": 8 * options["num_servers"], "limits.max_steps": options["max_steps"]} | run_flags(options)
    for name, role in (("agent", agent), ("user", user)):
        flags |= {f"{name}.{key}": value for key, value in role.model_dump(exclude_defaults=True).items()}
    runs = [resolve_run({"env": domain} | flags, workspace=workspace).params for domain in options["domains"]]
    cells = [prepare_cell(run, workspace=workspace) for run in runs]
    if options["dry_run"]:
        _show_plan(cells, servers)
        return
    results = _run_domains(cells, servers, workspace, options)
    if wants_json():
        emit([cell_result_dict(result) for result in results])
    exit_if(results[-1].interrupted, EXIT_INTERRUPTED)
    exit_if(not all(result.finished for result in results), EXIT_UNFINISHED)


def _run_domains(
    cells: Sequence[Cell], servers: Sequence[ServerParams], workspace: Path, options: dict[str, Any]
) -> list[CellResult]:
    """Run the domains in turn until one is interrupted; a SIGTERM, which a job's end sends, interrupts too."""
    starting = {name for params in servers for name in (params.name, params.serves)}
    for name, role in (("agent", cells[0].run.agent), ("user", cells[0].run.user)):
        if (role.server or role.model) not in starting:
            endpoints(role, workspace=workspace, role_name=name)  # raises where a running server or its key is missing
    results = []
    with contextlib.ExitStack() as cleanup:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        cleanup.callback(signal.signal, signal.SIGTERM, before)
        if servers:
            _start(servers, workspace, options, cleanup)
        for cell in cells:
            with cell_progress(cell) as show:
                result = run_cell(cell, on_event=show)
            results.append(result)
            if not wants_json():
                click.echo(str(result))
            if options["output_dir"] is not None and result.view is not None:
                file = ensure_folder(options["output_dir"]) / f"{cell.run.env}.json"
                write_atomic(file, result.view.read_bytes())
            if result.interrupted:
                break
    return results


def _roles_and_servers(
    workspace: Path, options: dict[str, Any], given: Mapping[str, str]
) -> tuple[RoleParams, RoleParams, list[ServerParams]]:
    """Return the two roles and the servers to start for them."""
    model, files = options["agent_model"], list_params("servers", workspace)
    if options["skip_server_start"]:
        unused = ", ".join(option for name, option in given.items() if name in _STARTING)
        refuse_if(unused, f"{unused}: for servers that are started; leave out --skip-server-start")
        agent = _attached_role(model, workspace, dry_run=options["dry_run"])
        if agent is None:
            agent = RoleParams(model=load_server(model, workspace=workspace).serves if model in files else model)
        return agent, user_role(options["user_llm"], agent, workspace=workspace)[0], []
    overrides, parser = options["overrides"], options["tool_call_parser"]
    params = agent_server(model, workspace=workspace, overrides=overrides, tool_call_parser=parser)
    agent = RoleParams(server=params.name if params.name in files else None, model=params.serves)
    user, user_server = user_role(options["user_llm"], agent, workspace=workspace)
    count = (f"{params.name}={options['num_servers']}",)
    layout = LayoutRequest(count, start_port=options["start_port"], stagger=options["stagger"])
    own = [user_server] if user_server is not None and user_server.name != params.name else []
    return agent, user, [*layout.arranged([params]), *own]


def _attached_role(model: str, workspace: Path, *, dry_run: bool) -> RoleParams | None:
    """Return the role of a registered server; those of the workspace's `model_config_local.json` are attached first."""
    role = running_role(model, workspace=workspace)
    file = workspace / MODEL_CONFIG
    if role is not None or dry_run or not file.is_file():
        return role
    servers, failures = attach_all(read_model_config(file), workspace=workspace)
    for name, error in failures.items():
        click.secho(f"{name}: {error}", err=True, fg="red")
    if servers:
        names = ", ".join(server.name for server in servers)
        click.echo(f"Attached from {MODEL_CONFIG}: {names}; `tautools server stop NAME` forgets one.", err=True)
    return running_role(model, workspace=workspace)


def _show_plan(cells: Sequence[Cell], servers: Sequence[ServerParams]) -> None:
    plans = [plan_dict(cell) for cell in cells]
    starting = [pick(params, "name model replicas") for params in servers]
    lines = [f"{params.name}: {params.replicas} x {params.model} would be started" for params in servers]
    lines += [plan_text(cell, plan) for cell, plan in zip(cells, plans, strict=True)]
    emit({"servers": starting, "domains": plans}, text="\n".join(lines))


def _start(
    servers: Sequence[ServerParams], workspace: Path, options: dict[str, Any], cleanup: contextlib.ExitStack
) -> None:
    """Start the servers and verify them; `cleanup` stops all of them, whatever happened.

    If this process is killed, a watchdog of each server stops it. While they run, their addresses are in the
    workspace's `model_config_local.json`; a file that is there is kept.
    """
    layout = LayoutRequest(gpu_ids=options["gpu_ids"], force=options["force"])
    started = start_servers(servers, layout, options["site"], workspace)

    @cleanup.callback
    def stop() -> None:
        for server in started:
            server.stop()
        click.echo(f"{len(started)} servers stopped", err=True)

    terms = LeaseTerms(owner=owner_process(os.getpid()), quiet_s=10.0, every_s=5.0)
    start_watchdogs(started, terms)
    aliases = [server.record.alias for server in started]
    logs = [Path(log) for server in started for log in (server.record.log_out, server.record.log_err)]
    for log in logs if options["log_dir"] is not None else ():
        link = ensure_folder(options["log_dir"]) / log.name
        link.unlink(missing_ok=True)
        link.symlink_to(log)
    for error in watch_starts(started, timeout_s=options["server_timeout"]).values():
        raise error
    # One that lost its port and was started again is another launch, which has no watchdog yet.
    again = [each for each, alias in zip(started, aliases, strict=True) if each.record.alias != alias]
    start_watchdogs(again, terms)
    file = workspace / MODEL_CONFIG
    if not file.exists():
        write_model_config(file, [server.record for server in started])
        cleanup.callback(file.unlink, missing_ok=True)
