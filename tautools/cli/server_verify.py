"""`tautools server verify` and `tautools server test`: climb the ladder at a registered server or at any address."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option
from tautools.cli.server_words import show_certificate, show_rung

if TYPE_CHECKING:
    from pathlib import Path


__all__ = ["key_from", "key_option", "test", "verify"]

CONCURRENCY = 8
"""Chats at once when all rungs are asked for: as many as a run holds by default."""

key_option = click.option("--key-env", help="Environment variable that holds its key; never the key itself.")
_model_option = click.option("--model", help="Name that must be served at an address.  [default: the first it tells]")
_full_option = click.option("--full", is_flag=True, help="Load the server, too: context limit, chats at once, repeats.")
_many_option = click.option(
    "--concurrency", type=click.IntRange(1, 1024), help=f"Chats at once; means --full.  [default: {CONCURRENCY}]"
)
_thinking_option = click.option(
    "--thinking", type=click.Choice(["on", "off"]), help="Whether its model must think when nothing is asked."
)


@click.command(
    epilog="\b\nExamples:\n  tautools server verify qwen3-8b --full --concurrency 32\n"
    "  tautools server verify http://gaudi001:8007/v1 --thinking off --key-env MY_KEY"
)
@click.argument("server", metavar="NAME|URL")
@_full_option
@_many_option
@_model_option
@key_option
@_thinking_option
@workspace_option
@json_option
@guard
def verify(server: str, workspace: Path, **asked: Any) -> None:
    """Prove a registered server again, or any server by its address.

    The whole ladder is climbed. Of a registered server the certificate is written down, and one that fails is not
    ready any more; what must hold of it is in its record, so --model, --key-env and --thinking are for addresses.
    """
    if ":" in server or "/" in server:
        _at_address(server, **asked)
        return
    given = [f"--{name.replace('_', '-')}" for name in ("model", "key_env", "thinking") if asked[name]]
    if given:
        raise click.UsageError(f"{', '.join(given)}: for an address; {server!r} is the name of a registered server")
    from tautools.server import open_server

    tell = None if asked["as_json"] else show_rung
    opened = open_server(server, workspace=workspace)
    certificate = opened.verify(tell, concurrency=_chats(asked["full"], asked["concurrency"]))
    show_certificate(certificate, as_json=asked["as_json"])


@click.command(
    epilog="\b\nExamples:\n  tautools server test http://localhost:8000\n"
    "  tautools server test http://gaudi001:8007/v1 --model Qwen/Qwen3-32B --key-env MY_KEY"
)
@click.argument("url")
@_full_option
@_many_option
@_model_option
@key_option
@_thinking_option
@json_option
@guard
def test(url: str, **asked: Any) -> None:
    """Prove any server by its address.

    Any OpenAI-compatible one: does it answer, what does it serve, is the key asked for, a chat, tool calls.
    """
    _at_address(url, **asked)


def key_from(variable: str | None) -> str:
    """Return the key that an environment variable holds; empty when none is named.

    Raises
    ------
    click.UsageError
        When the variable is not set, or empty.
    """
    if variable and not os.environ.get(variable):
        raise click.UsageError(f"--key-env {variable}: no such environment variable in this session")
    return os.environ[variable] if variable else ""


def _at_address(url: str, **asked: Any) -> None:
    from tautools.records import Thinking
    from tautools.server.address import verify_target
    from tautools.server.proof.ladder import Target

    target = Target(
        url,
        asked["model"] or "",
        key=key_from(asked["key_env"]),
        thinking=Thinking(asked["thinking"] or "default"),
        concurrency=_chats(asked["full"], asked["concurrency"]),
    )
    tell = None if asked["as_json"] else show_rung
    show_certificate(verify_target(target, on_rung=tell), as_json=asked["as_json"])


def _chats(full: bool, concurrency: int | None) -> int:
    return concurrency or (CONCURRENCY if full else 0)
