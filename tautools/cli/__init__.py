"""The command line: `tautools`, a group of verbs of which one is loaded when it is called."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tautools import __version__
from tautools.cli.commands import LazyGroup

_SECTIONS = {
    "Start here": {
        "demo": ("The whole way on simulated models, in minutes.", "tautools.cli.sweep:demo_command"),
        "init": ("Write a workspace from a site.", "tautools.cli.setup:init_command"),
        "doctor": ("Say whether this machine can do the work.", "tautools.cli.setup:doctor_command"),
        "config": ("Show sites, servers, sweeps and runs as they will be used.", "tautools.cli.setup:config_command"),
    },
    "Servers": {
        "server": ("Launch, verify, watch and stop model servers.", "tautools.cli.server:server_command"),
        "model": ("Check and fetch the weights of models.", "tautools.cli.setup:model_command"),
    },
    "Run and sweep": {
        "run": ("Run one cell from flags; run it again to resume.", "tautools.cli.run:run_command"),
        "local": ("Start N servers here, run the domains in turn, stop.", "tautools.cli.local:local_command"),
        "sweep": ("Plan, run and watch many cells.", "tautools.cli.sweep:sweep_command"),
    },
    "Results": {
        "show": ("Read a conversation, finished or running.", "tautools.cli.show:show_command"),
        "report": ("Tables, figures and pages of what was measured.", "tautools.cli.results:report_command"),
        "failures": ("Say why conversations did not pass.", "tautools.cli.analysis:failures_command"),
        "import": ("Bring in results of tau-bench, tau2-bench, inspect.", "tautools.cli.results:import_command"),
        "export": ("Write results as tau2-bench or tau-bench would.", "tautools.cli.results:export_command"),
    },
    "Expert": {
        "persona": ("Personas of the customer: list, check, compare.", "tautools.cli.persona:persona_command"),
        "judge": ("Ask a judge about finished conversations.", "tautools.cli.analysis:judge_command"),
        "rescore": ("Score stored conversations by other rules.", "tautools.cli.analysis:rescore_command"),
        "fidelity": ("Compare the loop with tau-bench's own.", "tautools.cli.fidelity:fidelity_command"),
        "simulate": ("Serve a SIMULATED model in the foreground.", "tautools.cli.setup:simulate_command"),
        "completion": ("Print the completion script for your shell.", "tautools.cli:completion_command"),
    },
}

VERBS = {verb: text for section in _SECTIONS.values() for verb, (text, _) in section.items()}
"""What `tautools --help` says of each verb, so that none of them has to be loaded for it."""

_EPILOG = """\b
Examples:
  tautools demo                                            everything once, on simulated models
  tautools init ~/work --site sol-gaudi                    a workspace to work in
  tautools doctor                                          what works here and what is missing
  tautools server up qwen3-4b                              start a server and verify it
  tautools run --env retail --strategy fc --model M --limit 2
  tautools sweep plan sol-gaudi-120 --set path=~/tau-bench
  tautools report --sweep demo

\b
Exit codes: 0 fine, 1 it failed, 2 bad input, 3 unfinished (run it again), 130 interrupted.
"""


@click.group(
    cls=LazyGroup,
    verbs=_SECTIONS,
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


@cli.command("completion", epilog=_COMPLETION_EPILOG)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script for SHELL; nothing is installed."""
    from click.shell_completion import ShellComplete, get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the three shells are click's own
    # The base class's source: bash's own first starts a shell to ask its version.
    click.echo(ShellComplete.source(kind(cli, {}, "tautools", "_TAUTOOLS_COMPLETE")).strip())
