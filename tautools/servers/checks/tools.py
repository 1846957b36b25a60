"""Check 7: whether a server gives tool calls, and what it lacks where it does not.

A server without tool calls is no broken server: act, react and a customer without tools do not need them. So what is
missing is noted, with what to do, and only those who need tool calls refuse the server.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from tautools.errors import CallFault, ModelCallError
from tautools.files import packaged_yaml
from tautools.llm.types import Message, Reply, ToolSpec
from tautools.servers.checks.target import CheckContext, CheckFailedError, NotApplicableError, ask, require, short
from tautools.servers.diagnose import diagnose_answer

TOOL_CALLS = "tool calls"
"""What a certificate says that a server is without."""
_MOST_TOKENS = 512
_NO_PARSER = (
    "the server reads no tool calls; start it with `tool_call_parser` in its server file (`hermes` for Qwen3; vLLM's "
    "--tool-call-parser), which also sets --enable-auto-tool-choice"
)
_HOLD = (
    "vLLM 0.32 and later hold a model to a tool's schema with `args: {tool_strict_level: parameter}` in the server "
    "file (--tool-strict-level parameter)"
)
_BY_TOOLS_ALONE = {CallFault.REFUSED, CallFault.SERVER_FAULT, CallFault.MALFORMED, CallFault.CONTEXT_OVERFLOW}
"""Faults that a request with tools meets where one without tools is answered."""
_PROMPT = "You are a customer service agent. Look orders up with your tools before you answer."
_QUESTION: list[Message] = [
    {"role": "system", "content": _PROMPT},
    {"role": "user", "content": "What is the status of my order #W0000000?"},
]
_LEAST_TOKENS = len(f"{_PROMPT} {_QUESTION[1]['content']}".split())
"""A server that counts fewer tokens in the question than it has words does not say how long a prompt is."""


@cache
def run_tools() -> tuple[ToolSpec, ...]:
    """Return tools of the size of a benchmark's env; the first one looks an order up."""
    found = packaged_yaml("tautools.servers.checks", "tools.yaml")
    return tuple(_tool(name, says, takes) for name, (says, takes) in found.items())


def _tool(name: str, says: str, takes: dict[str, list[Any]]) -> ToolSpec:
    rule = "Tell the customer what will be done and wait for a plain yes before anything is changed for good."
    properties = {
        key: ({"type": "array", "items": {"type": kind[0]}} if isinstance(kind, list) else {"type": kind})
        | {"description": f"{key.replace('_', ' ').capitalize()}. {what}".strip()}
        for key, (kind, what) in takes.items()
    }
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    description = f"{says} {rule} An id that does not exist is answered with an error."
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def check_tool_calls(context: CheckContext) -> str:
    """Check 7: a call that is asked for, one that the model may choose, and an answer to the tool's result."""
    try:
        return _try_tool_calls(context)
    except CheckFailedError as error:
        missing = str(error)
    except ModelCallError as error:
        if error.fault not in _BY_TOOLS_ALONE:
            raise
        advice = f"{_NO_PARSER}. " if "tool" in error.seen.lower() else "a request with a run's tools fails. "
        missing = f"{advice}It said: {short(error.evidence or error.problem, 200)}"
    context.without[TOOL_CALLS] = missing
    raise NotApplicableError(f"without tool calls, so for act, react and customers, not for fc: {missing}")


def _try_tool_calls(context: CheckContext) -> str:
    endpoint, tools = context.endpoint, run_tools()
    with ThreadPoolExecutor(max_workers=3) as pool:  # a server's first calls take it a second each
        forced = pool.submit(ask, endpoint, _QUESTION, tools=tools[:1], max_tokens=_MOST_TOKENS, tool_choice="required")
        free = pool.submit(ask, endpoint, _QUESTION, tools=tools, max_tokens=_MOST_TOKENS)
        bare = pool.submit(ask, endpoint, _QUESTION, max_tokens=1)
    _require_call(forced.result())
    _require_shown(bare.result(), free.result(), len(tools))
    calls, text = free.result().tool_calls, free.result().text
    if not calls and (known := diagnose_answer(text)):
        advice = f"{known.fix} (vLLM's --tool-call-parser)"
        raise CheckFailedError(f"free call: it came as text, {short(known.evidence)}. {known.cause} {advice}")
    result = {"role": "tool", "content": json.dumps({"order_id": "#W0000000", "status": "delivered"})}
    results = [result | {"tool_call_id": call.id, "name": call.name} for call in forced.result().tool_calls]
    # 32 tokens: that an answer begins shows that the template takes such a turn.
    after = ask(endpoint, [*_QUESTION, forced.result().message, *results], tools=tools[:1], max_tokens=32)
    require(after.text.strip() or after.tool_calls or after.thinking, "nothing was answered to the tool's result")
    chosen = "a free call was made" if calls else "left free, the model chose to make no call"
    return f"forced call parsed, {chosen} with {len(tools)} tools, the tool's result was answered"


def _require_call(reply: Reply) -> None:
    """Require one whole call with an object as arguments; a cut answer is another fault than a malformed one."""
    cut = f"cut after {_MOST_TOKENS} tokens (finish reason length)" if reply.finish_reason == "length" else ""
    if not reply.tool_calls:
        why = f"the answer was {cut} before a call was there; {_HOLD}; else" if cut else "no call came back;"
        raise CheckFailedError(f"forced call: {why} {_NO_PARSER}. It said {short(reply.text or reply.thinking)}")
    name, text = reply.tool_calls[0].name, reply.tool_calls[0].arguments
    known = name == run_tools()[0]["function"]["name"]
    require(known, f"forced call: a tool that does not exist was called: {short(name)}; {_HOLD}")
    try:
        arguments = json.loads(text)
    except ValueError as error:
        what = f"the answer was {cut} within its arguments" if cut else "malformed, its arguments are not JSON"
        raise CheckFailedError(f"forced call: {what}: {short(text)}; {_HOLD}") from error
    is_object = isinstance(arguments, dict)
    require(is_object, f"forced call: malformed, its arguments are not an object: {short(text)}; {_HOLD}")


def _require_shown(bare: Reply, free: Reply, count: int) -> None:
    """Require that the prompt grows with the tools: a chat template that leaves them out lets no model call one."""
    without, shown = bare.record.prompt_tokens or 0, free.record.prompt_tokens or 0
    if without >= _LEAST_TOKENS and shown:
        require(
            shown - without >= count,
            f"the chat template never shows the tools: the prompt has {without} tokens without and {shown} with "
            f"{count} of them; give the model's template for tools with `chat_template` in the server "
            "file (--chat-template)",
        )
