"""`tautools model`: are a model's weights here, could they be had, and fetch them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import EXIT_FAILED, guard
from tautools.cli.options import ParamsName, json_option, workspace_option
from tautools.errors import ParamsError

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.server.weights.find import Weights

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools model check Qwen/Qwen3-8B
  tautools model check qwen3-8b qwen3-32b      the models of two server files
  tautools model fetch Qwen/Qwen3-8B

\b
HF_HOME says where weights are kept, HF_TOKEN who asks, HF_ENDPOINT which hub, HF_HUB_OFFLINE=1 that none is asked.
Exit codes: 0 complete here, 1 not, 2 no possible name.
"""


@click.group("model", epilog=_EPILOG)
def command() -> None:
    """Check and fetch the weights of models."""


@command.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=ParamsName("servers"))
@workspace_option
@json_option
@guard
def check(models: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Say whether weights are cached and complete, gated, absent, and whether the disk has room. Fetches nothing.

    MODEL is a name at the hub, a folder, or a server file, whose model is meant.
    """
    from tautools.server.weights.find import check_weights

    found = [check_weights(_model_of(each, workspace)) for each in models]
    _show(found, as_json=as_json)


@command.command()
@click.argument("model", type=ParamsName("servers"))
@workspace_option
@json_option
@guard
def fetch(model: str, workspace: Path, as_json: bool) -> None:
    """Bring weights into the cache: only what a server loads, and going on where a download was broken off."""
    from tautools.server.weights.find import fetch_weights

    _show([fetch_weights(_model_of(model, workspace))], as_json=as_json)


def _show(found: list[Weights], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([_told(each) for each in found], indent=1))
    else:
        for each in found:
            click.echo(click.style(str(each), fg="green" if each.usable else "yellow"))
    if not all(each.usable for each in found):
        raise SystemExit(EXIT_FAILED)


def _told(weights: Weights) -> dict[str, Any]:
    copy, hub = weights.copy, weights.hub
    return {
        "model": weights.model,
        "state": weights.state,
        "usable": weights.usable,
        "folder": str(copy.folder) if copy is not None else None,
        "missing": list(copy.missing) if copy is not None else [],
        "hub": hub.state.value if hub is not None else None,
        "size_bytes": hub.size_bytes if hub is not None and hub.files else copy.size_bytes if copy else None,
        "needed_bytes": weights.needed_bytes,
        "free_bytes": weights.free_bytes,
        "near": weights.near,
    }


def _model_of(name: str, workspace: Path) -> str:
    """Return the model of a server file of that name, else the name itself."""
    from tautools.params import load_server

    if "/" in name:
        return name
    try:
        return load_server(name, workspace=workspace).model
    except ParamsError:
        return name
