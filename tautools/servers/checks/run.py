"""The checks that talk to the model, running all of them, and their certificate.

A failed check reports what was seen and what to do. Nothing further is asked of a server that cannot be reached or is
another one. From the key on, checks run in parallel, because a server's first answers take a second each; those that
load a server (8-10) run alone, last, and only when asked for. A check that does not apply (no process to look at, no
key to test) neither passes nor fails.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import tautools
from tautools.errors import CallFault, ModelCallError
from tautools.http import http_get, http_post
from tautools.llm.types import Endpoint, Message, Reply, ToolSpec
from tautools.records import Certificate, Check, ModelConfig, Role, Sampling, ServerRecord, Thinking
from tautools.redaction import redacted, without_secrets
from tautools.servers.checks.target import (
    FIRST_CHECKS,
    CheckContext,
    CheckFailedError,
    CheckTarget,
    NotApplicableError,
    require,
    root_of,
)
from tautools.servers.diagnose import diagnose_answer, diagnose_refusal
from tautools.shell import process_alive


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
    flat = " ".join(redacted(text).split())
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


def _check_chat(context: CheckContext) -> str:
    """Check 5: one answer at temperature 0, not empty, and the server says why it ended."""
    reply = _ask(context.endpoint, [{"role": "user", "content": "Answer with the one word: ready"}])
    reason = f"finish reason {reply.finish_reason or 'none'}"
    if not reply.text.strip():
        known = diagnose_answer(reply.text, reasoning=reply.thinking, asked_tools=False)
        why = f"{known.cause} {known.fix}" if known is not None else "an empty answer"
        raise CheckFailedError(f"{why} ({reason})")
    summary = f"answered {_short(reply.text)}, {reason}"
    require(reply.finish_reason, f"{summary}: the answer did not end properly")
    if "ready" in reply.text.lower():
        return summary
    summary += ", not the word it was asked for"
    # A simulated server follows the request exactly. A model only needs to answer: a small or random one works too.
    require(not context.endpoint.simulated, summary)
    return summary


def _check_tool_calls(context: CheckContext) -> str:
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
        if error.fault is CallFault.REFUSED and "tool" in error.seen.lower():
            what = _short(error.evidence or error.problem, 200)
            raise CheckFailedError(f"{_NO_PARSER}. It said: {what}") from error
        raise
    require(after.text.strip() or after.tool_calls or after.thinking, "nothing was answered to the tool's result")
    chosen = "a free call was made" if calls else "left free, the model chose to make no call"
    return f"forced call parsed, {chosen}, the tool's result was answered"


def _require_call(reply: Reply) -> None:
    require(reply.tool_calls, f"forced call: no call came back, but {_short(reply.text)}; {_NO_PARSER}")
    name, text = reply.tool_calls[0].name, reply.tool_calls[0].arguments
    known = name == "get_order_status"
    require(known, f"forced call: a tool that does not exist was called: {_short(name)}")
    try:
        arguments = json.loads(text)
    except ValueError as error:
        raise CheckFailedError(f"forced call: its arguments are not JSON: {_short(text)}") from error
    require(
        isinstance(arguments, dict),
        f"forced call: its arguments are not an object: {_short(text)}; "
        "vLLM 0.32 and later hold a model to the schema with --tool-strict-level parameter",
    )


def _check_thinking(context: CheckContext) -> str:
    """Check 6: whether the model thinks as it was asked to, and whether thinking is kept out of the text.

    The model client would take thinking out of the text; here it matters where the server puts it.
    """
    target = context.target
    question = {"role": "user", "content": "How many days do two weeks have? Answer with the number."}
    body = {"model": context.model, "messages": [question], "temperature": 0, "max_tokens": 64}
    answer = http_post(f"{target.base_url}/chat/completions", body, key=target.key, timeout_s=600.0)
    require(answer.status == 200, f"the question was answered {answer.status}: {_short(answer.text, 200)}")
    try:
        message = answer.json()["choices"][0]["message"]
        text = str(message.get("content") or "")
        thinking = str(message.get("reasoning") or message.get("reasoning_content") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckFailedError(f"the answer cannot be read: {_short(answer.text, 200)}") from error
    tag = next((tag for tag in ("<think>", "</think>") if tag in text), "")
    if target.thinking is Thinking.ON:
        require(not tag, f"it thinks, but {tag} stands in the text; set `reasoning_parser` in its server file")
        require(thinking, f"it was asked to think and does not; it said {_short(text)}")
        return "it thinks, apart from the text"
    where = "apart from the text" if thinking else f"{tag} in the text"
    require(
        not (thinking or tag),
        f"it was asked not to think and does ({where}): {_short(thinking or text)}; see whether the chat template "
        "knows the switch in `chat_template_kwargs`, and whether the reasoning parser fits the model",
    )
    return "it does not think"


_ANSWER_TOKENS = 8
_SPARE_TOKENS = 8
"""Tokens that a prompt near the limit leaves free beside those of its answer."""
_PREEMPTIONS = re.compile(r"^vllm:num_preemptions_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def _check_context_length(context: CheckContext) -> str:
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
        text = f"about {limit - _SPARE_TOKENS} of {limit} tokens are not answered: {_short(error.seen, 200)}"
        raise CheckFailedError(text) from error
    try:
        _prompt_tokens(context, above, answer_tokens=1)
    except ModelCallError as error:
        clean = error.fault is CallFault.CONTEXT_OVERFLOW and error.status == 400
        require(clean, f"more than {limit} tokens: the refusal is not a clean 400: {_short(error.seen, 200)}")
        return f"{tokens} of {limit} tokens are answered, more are refused with 400"
    raise CheckFailedError(f"more than {limit} tokens: they were answered, so the server cuts prompts silently")


def _prompt_tokens(context: CheckContext, words: int, *, answer_tokens: int = _ANSWER_TOKENS) -> int:
    prompt = [{"role": "user", "content": " ".join(["a"] * words)}]
    return _ask(context.endpoint, prompt, max_tokens=answer_tokens).record.prompt_tokens or 0


def _check_concurrency(context: CheckContext) -> str:
    """Check 9: as many short chats at once as a run sends are all answered."""
    count = context.target.concurrency
    texts = [f"Order number {number}: say one sentence about it." for number in range(count)]
    questions = [[{"role": "user", "content": text}] for text in texts]
    before, began = _preemptions(context), time.perf_counter()
    answers = _ask_all(context.endpoint, questions, max_tokens=64)
    took_s = time.perf_counter() - began
    if failed := [answer for answer in answers if isinstance(answer, ModelCallError)]:
        raise CheckFailedError(
            f"{len(failed)} of {count} chats at once were not answered: {_short(failed[0].seen, 200)}"
        )
    slowest = max(a.record.e2e_s or 0.0 for a in answers if not isinstance(a, ModelCallError))
    summary = f"{count} chats at once answered in {took_s:.2f} s, the slowest in {slowest:.2f} s"
    if before is None or (after := _preemptions(context)) is None:
        return summary
    if (preempted := int(after - before)) > count:
        raise CheckFailedError(f"{summary}, but {preempted} preemptions: the KV cache is too small")
    return f"{summary}, {preempted} preemptions"


def _preemptions(context: CheckContext) -> float | None:
    try:
        answer = http_get(f"{root_of(context.target.base_url)}/metrics", key=context.target.key)
    except ModelCallError:
        return None
    counters = _PREEMPTIONS.findall(answer.text) if answer.status == 200 else []
    return sum(map(float, counters)) if counters else None


def _check_determinism(context: CheckContext) -> str:
    """Check 10: whether the same question has the same answer at temperature 0; a note, never a failure."""
    question = {"role": "user", "content": "Tell in three sentences how bread is baked."}
    first, second = (_ask(context.endpoint, [question], max_tokens=128) for _ in range(2))
    if (first.text, first.thinking) != (second.text, second.thinking):
        at = next((i for i, (a, b) in enumerate(zip(first.text, second.text, strict=False)) if a != b), 0)
        raise NotApplicableError(f"not deterministic: at temperature 0 two answers differ from character {at} on")
    return "the same text twice at temperature 0"


_CHECKS = (
    *FIRST_CHECKS,
    ("chat", _check_chat),
    ("thinking", _check_thinking),
    ("tool calls", _check_tool_calls),
    ("length", _check_context_length),
    ("at once", _check_concurrency),
    ("same twice", _check_determinism),
)
"""By their numbers, as `FIRST_CHECKS`."""


def run_checks(target: CheckTarget, *, on_check: Callable[[Check], None] | None = None) -> CheckContext:
    """Run every check, report each in order as it is done, and return what was found; a failed check raises nothing."""
    context = CheckContext(target, model=target.model)
    _run(context, range(4), on_check)
    thinking = [6] if target.thinking is not Thinking.DEFAULT else []
    _run(context, [4, 5, *thinking, 7], on_check, parallel=True)
    if target.concurrency:
        _run(context, range(8, 11), on_check)
    return context


def recheck(target: CheckTarget) -> CheckContext:
    """Run the checks that cost a server nothing, 0 to 4, to see whether it is still the one that was verified."""
    context = CheckContext(target, model=target.model)
    _run(context, range(5))
    return context


def _run(
    context: CheckContext,
    numbers: Sequence[int],
    on_check: Callable[[Check], None] | None = None,
    *,
    parallel: bool = False,
) -> None:
    """Run checks in turn or at the same time and report them in order; in turn none runs after one that failed."""
    parallel = parallel and not context.failed
    with ThreadPoolExecutor(max_workers=len(numbers)) as pool:
        run = pool.map if parallel else map
        for check in run(lambda number: _run_check(number, context, "" if parallel else context.failed), numbers):
            context.checks.append(check)
            if on_check is not None:
                on_check(check)


def _run_check(number: int, context: CheckContext, failed: str) -> Check:
    name, function = _CHECKS[number]
    passed: bool | None = True
    began = time.perf_counter()
    try:
        if failed:
            raise NotApplicableError(f"not tried: `{failed}` failed")
        detail = function(context)
    except NotApplicableError as error:
        passed, detail = None, str(error)
    except CheckFailedError as error:
        passed, detail = False, str(error)
    except ModelCallError as error:
        passed, detail = False, _error_detail(error, context.target)
    took_s = round(time.perf_counter() - began, 4)
    return Check(number=number, name=name, passed=passed, detail=detail, took_s=took_s)


def _error_detail(error: ModelCallError, target: CheckTarget) -> str:
    """Return what was seen, and what it means where the table of known failures has it."""
    alive = None if target.process is None else process_alive(*target.process)
    known = diagnose_refusal(error.seen, server_alive=alive)
    meaning = (known.cause, known.fix) if known is not None else ()
    return " ".join((error.seen, *meaning))


def certificate_of(name: str, context: CheckContext, record: ServerRecord | None = None) -> Certificate:
    """Return the certificate of finished checks; of a server of ours with its flags and variables, without secrets."""
    return Certificate(
        server=name,
        base_url=context.target.base_url,
        model=context.model,
        alias=context.target.alias,
        issued_at=time.time(),
        checks=context.checks,
        versions={"tautools": tautools.__version__} | ({"server": context.version} if context.version else {}),
        flags=public_flags(record.argv) if record else [],
        env=without_secrets(record.spec.get("env") or {}) if record else {},
        cards=record.cards if record else {},
        max_model_len=context.max_model_len,
        simulated=context.endpoint.simulated,
    )


def public_flags(argv: Sequence[str]) -> list[str]:
    """Return a command without the values of flags whose name is that of a secret."""
    shown = []
    for before, word in pairwise(["", *argv]):
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        flag = name or (before if before.startswith("--") else "")
        shown.append(f"{name}{equals}{without_secrets(value, name=flag.lstrip('-'))}")
    return shown
