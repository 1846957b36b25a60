"""The checks that talk to the model: chat, thinking, tool calls; on request context limit, load, determinism."""

from __future__ import annotations

import asyncio
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from tautools.errors import CallFault, ModelCallError
from tautools.http import Http
from tautools.records import ModelConfig, Role, Sampling, Thinking
from tautools.servers.checks.target import CheckContext, CheckFailedError, NotApplicableError, root_of
from tautools.servers.diagnose.causes import diagnose_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.llm.types import Endpoint, Message, Reply, ToolSpec


def _ask(endpoint: Endpoint, messages: Sequence[Message], **request: Any) -> Reply:
    (reply,) = _ask_all(endpoint, [messages], attempts=2, **request)
    if isinstance(reply, ModelCallError):
        raise reply
    return reply


def _ask_all(
    endpoint: Endpoint,
    questions: Sequence[Sequence[Message]],
    *,
    tools: Sequence[ToolSpec] | None = None,
    max_tokens: int = 512,
    attempts: int = 1,
    **extra: Any,
) -> list[Reply | ModelCallError]:
    """Ask all questions at the same moment, at temperature 0, and return the answers; a failed one is its error."""
    from tautools.llm import ModelClient, Retry
    from tautools.llm.types import CallTag

    config = ModelConfig(
        model=endpoint.model, sampling=Sampling(temperature=0, max_tokens=max_tokens, extra_body=extra)
    )
    tag = CallTag(role=Role.PROBE, purpose="probe", seed=0)

    async def one(client: ModelClient, messages: Sequence[Message]) -> Reply | ModelCallError:
        try:
            return await client.complete(tag, messages, tools)
        except ModelCallError as error:
            return error

    async def all_of_them() -> list[Reply | ModelCallError]:
        async with ModelClient(lambda _role: [endpoint], {Role.PROBE: config}, retry=Retry(attempts)) as client:
            return await asyncio.gather(*(one(client, messages) for messages in questions))

    # A thread with a loop of its own, so that it works inside a notebook's running loop too.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, all_of_them()).result()


def _short(text: str, limit: int = 80) -> str:
    """Return `text` in one line and in quotes, cut to `limit` characters."""
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= limit else flat[: limit - 1] + "…")


_NO_PARSER = (
    "the server reads no tool calls; start it with `tool_call_parser` in its server file "
    "(`hermes` for Qwen3), which also sets --enable-auto-tool-choice"
)
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
_AGENT_PROMPT = "You are a customer service agent. Look orders up with your tools before you answer."
_TOOL_QUESTION: list[Message] = [
    {"role": "system", "content": _AGENT_PROMPT},
    {"role": "user", "content": "What is the status of my order #W0000000?"},
]


def check_chat(context: CheckContext) -> str:
    """Check 5: one answer at temperature 0, not empty, and the server says why it ended."""
    reply = _ask(context.endpoint, [{"role": "user", "content": "Answer with the one word: ready"}])
    reason = f"finish reason {reply.finish_reason or 'none'}"
    if not reply.text.strip():
        known = diagnose_answer(reply.text, reasoning=reply.thinking, asked_tools=False)
        why = f"{known.cause} {known.fix}" if known is not None else "an empty answer"
        raise CheckFailedError(f"{why} ({reason})")
    summary = f"answered {_short(reply.text)}, {reason}"
    if not reply.finish_reason:
        raise CheckFailedError(f"{summary}: the answer did not end properly")
    if "ready" in reply.text.lower():
        return summary
    summary += ", not the word it was asked for"
    # A simulated server follows the request exactly. A model only needs to answer: a small or random one works too.
    if context.endpoint.simulated:
        raise CheckFailedError(summary)
    return summary


