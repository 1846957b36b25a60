"""Ask a server a question of our own, through the door that the benchmark uses."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tautools.errors import ModelCallError
from tautools.records import Party, Role, Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.llm.types import Endpoint, Message, Reply, ToolSpec

__all__ = ["ask", "ask_at_once", "short"]


def ask(
    endpoint: Endpoint,
    messages: Sequence[Message],
    *,
    tools: Sequence[ToolSpec] | None = None,
    max_tokens: int = 512,
    **extra: Any,
) -> Reply:
    """Return one answer at temperature 0.

    Parameters
    ----------
    endpoint : Endpoint
        The server.
    messages : sequence of Message
        The question.
    tools : sequence of ToolSpec, optional
        What the model may call.
    max_tokens : int
        Most tokens of the answer, thinking included.
    **extra
        Further fields of the request, such as `tool_choice`.

    Raises
    ------
    ModelCallError
        When no answer comes.
    """
    (reply,) = _ask_all(endpoint, [messages], tools, max_tokens, extra, attempts=2)
    if isinstance(reply, ModelCallError):
        raise reply
    return reply


def ask_at_once(
    endpoint: Endpoint, questions: Sequence[Sequence[Message]], *, max_tokens: int
) -> list[Reply | ModelCallError]:
    """Ask all questions at the same moment and return the answers in their order; a failed one is its error."""
    return _ask_all(endpoint, questions, None, max_tokens, {}, attempts=1)


def short(text: str, most: int = 80) -> str:
    """Return `text` in one line and in quotes, cut to `most` characters."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= most else flat[: most - 1] + "…")


def _ask_all(
    endpoint: Endpoint,
    questions: Sequence[Sequence[Message]],
    tools: Sequence[ToolSpec] | None,
    max_tokens: int,
    extra: dict[str, Any],
    *,
    attempts: int,
) -> list[Reply | ModelCallError]:
    from tautools.llm import ModelDoor, Retry
    from tautools.llm.types import CallTag

    party = Party(model=endpoint.model, sampling=Sampling(temperature=0, max_tokens=max_tokens, extra_body=extra))
    tag = CallTag(role=Role.PROBE, purpose="probe", seed=0)

    async def one(door: ModelDoor, messages: Sequence[Message]) -> Reply | ModelCallError:
        try:
            return await door.complete(tag, messages, tools)
        except ModelCallError as error:
            return error

    async def all_of_them() -> list[Reply | ModelCallError]:
        async with ModelDoor(lambda _role: [endpoint], {Role.PROBE: party}, retry=Retry(attempts=attempts)) as door:
            return await asyncio.gather(*(one(door, messages) for messages in questions))

    # A thread with a loop of its own, so that it works inside a notebook's running loop too.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, all_of_them()).result()
