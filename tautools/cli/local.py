"""`tautools local`: start servers on this machine, run the domains in turn, stop the servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.options import json_option, new_workspace_option, set_option, site_option
from tautools.cli.output import EXIT_INTERRUPTED, EXIT_UNFINISHED, guard
from tautools.cli.server import start_watchdogs
from tautools.cli.server_plan import IdList, LayoutRequest, StaggerType
from tautools.errors import ParamsError
from tautools.files import expand_home
from tautools.params import list_params, load_all, load_server
from tautools.params.models import RoleParams, ServerParams

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.params.models import RunParams
    from tautools.run import Cell, CellResult
    from tautools.servers import Server


_HOSTED = {
    r"(gpt-\d|chatgpt-|o\d)": {"base_url": "https://api.openai.com/v1", "api_key_env": "OPENAI_API_KEY"},
    r"claude-": {"provider": "anthropic"},
    r"gemini-": {"provider": "gemini"},
}
"""Names of hosted models, by their beginning, and where they answer."""


def agent_server(model: str, *, workspace: Path, overrides: Sequence[str], tool_call_parser: str) -> ServerParams:
    """Return the server of the agent: a server file by its name, the file that serves the model, or one made up here.

    Parameters
    ----------
    model : str
        A file under `params/servers/`, a hub id, or a folder with weights.
    workspace : Path
        Where server files are looked for first.
    overrides : sequence of str
        `key=value` texts of `--set`.
    tool_call_parser : str
        For a model without a server file.

    Raises
    ------
    ParamsError
        When it looks like a folder and is none, or an override is wrong.
    """
    names = list_params("servers", workspace)
    if model in names or model.endswith((".yaml", ".yml")):
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
    return _made_up(model, overrides, tool_call_parser)


def agent_role(params: ServerParams, *, workspace: Path, started: bool) -> RoleParams:
    """Return the agent's role: the servers started here by their file's name, or whichever serve the model."""
    if started and params.name in list_params("servers", workspace):
        return RoleParams(server=params.name, model=params.serves)
    return RoleParams(model=params.serves)


def user_role(name: str | None, agent: RoleParams, *, workspace: Path) -> tuple[RoleParams, ServerParams | None]:
    """Return the customer's role, and the server to start for it when it has a file and does not run.

    Parameters
    ----------
    name : str, optional
        A running server, a server file, a hosted model such as `gpt-4o`, or the model of a running server; the agent
        plays the customer too by default.
    agent : RoleParams
        The agent's role.
    workspace : Path
        Whose servers are meant.
    """
    from tautools.servers import Registry

    if name is None:
        return agent, None
    records = Registry(workspace).list()
    if any(name in {record.name, record.spec.get("name")} for record in records):
        return RoleParams(server=name), None
    if any(record.model == name for record in records):
        return RoleParams(model=name), None
    if name in list_params("servers", workspace):
        return RoleParams(server=name), load_server(name, workspace=workspace)
    for beginning, where in _HOSTED.items():
        if re.match(beginning, name):
            return RoleParams.model_validate({"model": name} | where), None
    return RoleParams(model=name), None


def _made_up(model: str, overrides: Sequence[str], tool_call_parser: str) -> ServerParams:
    from tautools.params.check import validated
    from tautools.params.yaml import ParamsTree, apply_overrides

    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-._").lower()[:60]
    data = {"name": name or "agent", "model": model, "vllm": {"tool_call_parser": tool_call_parser}}
    tree = ParamsTree("the command line", data)
    apply_overrides(tree, overrides)
    return validated(ServerParams, tree.data, tree)


_LISTS = {"--domains", "--envs", "--gpu-ids"}
"""Options that take several words, up to the next option."""

_FOLDER = click.Path(path_type=Path, file_okay=False)

_LOCAL_EPILOG = """\b
Examples:
  tautools local --agent-model qwen3-8b --num-servers 4 --gpu-ids 0 1 2 3 --start-port 1900
  tautools local --agent-model sim-small --domains retail airline --limit 5
  tautools local --agent-model ~/ckpt/Orchestrator-8B --user-llm gpt-4o --stagger-delay 30 --server-timeout 900
