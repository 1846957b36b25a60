"""`tautools simulate`: a simulated model server in the foreground."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from tautools.cli.errors import guard
from tautools.params.models import SimulateParams

if TYPE_CHECKING:
    from tautools.simulate import SimulatedServer

__all__ = ["command"]

_USUAL = SimulateParams()
_EPILOG = """\b
Examples:
  tautools simulate --model demo --skill 0.7
  VLLM_API_KEY=secret tautools simulate --port 8007 --model Qwen/Qwen3-4B-Instruct-2507 --speed 10
"""


@click.command("simulate", epilog=_EPILOG)
@click.option("--model", default="simulated", show_default=True, help="Served model name.")
@click.option("--alias", "aliases", multiple=True, help="A further served name; may be given several times.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for a free one.")
@click.option("--skill", type=click.FloatRange(0, 1), default=_USUAL.skill, show_default=True,
              help="Probability that a conversation is solved.")  # fmt: skip
@click.option("--ttft-ms", type=click.FloatRange(0), default=_USUAL.ttft_ms, show_default=True,
              help="Median time to first token.")  # fmt: skip
@click.option("--itl-ms", type=click.FloatRange(0), default=_USUAL.itl_ms, show_default=True,
              help="Median gap between tokens.")  # fmt: skip
@click.option("--prefill-ms-per-1k", "prefill_ms_per_1k_tokens", type=click.FloatRange(0), show_default=True,
              default=_USUAL.prefill_ms_per_1k_tokens, help="Added per 1000 uncached prompt tokens.")  # fmt: skip
@click.option("--jitter", type=click.FloatRange(0, 2), default=_USUAL.jitter, show_default=True,
              help="Spread of the times: standard deviation of their logarithm.")  # fmt: skip
@click.option("--speed", type=click.FloatRange(0), default=_USUAL.speed, show_default=True,
              help="Divides all times; 0 answers at once.")  # fmt: skip
@click.option(
    "--seed", type=int, default=_USUAL.seed, show_default=True, help="Another seed solves other conversations."
)
@click.option("--max-model-len", type=click.IntRange(1024), default=_USUAL.max_model_len, show_default=True,
              help="Longest prompt and answer together [tokens].")  # fmt: skip
@guard
def command(model: str, aliases: tuple[str, ...], host: str, port: int, **behaviour: Any) -> None:
    """Serve a SIMULATED model that plays agent and user of the benchmark's tasks, until Ctrl-C.

    The key that requests must carry is read from the environment variable VLLM_API_KEY, as vLLM does.
    """
    from tautools.simulate import SimulatedServer
    from tautools.simulate.foreground import run_until_told

    key = os.environ.get("VLLM_API_KEY", "")
    params = SimulateParams(**behaviour)
    server = SimulatedServer(params, model=model, aliases=aliases, key=key, host=host, port=port)
    run_until_told(server, lambda started: _tell(started, keyed=bool(key)))


def _tell(server: SimulatedServer, *, keyed: bool) -> None:
    click.echo(f"SIMULATED model server, skill {server.params.skill:g}. No model stands behind its answers.")
    click.echo(f"Base URL: {server.base_url}")
    click.echo(f"Model:    {', '.join(server.names)}")
    click.echo("Key:      from VLLM_API_KEY" if keyed else "Key:      none; set VLLM_API_KEY to ask for one")
    click.echo("Ctrl-C ends it.")
