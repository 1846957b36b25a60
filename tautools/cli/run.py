"""`tautools run`: one cell, from flags alone or with a file of params; a person may play the customer."""

import contextlib
import os
import select
import shutil
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import click

from tautools.bench.users import PersonQuestion, ask_person_with
from tautools.cli.commands import EXIT_INTERRUPTED, EXIT_UNFINISHED, command, exit_if, wants_json
from tautools.cli.options import dry_run_option, run_flags, run_options, set_option, show_config_option, usual_options
from tautools.cli.output import cell_progress, cell_result_dict, emit, pick, show_resolved
from tautools.errors import HumanUnavailableError, ParamsError
from tautools.params import resolve_run, workspace_site
from tautools.records import Event, Strategy, UserStrategy
from tautools.run import Cell, prepare_cell, run_cell
from tautools.run.answers import STOPS_EARLY
from tautools.run.context import context_forecasts
from tautools.run.plan import judging_note, limits_note

_LOOK_S = 0.2
"""How long a line is waited for before looking whether it is still wanted [s]."""


class TerminalPerson:
    """Shows a person its part and what the agent says, and reads lines from standard input."""

    def __init__(self) -> None:
        self._rest = b""
        self._asked: PersonQuestion | None = None

    def __call__(self, question: PersonQuestion, gone: threading.Event) -> str:
        """Ask for one line."""
        if question is not self._asked:  # an empty line is asked for again
            self._asked = question
            _show_question(question)
        click.echo(click.style("You", fg="cyan", bold=True) + "    ", nl=False)
        return self._line(gone)

    def _line(self, gone: threading.Event) -> str:
        while b"\n" not in self._rest:
            if gone.is_set():
                return ""
            if not select.select([sys.stdin.fileno()], [], [], _LOOK_S)[0]:
                continue
            more = os.read(sys.stdin.fileno(), 65536)
            if not more and not self._rest:
                click.echo()
                raise HumanUnavailableError(
                    "The person who plays the customer has left.",
                    next_step="Run it again to go on: what is finished is kept, the conversation left open is pending.",
                )
            self._rest += more or b"\n"
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace").strip()


def _show_question(question: PersonQuestion) -> None:
    if question.heard is not None:
        click.echo(f"\n{click.style('Agent', fg='green', bold=True)}  {question.heard}")
        return
    head = f"─── Task {question.task_id}: you are the customer "
    click.secho(f"\n{head:─<72}", bold=True)
    click.echo(click.wrap_text(question.instruction, width=shutil.get_terminal_size().columns))
    click.secho(f"Write {question.stop_word} when you have what you want; Ctrl-D leaves.", dim=True)


@command(
    "tautools run --env retail --strategy fc --model Qwen/Qwen3-8B --limit 2",
    "tautools run --env airline --strategy react --model M --base-url http://gaudi001:8007/v1 \\",
    "    --key-env MY_KEY --user-model Qwen/Qwen3-32B --num-trials 4",
    "tautools run --env retail --server sim-small --user-server sim-user --start-servers --limit 5",
    "tautools run --env retail --strategy experts --server sim-small --user-server sim-user \\",
    "    --expert quick=sim-small --expert strong=sim-large --start-servers --limit 2",
    "tautools run --env retail --model M --task-ids 0-3,17 --set agent.top_p=0.9 --dry-run",
    name="run",
    notes="Exit codes: 0 all done, 2 bad input, 3 work is still pending (run it again), 130 interrupted.",
)
@run_options()
@click.option("--file", type=click.Path(), default=None, help="YAML file with the params of one run.")
@set_option
@show_config_option
@dry_run_option
@click.option("--start-servers", is_flag=True, help="Start the named servers that do not run, and stop those after.")
@usual_options
def run_command(file: str | None, overrides: tuple[str, ...], workspace: Path, **options: Any) -> None:
    """Run the pending conversations of one cell. What is finished is never run again.

    The models are found among the servers of the workspace, or at the addresses given. Without a customer's model, the
    agent's plays the customer too.
    """
    resolved = resolve_run(run_flags(options), workspace=workspace, file=file, overrides=overrides)
    run = resolved.params
    if options["experts"] and run.strategy is not Strategy.EXPERTS:
        raise ParamsError(
            f"--expert names experts, and the strategy is {run.strategy.value}.",
            next_step="Add --strategy experts, or leave --expert out.",
        )
    if options["show_config"]:
        show_resolved(resolved)
        return
    cell = prepare_cell(run, workspace=workspace)  # bad input ends here, before any start
    if options["dry_run"]:
        plan = plan_dict(cell)
        emit(plan, text=lambda: plan_text(cell, plan))
        return
    by_person = run.user_strategy is UserStrategy.HUMAN  # a bar would write over what it reads
    servers: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if options["start_servers"] and cell.pending:
        from tautools.sweep import SweepCell, serving

        needed = [SweepCell(0, run, run.env)]
        servers = serving(
            needed, workspace=workspace, site=workspace_site(workspace), report=partial(click.echo, err=True)
        )
    with servers, ask_person_with(TerminalPerson()), cell_progress(cell, quiet=by_person) as show:
        result = run_cell(cell, on_event=_print_for_person if by_person and not wants_json() else show)
    emit(cell_result_dict(result), text=str(result))
    exit_if(not result.finished, EXIT_INTERRUPTED if result.interrupted else EXIT_UNFINISHED)


def _print_for_person(event: Event) -> None:
    if event.kind == "done":
        click.echo(f"\n{event.message}")
    elif event.kind == "interrupted":
        left_s = event.data["grace_s"]
        click.echo(f"\nBring this conversation to its end within {left_s:.0f} s, or interrupt again to leave it open.")


def plan_dict(cell: Cell) -> dict[str, Any]:
    """Return what a program reads of a planned cell."""
    counts = {"planned": len(cell.planned), "done": len(cell.done), "pending": len(cell.pending)}
    return {
        **pick(cell.setting, "env simulated"),
        "folder": cell.folder,
        "setting_id": cell.setting.id,
        "tasks": [task.id for task in cell.tasks],
        "num_trials": cell.run.num_trials,
        **counts,
        "limits": limits_note(cell.run, cell.models.configs),
        "awaiting_judge": judging_note(cell.setting, cell.tasks),
        "stops_early": STOPS_EARLY if cell.run.stop_hopeless and cell.pending else "",
        "context": [str(forecast) for forecast in context_forecasts(cell) if forecast.exceeding],
    }


def plan_text(cell: Cell, plan: dict[str, Any]) -> str:
    """Return a planned cell as a person reads it."""
    mark = " [SIMULATED]" if plan["simulated"] else ""
    counts = f"{len(plan['tasks'])} tasks x {plan['num_trials']} trials = {plan['planned']} conversations"
    lines = [
        f"{cell.setting.env} {cell.setting.strategy.value} {cell.setting.agent.model}{mark}: {counts}",
        f"{plan['done']} done, {plan['pending']} pending",
        f"results in {cell.folder} (setting {plan['setting_id']})",
        plan["limits"],
        plan["awaiting_judge"],
        plan["stops_early"],
        *plan["context"],
    ]
    return "\n".join(filter(None, lines))
