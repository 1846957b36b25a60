"""Whose words a server refuses: a request can be wrong because of what a model wrote earlier in the conversation.

Servers differ in what they take back: empty messages, calls without a name or with one that the API does not allow,
arguments that a chat template cannot read, letters of odd kinds. No list of such oddities is whole, so the server is
asked: the same request with one side's words replaced by plain ones, as long as before and in messages and calls of the
same shape. When that is accepted, and the request as it was is refused once more, those words are the cause. Whatever
else refuses (sampling, a missing tool parser, a template without tools, a full context) refuses the plain words too.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from tautools.bench.agents.text import TOOL_OUTPUT
from tautools.errors import ModelCallError
from tautools.llm.types import Message, ToolSpec

Accepts: TypeAlias = "Callable[[Sequence[Message]], Awaitable[bool]]"
"""Sends these messages and says whether the server took them."""

_MAY_BE_CONTENT = {400, 422, 500}
"""Statuses of a request that is wrong; some servers answer 500 when their chat template raises."""

_SIDES = (("assistant",), ("user",), ("assistant", "user"))


def may_refuse_words(error: ModelCallError) -> bool:
    """Whether the fault may be what the messages say; an answer that breaks off had its request accepted."""
    return error.status in _MAY_BE_CONTENT and not error.in_answer


async def refused_side(accepts: Accepts, messages: Sequence[Message], tools: Sequence[ToolSpec] | None) -> str:
    """Return whose words the server refuses: `assistant`, `user`, `both` where either's would do, or an empty string.

    Parameters
    ----------
    accepts : Accepts
        What it raises is raised here.
    messages : Sequence[Message]
        As they were refused; what tools answered belongs to the side of `assistant`, who called them.
    tools : Sequence[ToolSpec], optional
        As they were offered.
    """
    for side in _SIDES:
        plain = with_plain_words(messages, side, tools)
        if plain != list(messages) and await accepts(plain) and not await accepts(messages):
            return side[0] if len(side) == 1 else "both"
    return ""


def with_plain_words(
    messages: Sequence[Message], sides: Sequence[str], tools: Sequence[ToolSpec] | None
) -> list[Message]:
    """Return the messages with plain words in place of those of some sides (`assistant`, `user`)."""
    names = [str(tool["function"]["name"]) for tool in tools or []] or ["tool"]
    return [_plain_message(each, names) if _side_of(each) in sides else each for each in messages]


def _side_of(message: Message) -> str:
    content = message.get("content")
    of_tool = message["role"] == "tool" or (isinstance(content, str) and content.startswith(TOOL_OUTPUT))
    return "assistant" if of_tool else str(message["role"])


def _plain_message(message: Message, names: Sequence[str]) -> Message:
    calls, content = message.get("tool_calls"), message.get("content")
    plain = dict(message)
    if content or not calls:
        plain["content"] = _plain_text(content if isinstance(content, str) else json.dumps(content))
    if "name" in message:
        plain["name"] = _known(message["name"], names)
    if calls:
        plain["tool_calls"] = [_plain_call(call, names) for call in calls]
    return plain


def _plain_call(call: Message, names: Sequence[str]) -> Message:
    function = call["function"]
    arguments = json.dumps({"text": _plain_text(str(function["arguments"]))})
    return {**call, "function": {**function, "name": _known(function["name"], names), "arguments": arguments}}


def _known(name: object, names: Sequence[str]) -> str:
    return str(name) if name in names else names[0]


def _plain_text(text: str) -> str:
    """Return words as long as `text`, at least one; they have no fewer tokens than usual prose."""
    return ("ok " * (len(text) // 3 + 1))[: max(2, len(text))]
