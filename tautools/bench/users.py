"""A person plays the customer; how it is asked can be changed."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TypeAlias

from tautools.bench.types import AskModel, Observation, Participant, Turn
from tautools.errors import HumanUnavailableError


@dataclass(frozen=True, slots=True)
class PersonQuestion:
    """What a person is to answer."""

    task_id: str
    instruction: str
    """The part to play, the same for the whole conversation."""
    heard: str | None
    """What the agent said; None for the customer's first words."""
    stop_word: str
    """What ends the conversation when it is written."""


AskPerson: TypeAlias = "Callable[[PersonQuestion, threading.Event], str]"
"""Asks and waits, in a thread of its own. It may return early when the event is set: no answer is needed any more.
It raises `HumanUnavailableError`, `EOFError` or `KeyboardInterrupt` when no answer will come."""


def _ask_by_input(question: PersonQuestion, _cancelled: threading.Event) -> str:
    """Ask as Python asks: on the terminal, or in the box that a notebook shows below its cell."""
    text = question.instruction if question.heard is None else question.heard
    return input(f"[task {question.task_id}] {text}\n({question.stop_word} ends it) > ")


_ask_person: AskPerson = _ask_by_input


@contextlib.contextmanager
def ask_person_with(ask: AskPerson) -> Iterator[None]:
    """Ask persons in another way while the block runs, in the whole process."""
    global _ask_person  # noqa: PLW0603 - there is one person, and one way to reach it
    before, _ask_person = _ask_person, ask
    try:
        yield
    finally:
        _ask_person = before


class PersonCustomer(Participant):
    """The customer's side of one conversation, kept as its model would see it."""

    def __init__(self, task_id: str, instruction: str, stop_word: str) -> None:
        super().__init__(instruction)
        self._question = PersonQuestion(task_id, instruction, None, stop_word)

    def add_persona(self, text: str) -> None:
        """Show `text` to the person with its part."""
        super().add_persona(text)
        self._question = replace(self._question, instruction=self._question.instruction + text)

    def receive(self, text: str) -> None:
        """Take in what the agent said."""
        super().receive(text)
        self._question = replace(self._question, heard=text)

    async def next_turn(self, ask: AskModel) -> Turn:  # noqa: ARG002 - no model is asked
        """Ask the person until it says something."""
        text = ""
        while not text.strip():
            text = await _ask_in_thread(_ask_person, self._question)
        return Turn.of_text(text)

    def observe(self, turn: Turn, observations: Sequence[Observation]) -> None:  # noqa: ARG002 - no tools here
        """Keep what was said."""
        self.messages.append({"role": "assistant", "content": turn.text})


async def _ask_in_thread(ask: AskPerson, question: PersonQuestion) -> str:
    """Wait for a person in a daemon thread, so that a conversation that is given up does not wait for the answer."""
    answer: Future[str] = Future()
    answer.set_running_or_notify_cancel()  # from now on only the thread settles it
    cancelled = threading.Event()

    def work() -> None:
        try:
            answer.set_result(ask(question, cancelled))
        except HumanUnavailableError as error:
            answer.set_exception(error)
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised where the answer is awaited
            wordless = isinstance(error, EOFError | KeyboardInterrupt)
            said = str(error) or type(error).__name__
            fault = HumanUnavailableError(
                "Nobody answers as the customer.",
                evidence=said if wordless else f"{type(error).__name__}: {error}",
                next_step="Run it again where a person can type; what was finished is kept, this conversation is "
                "pending.",
            )
            answer.set_exception(fault)

    threading.Thread(target=work, name="ask a person", daemon=True).start()
    try:
        return await asyncio.wrap_future(answer)
    finally:
        cancelled.set()