\b
Exit codes: 0 all done, 2 bad input, 3 work is still pending (run it again), 130 interrupted.
"""


class _WordListCommand(click.Command):
    """Reads `--domains retail airline` as `--domains retail,airline`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        joined: list[str] = []
        inside = False
        for word in args:
            if inside and not word.startswith("-"):
                # Directly behind the option stands its value; the words after that belong to it too.
                joined.append(word) if joined[-1] in _LISTS else joined.append(f"{joined.pop()},{word}")
                continue
            inside = word in _LISTS
            joined.append(word)
        return super().parse_args(ctx, joined)


@click.command("local", cls=_WordListCommand, epilog=_LOCAL_EPILOG)
@click.option("--agent-model", "--model", required=True, help="Server file, model of the hub, or folder with weights.")
@click.option("--user-llm", "--user-model", help="Customer: server, hosted model such as gpt-4o.  [default: the agent]")
@click.option("--num-servers", "--replicas", type=click.IntRange(1, 256), default=1, show_default=True, help="Servers.")
@click.option("--gpu-ids", type=IdList(), help="Use these cards only, such as 0 1 2 3.  [default: idle ones]")
@click.option("--start-port", type=click.IntRange(1, 65535), help="First port; others follow.  [default: free ones]")
@click.option(
    "--stagger-delay", "--stagger", "stagger", type=StaggerType(), default="loaded", show_default=True,
    help="Seconds between two starts, or `loaded`: when the former has loaded its weights.",
)  # fmt: skip
@click.option("--server-timeout", type=click.FloatRange(1), help="Most seconds to wait.  [default: no progress]")
@click.option("--skip-server-start", is_flag=True, help="Use servers of the workspace that run already.")
@click.option("--tool-call-parser", default="hermes", show_default=True, help="For a model without a server file.")
@click.option("--domains", "--envs", "domains", default="retail,telecom,airline", show_default=True, help="In turn.")
@click.option("--strategy", default="fc", show_default=True, help="How the agent is prompted.")
@click.option("--max-steps", type=click.IntRange(1), default=200, show_default=True, help="Of one conversation.")
@click.option("--num-trials", type=click.IntRange(1), default=1, show_default=True, help="Trials of each task.")
@click.option("--limit", type=click.IntRange(1), help="At most so many tasks of each domain.")
@click.option("--concurrency", type=click.IntRange(1), help="Conversations at a time.  [default: 8 for each server]")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Copy each domain's results there, as DOMAIN.json.",
)
@click.option("--log-dir", type=_FOLDER, help="Link the servers' logs there.")
@click.option("--force", is_flag=True, help="Use cards that are in use.")
@site_option
@set_option
@new_workspace_option
@json_option
@guard
def local_command(workspace: Path, as_json: bool, **how: Any) -> None:
    """Start N servers of one model, run the domains in turn, stop the servers.

    What is finished is never held again: run the same command to go on. Everything is checked before a server starts.
    """
    agent, user, servers = _roles_and_servers(workspace, how)
    runs = [_run_params(domain, agent, user, workspace, how) for domain in _domains(how["domains"])]
    cells = _prepare_before_start(runs, servers, workspace)
    results: list[CellResult] = []
    with _terminated_as_interrupt(), _running(servers, workspace, how, quiet=as_json):
        for cell in cells:
            results.append(_run_domain(cell, how["output_dir"], quiet=as_json))
            if results[-1].interrupted:
                break
    if as_json:
        click.echo(json.dumps([_domain_dict(result) for result in results], indent=1))
    if any(result.interrupted for result in results):
        raise SystemExit(EXIT_INTERRUPTED)
    if any(not result.finished for result in results):
        raise SystemExit(EXIT_UNFINISHED)


def _roles_and_servers(workspace: Path, how: dict[str, Any]) -> tuple[RoleParams, RoleParams, list[ServerParams]]:
    """Return the two roles and the servers to start for them."""
    parser = how["tool_call_parser"]
    params = agent_server(how["agent_model"], workspace=workspace, overrides=how["overrides"], tool_call_parser=parser)
    start = not how["skip_server_start"]
    agent = agent_role(params, workspace=workspace, started=start)
    user, user_server = user_role(how["user_llm"], agent, workspace=workspace)
    if not start:
        return agent, user, []
    asked = LayoutRequest(
        (f"{params.name}={how['num_servers']}",), start_port=how["start_port"], stagger=how["stagger"]
    )
    servers = asked.arranged([params])
    if user_server is not None and user_server.name != params.name:
        servers.append(user_server)
    return agent, user, servers


