"""`tautools local`: one machine, one command. Servers on chosen cards, then the domains in turn, then stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import EXIT_INTERRUPTED, EXIT_UNFINISHED, guard
from tautools.cli.options import json_option, new_workspace_option, set_option, site_option
from tautools.cli.server_keep import keep_all
from tautools.cli.server_layout import Asked, CardList, StaggerType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tautools.params.models import RoleParams, RunParams, ServerParams
    from tautools.run import CellResult
    from tautools.server import Server

__all__ = ["command"]

_LISTS = {"--domains", "--envs", "--gpu-ids"}
"""Options that take several words, up to the next option."""

_FOLDER = click.Path(path_type=Path, file_okay=False)

_EPILOG = """\b
Examples:
  tautools local --agent-model qwen3-8b --num-servers 4 --gpu-ids 0 1 2 3 --start-port 1900
  tautools local --agent-model sim-small --domains retail airline --limit 5
  tautools local --agent-model ~/ckpt/Orchestrator-8B --user-llm gpt-4o --stagger-delay 30 --server-timeout 900
\b
Exit codes: 0 all done, 2 bad input, 3 work is still owed (run it again), 130 interrupted.
"""


class _ListsOfWords(click.Command):
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


@click.command("local", cls=_ListsOfWords, epilog=_EPILOG)
@click.option("--agent-model", "--model", required=True, help="Server file, model of the hub, or folder with weights.")
@click.option("--user-llm", "--user-model", help="Customer: server, hosted model such as gpt-4o.  [default: the agent]")
@click.option("--num-servers", "--replicas", type=click.IntRange(1, 256), default=1, show_default=True, help="Servers.")
@click.option("--gpu-ids", type=CardList(), help="Use these cards only, such as 0 1 2 3.  [default: idle ones]")
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
def command(workspace: Path, as_json: bool, **how: Any) -> None:
    """Start N servers of one model, run the domains in turn, stop the servers.

    What is finished is never held again: run the same command to go on. Everything is checked before a server starts.
    """
    agent, user, servers = _parts(workspace, how)
    runs = [_run_params(domain, agent, user, workspace, how) for domain in _domains(how["domains"])]
    _check(runs, servers, workspace)
    results: list[CellResult] = []
    with _terminated_as_interrupt(), _running(servers, workspace, how, quiet=as_json):
        for run in runs:
            results.append(_one(run, workspace, how["output_dir"], quiet=as_json))
            if results[-1].interrupted:
                break
    if as_json:
        click.echo(json.dumps([_told(result) for result in results], indent=1))
    if any(result.interrupted for result in results):
        raise SystemExit(EXIT_INTERRUPTED)
    if any(not result.finished for result in results):
        raise SystemExit(EXIT_UNFINISHED)


def _parts(workspace: Path, how: dict[str, Any]) -> tuple[RoleParams, RoleParams, list[ServerParams]]:
    """Return the two roles and the servers to start for them."""
    from tautools.cli.local_roles import agent_role, agent_server, user_role

    parser = how["tool_call_parser"]
    params = agent_server(how["agent_model"], workspace=workspace, overrides=how["overrides"], tool_call_parser=parser)
    start = not how["skip_server_start"]
    agent = agent_role(params, workspace=workspace, started=start)
    user, user_server = user_role(how["user_llm"], agent, workspace=workspace)
    if not start:
        return agent, user, []
    asked = Asked((f"{params.name}={how['num_servers']}",), start_port=how["start_port"], stagger=how["stagger"])
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


def _check(runs: Sequence[RunParams], servers: Sequence[ServerParams], workspace: Path) -> None:
    """Raise what can be known to be wrong before a server is started: domains, tasks, keys, servers that must run."""
    from tautools.run import prepare_cell
    from tautools.server import endpoints

    for run in runs:
        prepare_cell(run, workspace=workspace, need_servers=False)
    starting = {name for params in servers for name in (params.name, params.serves)}
    for name, role in (("agent", runs[0].agent), ("user", runs[0].user)):
        if (role.server or role.model) not in starting:
            endpoints(role, workspace=workspace, role_name=name)


@contextlib.contextmanager
def _running(servers: Sequence[ServerParams], workspace: Path, how: dict[str, Any], *, quiet: bool) -> Iterator[None]:
    """Start the servers and prove them; stop all of them at the end, whatever happened.

    If this process is killed, a keeper of each stops it.
    """
    from tautools.cli.progress import watch_starts
    from tautools.params import load_site
    from tautools.server import launch_all
    from tautools.server.keeping import Terms, owner_process

    if not servers:
        yield
        return
    site = load_site(how["site"], workspace=workspace) if how["site"] else None
    started = launch_all(
        servers, workspace=workspace, site=site, gpu_ids=how["gpu_ids"], force=how["force"], tell=_say(quiet=quiet)
    )
    try:
        terms = Terms(owner=owner_process(os.getpid()), quiet_s=10.0, every_s=5.0)
        keep_all(started, terms)
        aliases = [server.record.alias for server in started]
        if how["log_dir"] is not None:
            _link_logs(started, how["log_dir"])
        for error in watch_starts(started, timeout_s=how["server_timeout"], quiet=quiet).values():
            raise error
        # One that lost its port and was started again is another launch, which has no keeper yet.
        keep_all([each for each, alias in zip(started, aliases, strict=True) if each.record.alias != alias], terms)
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


def _one(run: RunParams, workspace: Path, output: Path | None, *, quiet: bool) -> CellResult:
    from tautools.cli.cellbar import cell_bar
    from tautools.files import write_atomic
    from tautools.run import prepare_cell, run_cell

    cell = prepare_cell(run, workspace=workspace, need_servers=False)
    with cell_bar(cell, quiet=quiet) as show:
        result = run_cell(cell, on_event=show)
    if not quiet:
        click.echo(str(result))
    if output is not None and result.view is not None:
        output.mkdir(parents=True, exist_ok=True)
        write_atomic(output / f"{run.env}.json", result.view.read_bytes())
    return result


def _told(result: CellResult) -> dict[str, Any]:
    return {
        "env": result.setting.env,
        "done": result.done,
        "owed": result.owed,
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
