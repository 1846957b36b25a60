"""The terminal as the place where a person plays the customer."""

from __future__ import annotations

import os
import select
import shutil
import sys
from typing import TYPE_CHECKING

import click

from tautools.errors import NobodyThereError

if TYPE_CHECKING:
    import threading

    from tautools.bench.users.person import Question

__all__ = ["TerminalPerson"]

_LOOK_S = 0.2
"""How long a line is waited for before looking whether anybody still wants it [s]."""


class TerminalPerson:
    """Shows a person its part and what the agent says, and reads lines from standard input."""

    def __init__(self) -> None:
        self._rest = b""
        self._asked: Question | None = None

    def __call__(self, question: Question, gone: threading.Event) -> str:
        """Ask for one line."""
        if question is not self._asked:  # an empty line is asked for again
            self._asked = question
            _show(question)
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
                raise NobodyThereError(
                    "The person who plays the customer has left.",
                    next_step="Run it again to go on: what is finished is kept, the conversation left open is owed.",
                )
            self._rest += more or b"\n"
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode(errors="replace").strip()


def _show(question: Question) -> None:
    if question.heard is not None:
        click.echo(f"\n{click.style('Agent', fg='green', bold=True)}  {question.heard}")
        return
    head = f"─── Task {question.task_id}: you are the customer "
    click.secho(f"\n{head:─<72}", bold=True)
    click.echo(click.wrap_text(question.instruction, width=shutil.get_terminal_size().columns))
    click.secho(f"Write {question.stop_word} when you have what you want; Ctrl-D leaves.", dim=True)
