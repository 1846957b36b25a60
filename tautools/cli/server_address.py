"""`tautools server verify` (or `test`), `attach` and `export`: servers by their address."""

import contextlib
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress, TimeElapsedColumn

from tautools.cli.commands import EXIT_FAILED, command, exit_if, refuse_if, wants_json
from tautools.cli.options import usual_options, workspace_option
from tautools.cli.output import emit, progress_bars, show_failures, show_servers, spoken
from tautools.params.keys import read_key
from tautools.records import Check, ServerRecord, Thinking
from tautools.servers import Registry, attach_all, open_server
from tautools.servers import attach as attach_one
from tautools.servers.attaching import read_model_config, verify_target, write_model_config
from tautools.servers.checks.target import CheckTarget

CONCURRENCY = 8  # chats at once when all checks are asked for: as many as a run has by default

_MARKS = {True: ("ok", "green"), False: ("FAILED", "red"), None: ("-", "bright_black")}

key_option = click.option("--key-env", help="Environment variable that holds its key; never the key itself.")


@command(
    "tautools server verify qwen3-8b --full --concurrency 32",
    "tautools server verify http://gaudi001:8007/v1 --thinking off --key-env MY_KEY",
    "tautools server test http://localhost:8000",
)
@click.argument("server", metavar="NAME|URL")
@click.option("--full", is_flag=True, help="Load the server, too: context limit, chats at once, repeats.")
@click.option("--concurrency", type=click.IntRange(1, 1024),
              help=f"Chats at once; means --full.  [default: {CONCURRENCY}]")  # fmt: skip
@click.option("--model", help="Name that must be served at an address.  [default: the first it reports]")
@key_option
@click.option("--thinking", type=click.Choice(["on", "off"]),
              help="Whether its model must think when nothing is asked.")  # fmt: skip
@usual_options
@click.pass_context
def verify(ctx: click.Context, /, server: str, workspace: Path, **asked: Any) -> None:
    """Verify a registered server again, or any OpenAI-compatible server by its address.

    All checks are run: does it answer, what does it serve, is the key asked for, a chat, tool calls. Of a registered
    server the certificate is written down, and one that fails is not ready any more; what must hold of it is in its
    record, so --model, --key-env and --thinking are for addresses. `server test` takes an address always, such as the
    bare name of a host.
    """
    chats = asked["concurrency"] or (CONCURRENCY if asked["full"] else 0)
    if ctx.info_name == "test" or ":" in server or "/" in server:
        key, thinking = _key_from(asked["key_env"]), Thinking(asked["thinking"] or "default")
        target = CheckTarget(server, asked["model"] or "", key=key, thinking=thinking, concurrency=chats)
        with _check_progress(server) as (on_check, on_wait):
            certificate = verify_target(target, on_check=on_check, on_wait=on_wait)
    else:
        given = ", ".join(f"--{name.replace('_', '-')}" for name in ("model", "key_env", "thinking") if asked[name])
        refuse_if(given, f"{given}: for an address; {server!r} is the name of a registered server")
        known = open_server(server, workspace=workspace)
        with _check_progress(server) as (on_check, on_wait):
            certificate = known.verify(on_check, concurrency=chats, on_wait=on_wait)
    mark = "SIMULATED " if certificate.simulated else ""
    verdict = f"{mark}{certificate.model or certificate.base_url}: {'passed' if certificate.passed else 'failed'}"
    verdict += "".join(f", without {what}" for what in certificate.without if certificate.passed)
    value = certificate.model_dump(mode="json") | {"passed": certificate.passed}
    emit(value, text=click.style(verdict, bold=True))
    exit_if(not certificate.passed)


def _key_from(variable: str | None) -> str:
    """Return the key that an environment variable holds; empty when none is named."""
    key = read_key(os.environ.get(variable, ""), variable) if variable else ""
    refuse_if(variable and not key, f"--key-env {variable}: no such environment variable here, or no key in it")
    return key


@contextlib.contextmanager
def _check_progress(server: str) -> Iterator[tuple[Callable[[Check], None] | None, Callable[[str], None]]]:
    """Show what the checks of a server wait for; yields what to give to them, for each check and for each wait."""
    bars = progress_bars("{task.description}", TimeElapsedColumn(), transient=True)
    task = bars.add_task(f"checking {server}", total=None)

    def show_check(check: Check) -> None:
        word, colour = _MARKS[check.passed]
        mark = click.style(f"{word:>6}", fg=colour)
        line = f"{mark}  {check.number} {check.name:<14} {check.took_s:6.2f} s  {check.detail}"
        with _above(bars):
            click.echo(line)

    def show_wait(words: str) -> None:
        bars.update(task, description=f"checking {server}: waiting for {words}")

    with spoken(bars):
        yield None if wants_json() else show_check, show_wait


@contextlib.contextmanager
def _above(bars: Progress) -> Iterator[None]:
    """Take the bar away while a line is printed, where one is drawn."""
    if bars.disable:
        yield
        return
    bars.stop()
    try:
        yield
    finally:
        bars.start()


