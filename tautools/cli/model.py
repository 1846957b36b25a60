"""`tautools model` and `simulate`: the weights of models, and a simulated model server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.commands import EXIT_FAILED, VerbGroup, command, examples_text
from tautools.cli.options import ParamsName, dry_run_option, params_options, usual_options
from tautools.cli.output import emit, pick
from tautools.errors import ParamsError
from tautools.params import load_server
from tautools.params.models import SimulateParams
from tautools.servers.weights import check_weights, fetch_weights
from tautools.simulate import SimulatedServer
from tautools.simulate.server import serve_until_signal

if TYPE_CHECKING:
    from pathlib import Path

    from tautools.servers.weights import Weights


@click.group(
    "model",
    cls=VerbGroup,
    epilog=examples_text(
        "tautools model check Qwen/Qwen3-8B",
        "tautools model check qwen3-8b qwen3-32b      the models of two server files",
        "tautools model fetch Qwen/Qwen3-8B",
        notes="HF_HOME says where weights are kept, HF_TOKEN who asks, HF_ENDPOINT which hub, "
        "HF_HUB_OFFLINE=1 that none is asked.\nExit codes: 0 complete here, 1 not, 2 no possible name.",
    ),
)
def model_command() -> None:
    """Check and fetch the weights of models."""


@model_command.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=ParamsName("servers"))
@usual_options
def check(models: tuple[str, ...], workspace: Path, as_json: bool) -> None:
    """Say whether weights are cached and complete, gated, absent, and whether the disk has room. Fetches nothing.

    MODEL is a name at the hub, a folder, or a server file, whose model is meant.
    """
    _show_weights([check_weights(_model_of(name, workspace)) for name in models], as_json=as_json)


@model_command.command()
@click.argument("model", type=ParamsName("servers"))
@dry_run_option
@usual_options
def fetch(model: str, dry_run: bool, workspace: Path, as_json: bool) -> None:
    """Bring weights into the cache: only what a server loads, and going on where a download was broken off."""
    get = check_weights if dry_run else fetch_weights
    _show_weights([get(_model_of(model, workspace))], as_json=as_json)


def _show_weights(found: list[Weights], *, as_json: bool) -> None:
    lines = [click.style(str(each), fg="green" if each.usable else "yellow") for each in found]
    emit([_weights_dict(each) for each in found], as_json=as_json, text="\n".join(lines))
    if not all(each.usable for each in found):
        raise SystemExit(EXIT_FAILED)


def _weights_dict(weights: Weights) -> dict[str, Any]:
    copy, hub = weights.copy, weights.hub
    kept = pick(copy, "folder missing size_bytes") if copy else {"folder": None, "missing": [], "size_bytes": None}
    known = {"size_bytes": hub.size_bytes} if hub and hub.size_bytes else {}
    shown = pick(weights, "model state usable needed_bytes free_bytes near") | kept
    return shown | {"hub": hub.state if hub else None} | known


def _model_of(name: str, workspace: Path) -> str:
    """Return the model of a server file of that name, else the name itself."""
    if "/" in name:
        return name
    try:
        return load_server(name, workspace=workspace).model
    except ParamsError:
        return name


_BEHAVIOUR = {
    "skill": "--skill",
    "ttft_ms": "--ttft-ms",
    "itl_ms": "--itl-ms",
    "prefill_ms_per_1k_tokens": "--prefill-ms-per-1k",
    "jitter": "--jitter",
    "speed": "--speed",
    "seed": "--seed",
    "max_model_len": "--max-model-len",
}
"""Options by the params that they set."""


@command(
    "tautools simulate --model demo --skill 0.7",
    "VLLM_API_KEY=secret tautools simulate --port 8007 --model Qwen/Qwen3-4B-Instruct-2507 --speed 10",
    name="simulate",
)
@click.option("--model", default="simulated", show_default=True, help="Served model name.")
@click.option("--alias", "aliases", multiple=True, help="A further served name; may be given several times.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for a free one.")
@params_options(SimulateParams, _BEHAVIOUR)
def simulate_command(model: str, aliases: tuple[str, ...], host: str, port: int, **behaviour: Any) -> None:
    """Serve a SIMULATED model that plays agent and user of the benchmark's tasks, until Ctrl-C.

    The key that requests must carry is read from the environment variable VLLM_API_KEY, as vLLM does.
    """
    key = os.environ.get("VLLM_API_KEY", "")
    params = SimulateParams(**{name: value for name, value in behaviour.items() if value is not None})
    server = SimulatedServer(params, model=model, aliases=aliases, key=key, host=host, port=port)

    def show(started: SimulatedServer) -> None:
        click.echo(f"SIMULATED model server, skill {started.params.skill:g}. No model stands behind its answers.")
        click.echo(f"Base URL: {started.base_url}")
        click.echo(f"Model:    {', '.join(started.names)}")
        click.echo("Key:      from VLLM_API_KEY" if key else "Key:      none; set VLLM_API_KEY to ask for one")
        click.echo("Ctrl-C ends it.")

    serve_until_signal(server, show)
