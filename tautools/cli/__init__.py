"""The command line: `tautools`, a group of verbs of which one is loaded when it is called."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import click

from tautools import __version__
from tautools.cli.output import guard

if TYPE_CHECKING:
    from collections.abc import Sequence
__all__ = ["VERBS", "LazyGroup", "cli", "completion_command", "main"]


VERBS = {
    "init": "Write a workspace from a site.",
    "doctor": "Say whether this session can do the work.",
    "config": "Show sites, servers, sweeps and runs as they will be used.",
    "server": "Launch, verify, watch and stop model servers.",
    "run": "Run one cell from flags; run it again to resume.",
    "local": "Start N servers here, run the domains in turn, stop.",
    "adopt": "Take over results of tau-bench, tau2-bench, inspect.",
    "show": "Read a conversation, finished or running.",
    "failures": "Say why conversations did not pass.",
    "rescore": "Score stored conversations by other rules.",
    "judge": "Ask a judge about conversations that are finished.",
    "sweep": "Plan, run and watch many cells.",
    "persona": "Moods of the customer: list, show, prove, compare.",
    "export": "Write results in tau2-bench's or tau-bench's own format.",
    "report": "Tables, figures and pages of what was measured.",
    "fidelity": "Compare the loop with tau-bench's own.",
    "model": "Check and fetch the weights of models.",
    "simulate": "Serve a SIMULATED model in the foreground.",
    "demo": "The whole way on simulated models, in minutes.",
    "completion": "Print the completion script for your shell.",
}
"""What `tautools --help` says of each verb, so that none of them has to be loaded for it."""

_COMMANDS = {
    "init": "tautools.cli.setup:init_command",
    "doctor": "tautools.cli.setup:doctor_command",
    "config": "tautools.cli.setup:config_command",
    "server": "tautools.cli.server:server_command",
    "run": "tautools.cli.run:run_command",
    "local": "tautools.cli.local:local_command",
    "adopt": "tautools.cli.results:import_command",
    "show": "tautools.cli.show:show_command",
    "failures": "tautools.cli.analysis:failures_command",
    "rescore": "tautools.cli.analysis:rescore_command",
    "judge": "tautools.cli.analysis:judge_command",
    "sweep": "tautools.cli.sweep:sweep_command",
    "persona": "tautools.cli.persona:persona_command",
    "export": "tautools.cli.results:export_command",
    "report": "tautools.cli.results:report_command",
    "fidelity": "tautools.cli.fidelity:fidelity_command",
    "model": "tautools.cli.model:model_command",
    "simulate": "tautools.cli.model:simulate_command",
    "demo": "tautools.cli.setup:demo_command",
    "completion": "tautools.cli:completion_command",
}
"""Where the command of each verb is defined: module and name."""

_EPILOG = """\b
Examples:
  tautools demo                                            everything once, on simulated models
  tautools init ~/work --site sol-gaudi                    a workspace to work in
  tautools doctor                                          what this session has and lacks
  tautools server up qwen3-4b                              start a server and prove it
  tautools run --env retail --strategy fc --model M --limit 2
  tautools sweep plan sol-gaudi-120 --set path=~/tau-bench
  tautools report --sweep demo

\b
Exit codes: 0 fine, 1 it failed, 2 bad input, 3 unfinished (run it again), 130 interrupted.
"""


class LazyGroup(click.Group):
    """A group that knows its verbs by name and imports one only when it is called."""

    @guard
    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and run; options shared by all verbs raise here, before any verb's own guard."""
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of a day's work."""
        return [*VERBS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one verb."""
        if cmd_name not in VERBS:
            return super().get_command(ctx, cmd_name)
        module, name = _COMMANDS[cmd_name].split(":")
        command = getattr(importlib.import_module(module), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{_COMMANDS[cmd_name]} is not a click command")
        return command

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        """List the verbs without loading them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb; name the nearest ones when there is none."""
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from tautools.params.find import nearest  # pydantic comes with it; `--help` does without

            near = nearest(args[0], VERBS, most=2)
            hint = f" Did you mean {' or '.join(f'`{each}`' for each in near)}?" if near else ""
            ctx.fail(f"There is no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="tautools", message="%(prog)s %(version)s")
def cli() -> None:
    """Launch and verify model servers, run tau-bench sweeps that nothing can ruin, read the results."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line: the entry point of `tautools` and of `python -m tautools`."""
    cli.main(args=args, prog_name="tautools")


_COMPLETION_EPILOG = """\b
Examples:
  tautools completion bash >> ~/.bashrc
  tautools completion zsh >> ~/.zshrc
  tautools completion fish > ~/.config/fish/completions/tautools.fish
"""


@click.command("completion", epilog=_COMPLETION_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@guard
def completion_command(shell: str) -> None:
    """Print the completion script for SHELL; nothing is installed."""
    from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

    kinds: dict[str, type[ShellComplete]] = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}
    kind = kinds[shell]
    script = kind(cli, {}, "tautools", "_TAUTOOLS_COMPLETE")
    # The base class's source: bash's own first starts a shell to ask its version.
    click.echo(ShellComplete.source(script).strip())