def check_tool_calls(context: CheckContext) -> str:
    """Check 7: a call that is asked for, one that the model may choose, and an answer to the tool's result."""
    try:
        with ThreadPoolExecutor(max_workers=2) as pool:  # a server's first calls take it a second each
            forced = pool.submit(_ask, context.endpoint, _TOOL_QUESTION, tools=[_TOOL], tool_choice="required")
            free = pool.submit(_ask, context.endpoint, _TOOL_QUESTION, tools=[_TOOL])
        _require_call(forced.result())
        calls, text = free.result().tool_calls, free.result().text
        if not calls and (known := diagnose_answer(text)):
            raise CheckFailedError(f"free call: it came as text, {_short(known.evidence)}. {known.cause} {_NO_PARSER}")
        result = {"role": "tool", "content": json.dumps({"order_id": "#W0000000", "status": "delivered"})}
        results = [result | {"tool_call_id": call.id, "name": call.name} for call in forced.result().tool_calls]
        turn = [*_TOOL_QUESTION, forced.result().message, *results]
        # 32 tokens: that an answer begins shows that the template takes such a turn.
        after = _ask(context.endpoint, turn, tools=[_TOOL], max_tokens=32)
    except ModelCallError as error:
        if error.fault is CallFault.REFUSED and "tool" in f"{error.problem} {error.evidence}".lower():
            what = _short(error.evidence or error.problem, 200)
            raise CheckFailedError(f"{_NO_PARSER}. It said: {what}") from error
        raise
    if not (after.text.strip() or after.tool_calls or after.thinking):
        raise CheckFailedError("nothing was answered to the tool's result")
    chosen = "a free call was made" if calls else "left free, the model chose to make no call"
    return f"forced call parsed, {chosen}, the tool's result was answered"


def _require_call(reply: Reply) -> None:
    if not reply.tool_calls:
        raise CheckFailedError(f"forced call: no call came back, but {_short(reply.text)}; {_NO_PARSER}")
    call = reply.tool_calls[0]
    if call.name != "get_order_status":
        raise CheckFailedError(f"forced call: a tool that does not exist was called: {_short(call.name)}")
    try:
        arguments = json.loads(call.arguments)
    except ValueError as error:
        raise CheckFailedError(f"forced call: its arguments are not JSON: {_short(call.arguments)}") from error
    if not isinstance(arguments, dict):
        raise CheckFailedError(
            f"forced call: its arguments are not an object: {_short(call.arguments)}; "
            "vLLM 0.32 and later hold a model to the schema with --tool-strict-level parameter"
        )


