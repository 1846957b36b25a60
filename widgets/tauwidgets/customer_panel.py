"""CustomerPanel: a person plays the customer in a notebook, with the part to play and the talk so far."""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipywidgets

from tautools.bench.users import PersonQuestion, ask_person_with
from tautools.errors import HumanUnavailableError, ParamsError
from tautools.params.models import RunParams
from tautools.records import UserStrategy
from tautools.run import Stop, run_cell
from tauwidgets.panel import Notice, Panel, Rendered, button, escape

POLL_S = 0.2
"""How long to wait for a line before checking whether it is still wanted [s]."""


@dataclass(frozen=True, slots=True)
class _CustomerSnapshot:
    """What the panel shows."""

    question: PersonQuestion | None
    messages: tuple[tuple[str, str], ...]
    """Who spoke and what, in order."""
    notice: Notice


class CustomerPanel(Panel):
    """One run in which a person answers for the customer; what is finished is kept, whenever the person leaves.

    Parameters
    ----------
    run : RunParams
        With the user strategy `human`.
    workspace : path, optional
        The folder of results; the current one by default.

    Raises
    ------
    ParamsError
        When a model is to play the customer.
    """

    def __init__(self, run: RunParams, workspace: str | Path = ".") -> None:
        if run.user_strategy is not UserStrategy.HUMAN:
            raise ParamsError(
                f"The customer of this run is played by {run.user_strategy.value}, not by a person.",
                next_step="Set user_strategy to human.",
            )
        super().__init__()
        self._run = run
        self._workspace = Path(workspace)
        self._question: PersonQuestion | None = None
        self._messages: list[tuple[str, str]] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._start = button("start", "Start", "play", button_style="primary")
        self._leave = button("leave", "Leave", "stop")
        self._send = button("say", "Say it", "comment")
        self._line = ipywidgets.Text(placeholder="What you say", layout={"width": "60%"})
        self._line.add_class("tau-line")
        self._start.on_click(lambda _: self.act("Playing", self._play, self._start))
        self._leave.on_click(lambda _: self._lines.put(""))
        self._send.on_click(lambda _: self._say_it())
        self._line.on_msg(lambda _, content, __: self._say_it() if content.get("event") == "submit" else None)

    def controls(self) -> Sequence[Any]:
        """Return the buttons and the line to write."""
        return [ipywidgets.HBox([self._start, self._leave]), ipywidgets.HBox([self._line, self._send])]

    def snapshot(self) -> _CustomerSnapshot:
        """Read the conversation so far."""
        return _CustomerSnapshot(self._question, tuple(self._messages), self.notice)

    def render(self, snapshot: _CustomerSnapshot) -> Rendered:
        """Turn the talk into HTML and text."""
        part = snapshot.question
        head = "No conversation yet: press Start." if part is None else f"Task {part.task_id}: you are the customer"
        role = "" if part is None else f"{part.instruction} Write {part.stop_word} when you have what you want."
        lines = [head, role, *(f"{who}: {text}" for who, text in snapshot.messages), snapshot.notice.text]
        rows = "".join(f"<p><b>{escape(who)}</b> {escape(text)}</p>" for who, text in snapshot.messages)
        page = f"<h3>{escape(head)}</h3><p><i>{escape(role)}</i></p>{rows}{snapshot.notice.to_html()}"
        return Rendered(page, "\n".join(line for line in lines if line))

    def close(self) -> None:
        """Leave, and stop the writer thread."""
        self._lines.put("")
        super().close()

    def ask(self, question: PersonQuestion, gone: threading.Event) -> str:
        """Show what the agent said and wait for the person's line."""
        if question is not self._question:
            if question.heard is None:
                self._messages = []
            else:
                self._messages.append(("Agent", question.heard))
            self._question = question
        while not gone.is_set() and threading.main_thread().is_alive():
            try:
                line = self._lines.get(timeout=POLL_S)
            except queue.Empty:
                continue
            if not line:
                raise HumanUnavailableError(
                    "The person who plays the customer has left.",
                    next_step="Press Start to go on: what is finished is kept, the conversation left open is pending.",
                )
            self._messages.append(("You", line))
            return line
        return ""

    def _play(self) -> str:
        while not self._lines.empty():
            self._lines.get()
        with ask_person_with(self.ask):
            return str(run_cell(self._run, workspace=self._workspace, stop=Stop()))

    def _say_it(self) -> None:
        line, self._line.value = self._line.value.strip(), ""
        if line:
            self._lines.put(line)
