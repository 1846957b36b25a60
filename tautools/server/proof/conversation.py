"""The upper rungs: a chat, tool calls and a turn after a tool's result, through the door that the benchmark uses."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tautools.errors import CallFault, ModelCallError
from tautools.server.failures.causes import diagnose_answer
from tautools.server.proof.ladder import Climb, Finding
from tautools.server.proof.probe import ask, short

if TYPE_CHECKING:
    from tautools.llm.types import Endpoint, Message, Reply, ToolSpec

__all__ = ["chat", "tool_calls"]

_NO_PARSER = (
    "the server reads no tool calls; start it with `tool_call_parser` in its server file "
    "(`hermes` for Qwen3), which also sets --enable-auto-tool-choice"
)
_WORD = "ready"
_BEGINNING = 32
"""Tokens of the answer to a tool's result: that one begins shows that the template takes such a turn."""
_TOOL: ToolSpec = {
    "type": "function",
    "function": {
        "name": "get_order_status",
        "description": "Look up the status of an order.",
        "parameters": {
            "type": "object",
            "properties": {"order_id": {"type": "string", "description": "Such as #W0000000."}},
            "required": ["order_id"],
        },
    },
}
_QUESTION: list[Message] = [
    {
        "role": "system",
        "content": "You are a customer service agent. Look orders up with your tools before you answer.",
    },
    {"role": "user", "content": "What is the status of my order #W0000000?"},
]


def chat(state: Climb) -> Finding:
    """Rung 5: one answer at temperature 0, not empty, and the server says why it ended."""
    messages: list[Message] = [{"role": "user", "content": f"Answer with the one word: {_WORD}"}]
    reply = ask(state.endpoint, messages)
    said = f"answered {short(reply.text)}, finish reason {reply.finish_reason or 'none'}"
    if not reply.text.strip():
        silent = diagnose_answer(reply.text, reasoning=reply.thinking, asked_tools=False)
        why = f"{silent.cause} {silent.remedy}" if silent is not None else "an empty answer"
        return Finding(False, f"{why} (finish reason {reply.finish_reason or 'none'})")
    if not reply.finish_reason:
        return Finding(False, f"{said}: the answer did not end properly")
    if _WORD in reply.text.lower():
        return Finding(True, said)
    # A simulated server follows the request to the letter. Of a model nothing more is asked than words: a small or
    # random one is a working server too.
    return Finding(not state.endpoint.simulated, f"{said}, not the word it was asked for")


def tool_calls(state: Climb) -> Finding:
    """Rung 7: a call that is asked for, one that the model may choose, and an answer to the tool's result."""
    try:
        forced, free = _ask_both(state.endpoint)
        problem = _call_problem(forced)
        if problem:
            return Finding(False, f"forced call: {problem}")
        odd = diagnose_answer(free.text, tool_calls=len(free.tool_calls))
        if odd is not None:
            return Finding(False, f"free call: it came as text, {short(odd.evidence)}. {odd.cause} {_NO_PARSER}")
        after = ask(
            state.endpoint, [*_QUESTION, forced.message, *_results(forced)], tools=[_TOOL], max_tokens=_BEGINNING
        )
    except ModelCallError as error:
        if error.fault is CallFault.REFUSED and "tool" in f"{error.problem} {error.evidence}".lower():
            return Finding(False, f"{_NO_PARSER}. It said: {short(error.evidence or error.problem, 200)}")
        raise
    if not (after.text.strip() or after.tool_calls or after.thinking):
        return Finding(False, "nothing was answered to the tool's result")
    chosen = "a free call was made" if free.tool_calls else "left free, the model chose to make no call"
    return Finding(True, f"forced call parsed, {chosen}, the tool's result was answered")


def _ask_both(endpoint: Endpoint) -> tuple[Reply, Reply]:
    """Ask for a forced and for a free call side by side: a server's first ones take it a second each."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        forced = pool.submit(ask, endpoint, _QUESTION, tools=[_TOOL], tool_choice="required")
        free = pool.submit(ask, endpoint, _QUESTION, tools=[_TOOL])
        return forced.result(), free.result()


def _call_problem(reply: Reply) -> str:
    if not reply.tool_calls:
        return f"no call came back, but {short(reply.text)}; {_NO_PARSER}"
    call = reply.tool_calls[0]
    if call.name != "get_order_status":
        return f"a tool that does not exist was called: {short(call.name)}"
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return f"its arguments are not JSON: {short(call.arguments)}"
    if not isinstance(arguments, dict):
        return (
            f"its arguments are not an object: {short(call.arguments)}; "
            "vLLM 0.32 and later hold a model to the schema with --tool-strict-level parameter"
        )
    return ""


def _results(reply: Reply) -> list[Message]:
    content = json.dumps({"order_id": "#W0000000", "status": "delivered"})
    return [
        {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": content} for call in reply.tool_calls
    ]
