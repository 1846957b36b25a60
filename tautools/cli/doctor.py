"""`tautools doctor`: whether this session can do the work."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from tautools.cli.errors import EXIT_FAILED, guard
from tautools.cli.options import ParamsName, json_option, new_workspace_option, site_option

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools doctor
  tautools doctor --site sol-gaudi --sweep sol-gaudi-120
  tautools doctor --paste
  tautools doctor --json | jq '.findings[] | select(.status != "ok")'

\b
Exit codes: 0 when nothing fails (warnings do not count), 1 when something does.
"""

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command("doctor", epilog=_EPILOG)
@site_option
@click.option("--sweep", "sweeps", multiple=True, type=ParamsName("sweeps"),
              help="Check the models of this sweep.  [default: the workspace's own sweeps]")  # fmt: skip
@click.option("--paste", is_flag=True, help="Print a text block for a help request, without secrets and user names.")
@new_workspace_option
@json_option
@guard
def command(site: str | None, sweeps: tuple[str, ...], paste: bool, workspace: Path, as_json: bool) -> None:
    """Say whether this session can do the work: each finding with its remedy. Nothing is changed."""
    from tautools.session import Status, doctor
    from tautools.session.paste import paste_text

    diagnosis = doctor(workspace, site=site, sweeps=sweeps or None)
    if as_json:
        click.echo(json.dumps(diagnosis.as_json(), indent=1, ensure_ascii=False))
    elif paste:
        click.echo(paste_text(diagnosis, os.environ))
    else:
        for line in str(diagnosis).splitlines():
            mark, space, rest = line.partition(" ")
            click.echo(click.style(mark, fg=_COLOURS[mark]) + space + rest if mark in _COLOURS else line)
    if diagnosis.worst is Status.FAIL:
        sys.exit(EXIT_FAILED)