@command(
    "tautools server attach mine http://gaudi001:8007/v1 --model Qwen/Qwen3-32B --key-env MY_KEY",
    "tautools server attach --model-config model_config_local.json",
)
@click.argument("name", required=False)
@click.argument("url", required=False)
@click.option("--model", help="Name that requests carry.  [default: the first it reports]")
@key_option
@click.option("--model-config", type=click.Path(path_type=Path),
              help="Every address of a ToolOrchestra model_config*.json.")  # fmt: skip
@usual_options
def attach(
    name: str | None, url: str | None, model: str | None, model_config: Path | None, workspace: Path, **how: Any
) -> None:
    """Register servers that run already, each once it is verified.

    They are listed, checked and used like those started here; `server stop` only forgets them. With --model one without
    a model list is used, once it answers for that name. A model with several
    addresses in the file becomes NAME-1, NAME-2, …, and a role that names NAME or the model gets them all.
    """
    key = _key_from(how["key_env"])
    if model_config is not None:
        refuse_if(name or model, "--model-config has names, addresses and models of its own")
        models = read_model_config(model_config)
        with _check_progress(str(model_config)):
            servers, failures = attach_all(models, workspace=workspace, key=key)
    elif name and url:
        with _check_progress(url) as (_, on_wait):
            one = attach_one(name, url, workspace=workspace, model=model or "", key=key, on_wait=on_wait)
        servers, failures = [one], {}
    else:
        raise click.UsageError("give NAME and URL, or --model-config FILE")
    show_servers(servers, done="attached, ")
    show_failures(failures)


@command(
    "tautools server export --user qwen3-32b", 'eval "$(tautools server export --user qwen3-32b --agent qwen3-8b)"'
)
@click.option("--user", help="Server that plays the customer: USER_MODEL_API_BASE and friends.")
@click.option("--agent", help="Server of the agent: AGENT_MODEL_API_BASE and friends, and OPENAI_API_BASE.")
@click.option("--model-config", type=click.Path(path_type=Path),
              help="Write a ToolOrchestra model_config*.json instead.")  # fmt: skip
@click.option("--show-keys", is_flag=True, help="Print the keys themselves; by default the files that hold them.")
@workspace_option
def export(user: str | None, agent: str | None, model_config: Path | None, show_keys: bool, workspace: Path) -> None:
    """Print export lines for shell scripts.

    Without options, of every verified server. OPENAI_API_BASE, OPENAI_BASE_URL and OPENAI_API_KEY, which tau-bench and
    its client read, are the agent's. Of a server that is not verified a comment says so.
    --model-config writes the addresses of every verified server by model, replicas as one list.
    """
    registry = Registry(workspace)
    if model_config is not None:
        refuse_if(user or agent or show_keys, "--model-config holds every verified server, and no key")
        _write_model_config(model_config, [record for record in registry.list() if _verified(record)])
        return
    chosen = {"USER_MODEL": user, "AGENT_MODEL": agent}
    records = {prefix: registry.get(name) for prefix, name in chosen.items() if name}
    if not records:  # a server's name is the beginning of a shell variable's
        known = {re.sub(r"[^A-Za-z0-9]", "_", each.name).upper(): each for each in registry.list() if each.certificate}
        records = {re.sub(r"^(?=[0-9])", "_", name): record for name, record in known.items()}
    for prefix, record in records.items():
        for line in _export_lines(prefix, record, registry, show_keys=show_keys):
            click.echo(line)


def _verified(record: ServerRecord) -> bool:
    return record.certificate is not None and record.certificate.passed


def _write_model_config(path: Path, records: Sequence[ServerRecord]) -> None:
    if not records:
        click.echo("No server is verified; `tautools server ls` shows how they are.", err=True)
        raise SystemExit(EXIT_FAILED)
    for model, base_urls in write_model_config(path, records).items():
        click.echo(f"{model}: {', '.join(base_urls)}")
    if keyed := [record.name for record in records if record.key_file]:
        click.echo(f"The file holds no keys, and these servers ask for theirs: {', '.join(keyed)}", err=True)


def _export_lines(prefix: str, record: ServerRecord, registry: Registry, *, show_keys: bool) -> Iterator[str]:
    if not _verified(record):
        yield f"# {record.name} is not verified: run `tautools server verify {record.name}` first"
    base, key = shlex.quote(record.base_url), ""
    if record.key_file:
        key = shlex.quote(registry.key(record)) if show_keys else f'"$(cat {shlex.quote(record.key_file)})"'
    values = {f"{prefix}_API_BASE": base, prefix: shlex.quote(record.model), f"{prefix}_API_KEY": key}
    if prefix == "AGENT_MODEL":
        # A client of OpenAI's demands some key, also of a server that asks for none.
        values |= {"OPENAI_API_BASE": base, "OPENAI_BASE_URL": base, "OPENAI_API_KEY": key or "none"}
    yield from (f"export {name}={value}" for name, value in values.items() if value)
