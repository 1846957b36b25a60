"""Stands in for a model where a benchmark's own code asks one, so that this code decides what is asked and said.

The code runs until it wants an answer that it was not given; then it is left, the answer is fetched, and it runs again
from where it began with one answer more. It is quick and has no side effects but on what the caller puts back, so its
rules need not be written a second time. Nothing here waits for a model or knows one.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from tautools.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tautools.bench.agents.move import Ask
    from tautools.llm.types import Message, Reply, ToolSpec

__all__ = ["Asked", "answered", "play", "stand_in_litellm"]

T = TypeVar("T")


class Asked(BaseException):
    """The benchmark's code wants an answer that it was not given."""

    def __init__(self, messages: Sequence[Message], tools: Sequence[ToolSpec] | None) -> None:
        super().__init__("a model is asked")
        self.messages = list(messages)
        self.tools = tools


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer's message as litellm hands it out; v1's verifying user shows its text form to the model."""

    content: str | None
    tool_calls: list[dict[str, Any]] | None
    role: str = "assistant"

    def model_dump(self) -> Message:
        """Return the message as it enters a history."""
        message: Message = {"role": self.role, "content": self.content}
        return message | {"tool_calls": self.tool_calls} if self.tool_calls else message

    def __str__(self) -> str:
        return (
            f"Message(content={self.content!r}, role={self.role!r}, tool_calls={self.tool_calls!r}, "
            "function_call=None, provider_specific_fields=None)"
        )


_answers: ContextVar[Iterator[Reply] | None] = ContextVar("answers", default=None)


def answered(given: Sequence[Reply], do: Callable[[], T]) -> T:
    """Run the benchmark's code with the answers it is given.

    Raises
    ------
    Asked
        When it wants one more.
    """
    token = _answers.set(iter(given))
    try:
        return do()
    finally:
        _answers.reset(token)


async def play(do: Callable[[], T], put_back: Callable[[], None], ask: Ask) -> T:
    """Run the benchmark's code to its end, by as many requests as it makes.

    Parameters
    ----------
    do : callable
        The code.
    put_back : callable
        Undoes what `do` changed before it was left.
    ask : Ask
        One model request.
    """
    given: list[Reply] = []
    while True:
        try:
            return answered(given, do)
        except Asked as asked:
            messages, tools = asked.messages, asked.tools
        # What a user model is asked about its own draft comes without the conversation's system prompt.
        purpose = "chat" if messages[0]["role"] == "system" else "check"
        given.append(await ask(messages, tools, purpose=purpose))
        put_back()


def stand_in_litellm() -> ModuleType:
    """Return a module that gives the benchmark's code what it imports from litellm."""
    module = ModuleType("litellm")
    vars(module).update({"completion": _completion, "provider_list": [], "__getattr__": _unknown})
    return module


def _completion(*_: Any, messages: Sequence[Message], tools: Sequence[ToolSpec] | None = None, **__: Any) -> Any:
    given = _answers.get()
    if given is None:
        raise BenchError(
            "The benchmark's code asks a model outside of a conversation.",
            next_step="Please report this checkout; the one that tautools knows does not.",
        )
    reply = next(given, None)
    if reply is None:
        raise Asked(messages, tools)
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in reply.tool_calls
    ]
    answer = _Answer(reply.text, calls or None)
    return SimpleNamespace(choices=[SimpleNamespace(message=answer)], _hidden_params={"response_cost": 0.0})


def _unknown(name: str) -> Any:
    """Give what else may be imported from litellm, which are classes of errors that never occur here."""
    if name.startswith("_"):
        raise AttributeError(name)
    return type(name, (Exception,), {})
