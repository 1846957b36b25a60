"""A person plays the customer: whoever runs the conversation says how that person is asked."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from tautools.bench.agents.move import Move
from tautools.errors import NobodyThereError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tautools.bench.agents.move import Ask
    from tautools.bench.types import Observation
    from tautools.llm.types import Message

__all__ = ["AskPerson", "PersonCustomer", "Question", "answered_by"]


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is to answer."""

    task_id: str
    instruction: str
    """The part to play, the same for the whole conversation."""
    heard: str | None
    """What the agent said; None for the customer's first words."""
    stop_word: str
    """What ends the conversation when it is written."""


AskPerson: TypeAlias = "Callable[[Question, threading.Event], str]"
"""Asks and waits; called in a thread of its own. It may return early when the event is set: nobody wants the answer.
It raises `NobodyThereError`, `EOFError` or `KeyboardInterrupt` when no answer will come."""


def _by_input(question: Question, _gone: threading.Event) -> str:
    """Ask as Python asks: on the terminal, or in the box that a notebook shows below its cell."""
    told = question.instruction if question.heard is None else question.heard
    return input(f"[task {question.task_id}] {told}\n({question.stop_word} ends it) > ")


_ask_person: AskPerson = _by_input


@contextlib.contextmanager
def answered_by(ask: AskPerson) -> Iterator[None]:
    """Ask persons in another way while the block runs, in the whole process."""
    global _ask_person  # noqa: PLW0603 - there is one person, and one way to reach it
    before, _ask_person = _ask_person, ask
    try:
        yield
    finally:
        _ask_person = before


class PersonCustomer:
    """The customer's side of one conversation, kept as its model would see it."""

    def __init__(self, task_id: str, instruction: str, stop_word: str) -> None:
        self.messages: list[Message] = [{"role": "system", "content": instruction}]
        self._opening = Question(task_id, instruction, None, stop_word)
        self._heard: str | None = None

    def wear(self, text: str) -> None:
        """Show `text` to the person with its part."""
        self._opening = replace(self._opening, instruction=self._opening.instruction + text)
        self.messages[0] = {"role": "system", "content": self._opening.instruction}

    def hear(self, text: str) -> None:
        """Take in what the agent said."""
        self._heard = text
        self.messages.append({"role": "user", "content": text})

    async def move(self, ask: Ask) -> Move:  # noqa: ARG002 - no model is asked
        """Ask the person until it says something."""
        question = replace(self._opening, heard=self._heard)
        said = ""
        while not said.strip():
            said = await _in_a_thread(_ask_person, question)
        return Move(said=said, wrote=said)

    def acted(self, move: Move, observations: Sequence[Observation]) -> None:  # noqa: ARG002 - a person calls no tools
        """Keep what was said."""
        self.messages.append({"role": "assistant", "content": move.said})


async def _in_a_thread(ask: AskPerson, question: Question) -> str:
    """Wait for a person in a thread that nobody waits for when the conversation is given up."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str] = loop.create_future()
    gone = threading.Event()

    def settle(said: str | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(said or "")

    def work() -> None:
        said, fault = None, None
        try:
            said = ask(question, gone)
        except (EOFError, KeyboardInterrupt) as error:
            fault = _nobody(str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001 - handed over to the coroutine that waits
            fault = error if isinstance(error, NobodyThereError) else _nobody(f"{type(error).__name__}: {error}")
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, said, fault)

    threading.Thread(target=work, name="ask a person", daemon=True).start()
    try:
        return await answer
    finally:
        gone.set()


def _nobody(why: str) -> NobodyThereError:
    return NobodyThereError(
        "Nobody answers as the customer.",
        evidence=why,
        next_step="Run it again where a person can type; what was finished is kept, this conversation is owed.",
    )
