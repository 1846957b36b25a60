"""`tautools completion`: the script that completes verbs, options and names of params in a shell."""

from __future__ import annotations

import click

from tautools.cli.errors import guard

__all__ = ["command"]

_EPILOG = """\b
Examples:
  tautools completion bash >> ~/.bashrc
  tautools completion zsh >> ~/.zshrc
  tautools completion fish > ~/.config/fish/completions/tautools.fish
"""


@click.command("completion", epilog=_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@guard
def command(shell: str) -> None:
    """Print the completion script for SHELL; nothing is installed."""
    from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

    from tautools.cli.root import cli

    kinds: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    kind = kinds[shell]
    script = kind(cli, {}, "tautools", "_TAUTOOLS_COMPLETE")
    # The base class's source: bash's own first starts a shell to ask its version.
    click.echo(ShellComplete.source(script).strip())