def _run_params(domain: str, agent: RoleParams, user: RoleParams, workspace: Path, how: dict[str, Any]) -> RunParams:
    from tautools.params import resolve_run

    flags = {
        "env": domain,
        "strategy": how["strategy"],
        "num_trials": how["num_trials"],
        "tasks.limit": how["limit"],
        "concurrency": how["concurrency"] or 8 * how["num_servers"],
        "limits.max_steps": how["max_steps"],
    }
    for name, role in (("agent", agent), ("user", user)):
        flags |= {f"{name}.{key}": value for key, value in role.model_dump(exclude_defaults=True).items()}
    return resolve_run(flags, workspace=workspace).params


def _domains(text: str) -> list[str]:
    found = list(dict.fromkeys(part for part in text.replace(",", " ").split() if part))
    if not found:
        raise click.UsageError("--domains: no domain is named")
    return found


def _prepare_before_start(runs: Sequence[RunParams], servers: Sequence[ServerParams], workspace: Path) -> list[Cell]:
    """Raise what can be known to be wrong before a server is started: domains, tasks, keys, servers that must run."""
    from tautools.run import prepare_cell
    from tautools.servers import endpoints

    cells = [prepare_cell(run, workspace=workspace, need_servers=False) for run in runs]
    starting = {name for params in servers for name in (params.name, params.serves)}
    for name, role in (("agent", runs[0].agent), ("user", runs[0].user)):
        if (role.server or role.model) not in starting:
            endpoints(role, workspace=workspace, role_name=name)
    return cells


@contextlib.contextmanager
def _running(servers: Sequence[ServerParams], workspace: Path, how: dict[str, Any], *, quiet: bool) -> Iterator[None]:
    """Start the servers and prove them; stop all of them at the end, whatever happened.

    If this process is killed, a keeper of each stops it.
    """
    from tautools.cli.output import watch_starts
    from tautools.params import load_site
    from tautools.servers import launch_all
    from tautools.servers.lease import LeaseTerms, owner_process

    if not servers:
        yield
        return
    site = load_site(how["site"], workspace=workspace) if how["site"] else None
    started = launch_all(
        servers, workspace=workspace, site=site, gpu_ids=how["gpu_ids"], force=how["force"], emit=_say(quiet=quiet)
    )
    try:
        terms = LeaseTerms(owner=owner_process(os.getpid()), quiet_s=10.0, every_s=5.0)
        start_watchdogs(started, terms)
        aliases = [server.record.alias for server in started]
        if how["log_dir"] is not None:
            _link_logs(started, how["log_dir"])
        for error in watch_starts(started, timeout_s=how["server_timeout"], quiet=quiet).values():
            raise error
        # One that lost its port and was started again is another launch, which has no keeper yet.
        start_watchdogs(
            [each for each, alias in zip(started, aliases, strict=True) if each.record.alias != alias], terms
        )
        yield
    finally:
        for server in started:
            server.stop()
        _say(quiet=quiet)(f"{len(started)} servers stopped")


def _say(*, quiet: bool) -> Any:
    return (lambda _text: None) if quiet else (lambda text: click.echo(text, err=True))


def _link_logs(servers: Sequence[Server], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for server in servers:
        for log in (Path(server.record.log_out), Path(server.record.log_err)):
            link = folder / log.name
            link.unlink(missing_ok=True)
            link.symlink_to(log)


def _run_domain(cell: Cell, output: Path | None, *, quiet: bool) -> CellResult:
    from tautools.cli.output import cell_progress
    from tautools.files import write_atomic
    from tautools.run import run_cell

    with cell_progress(cell, quiet=quiet) as show:
        result = run_cell(cell, on_event=show)
    if not quiet:
        click.echo(str(result))
    if output is not None and result.view is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_atomic(output / f"{cell.run.env}.json", result.view.read_bytes())
    return result


def _domain_dict(result: CellResult) -> dict[str, Any]:
    return {
        "env": result.setting.env,
        "done": result.done,
        "pending": result.pending,
        "outcomes": {outcome.value: count for outcome, count in result.outcomes.items()},
        "simulated": result.setting.simulated,
        "setting_id": result.setting.id,
        "folder": str(result.folder),
    }


@contextlib.contextmanager
def _terminated_as_interrupt() -> Iterator[None]:
    """Stop the servers on SIGTERM too, as a job's end sends it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