def check_thinking(context: CheckContext) -> str:
    """Check 6: whether the model thinks as it was asked to, and whether thinking is kept out of the text.

    The model client would take thinking out of the text; here it matters where the server puts it.
    """
    target = context.target
    question = {"role": "user", "content": "How many days do two weeks have? Answer with the number."}
    body = {"model": context.model, "messages": [question], "temperature": 0, "max_tokens": 64}
    answer = Http().post(f"{target.base_url}/chat/completions", body, key=target.key, timeout_s=600.0)
    if answer.status != 200:
        raise CheckFailedError(f"the question was answered {answer.status}: {_short(answer.text, 200)}")
    try:
        message = answer.json()["choices"][0]["message"]
        text = str(message.get("content") or "")
        thinking = str(message.get("reasoning") or message.get("reasoning_content") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckFailedError(f"the answer cannot be read: {_short(answer.text, 200)}") from error
    tag = next((tag for tag in ("<think>", "</think>") if tag in text), "")
    if target.thinking is Thinking.ON:
        if tag:
            raise CheckFailedError(
                f"it thinks, but {tag} stands in the text; set `reasoning_parser` in its server file"
            )
        if not thinking:
            raise CheckFailedError(f"it was asked to think and does not; it said {_short(text)}")
        return "it thinks, apart from the text"
    if thinking or tag:
        where = "apart from the text" if thinking else f"{tag} in the text"
        raise CheckFailedError(
            f"it was asked not to think and does ({where}): {_short(thinking or text)}; see whether the chat template "
            "knows the switch in `chat_template_kwargs`, and whether the reasoning parser fits the model"
        )
    return "it does not think"


_ANSWER_TOKENS = 8
_SPARE_TOKENS = 8
"""Tokens that a prompt near the limit leaves free beside those of its answer."""
_PREEMPTIONS = re.compile(r"^vllm:num_preemptions_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def check_context_length(context: CheckContext) -> str:
    """Check 8: a prompt just below the served length is answered, one above it is refused with a clean 400."""
    limit = context.max_model_len
    if limit is None:
        raise NotApplicableError("the server does not report its context length")
    few, many = (_prompt_tokens(context, words) for words in (100, 1100))
    if not few or not many or many <= few:
        raise NotApplicableError("the server does not report how many tokens a prompt has")
    per_word = (many - few) / 1000
    overhead = few - per_word * 100
    below = int((limit - _ANSWER_TOKENS - _SPARE_TOKENS - overhead) / per_word)
    above = int((limit + _SPARE_TOKENS - overhead) / per_word) + 1
    if below < 1:
        raise NotApplicableError(f"{limit} tokens of context are too few to try")
    try:
        tokens = _prompt_tokens(context, below)
    except ModelCallError as error:
        text = f"about {limit - _SPARE_TOKENS} of {limit} tokens are not answered: {_error_text(error)}"
        raise CheckFailedError(text) from error
    try:
        _prompt_tokens(context, above, answer_tokens=1)
    except ModelCallError as error:
        if error.fault is CallFault.CONTEXT_OVERFLOW and error.status == 400:
            return f"{tokens} of {limit} tokens are answered, more are refused with 400"
        text = f"more than {limit} tokens: the refusal is not a clean 400: {_error_text(error)}"
        raise CheckFailedError(text) from error
    raise CheckFailedError(f"more than {limit} tokens: they were answered, so the server cuts prompts silently")


def _prompt_tokens(context: CheckContext, words: int, *, answer_tokens: int = _ANSWER_TOKENS) -> int:
    prompt = [{"role": "user", "content": " ".join(["a"] * words)}]
    return _ask(context.endpoint, prompt, max_tokens=answer_tokens).record.prompt_tokens or 0


def check_concurrency(context: CheckContext) -> str:
    """Check 9: as many short chats at once as a run sends are all answered."""
    count = context.target.concurrency
    texts = [f"Order number {number}: say one sentence about it." for number in range(count)]
    questions = [[{"role": "user", "content": text}] for text in texts]
    before, began = _preemptions(context), time.perf_counter()
    answers = _ask_all(context.endpoint, questions, max_tokens=64)
    took_s = time.perf_counter() - began
    if failed := [answer for answer in answers if isinstance(answer, ModelCallError)]:
        raise CheckFailedError(f"{len(failed)} of {count} chats at once were not answered: {_error_text(failed[0])}")
    slowest = max(a.record.e2e_s or 0.0 for a in answers if not isinstance(a, ModelCallError))
    summary = f"{count} chats at once answered in {took_s:.2f} s, the slowest in {slowest:.2f} s"
    if before is None or (after := _preemptions(context)) is None:
        return summary
    if (preempted := int(after - before)) > count:
        raise CheckFailedError(f"{summary}, but {preempted} preemptions: the KV cache is too small")
    return f"{summary}, {preempted} preemptions"


def _preemptions(context: CheckContext) -> float | None:
    try:
        answer = Http().get(f"{root_of(context.target.base_url)}/metrics", key=context.target.key)
    except ModelCallError:
        return None
    counters = _PREEMPTIONS.findall(answer.text) if answer.status == 200 else []
    return sum(map(float, counters)) if counters else None


def check_determinism(context: CheckContext) -> str:
    """Check 10: whether the same question has the same answer at temperature 0; a note, never a failure."""
    question = {"role": "user", "content": "Tell in three sentences how bread is baked."}
    first, second = (_ask(context.endpoint, [question], max_tokens=128) for _ in range(2))
    if (first.text, first.thinking) != (second.text, second.thinking):
        at = next((i for i, (a, b) in enumerate(zip(first.text, second.text, strict=False)) if a != b), 0)
        raise NotApplicableError(f"not deterministic: at temperature 0 two answers differ from character {at} on")
    return "the same text twice at temperature 0"


def _error_text(error: ModelCallError) -> str:
    return _short(" ".join(part for part in (error.problem, error.evidence) if part), 200)
