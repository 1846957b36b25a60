"""`tautools server shapes`: requests that met a shape which a Gaudi server had not warmed up."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tautools.cli.errors import guard
from tautools.cli.options import json_option, workspace_option

__all__ = ["shapes"]


@click.command(epilog="\b\nExamples:\n  tautools server shapes qwen3-8b\n  tautools server shapes qwen3-8b --json")
@click.argument("name")
@workspace_option
@json_option
@guard
def shapes(name: str, workspace: Path, as_json: bool) -> None:
    """Count the requests that met a shape which a Gaudi server had not warmed up, and propose wider buckets.

    Each of them waited for a compilation: many of them spoil a latency figure.
    """
    from tautools.files import read_lines
    from tautools.server import Registry
    from tautools.server.vllm.shapes import read_cold_shapes

    record = Registry(workspace).get(name)
    logs = [Path(log) for log in (record.log_out, record.log_err) if log and Path(log).exists()]
    cold = read_cold_shapes(line.decode(errors="replace") for log in logs for line in read_lines(log))
    if as_json:
        rows = [
            {
                "phase": phase.lower(),
                "batch_size": batch,
                "query_tokens": query,
                "context_blocks": blocks,
                "count": count,
            }
            for (phase, batch, query, blocks), count in cold.counts.items()
        ]
        click.echo(
            json.dumps({"name": name, "count": cold.total, "shapes": rows, "proposed": cold.proposed()}, indent=1)
        )
        return
    if not cold.total:
        click.echo(f"{name}: no request met a shape that was not warmed up.")
        return
    click.echo(f"{name}: {cold.total} requests met {len(cold.counts)} shapes that were not warmed up, and waited.")
    for (phase, batch, query, blocks), count in sorted(cold.counts.items(), key=lambda item: -item[1])[:12]:
        size = f"{query} tokens, " if phase == "PROMPT" else ""
        click.echo(f"  {count:4} x {phase.lower()}: batch {batch}, {size}{blocks} context blocks")
    click.echo("Buckets that hold them, for `env` of the server file; the warm-up takes longer by the graphs added:")
    for variable, value in cold.proposed().items():
        click.echo(f'  {variable}: "{value}"')
