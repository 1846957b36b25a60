"""The checks that talk to the model, running all of them, and their certificate.

A failed check reports what was seen and what to do. Nothing further is asked of a server that cannot be reached or is
another one. From the key on, checks run in parallel, as a server's first answers take a second each; then alone, at
last, the one that sends what a run sends (11), and before it, only when asked for, those of load (8-10). A check that
does not apply (no process to look at, no key to test) neither passes nor fails.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import pairwise

import tautools
from tautools.errors import CallFault, ModelCallError
from tautools.http import http_get, http_post
from tautools.records import Certificate, Check, Demand, ServerRecord, Thinking
from tautools.redaction import without_secrets
from tautools.servers.checks.as_run import check_as_a_run
from tautools.servers.checks.target import (
    FIRST_CHECKS,
    CheckContext,
    CheckFailedError,
    CheckTarget,
    NotApplicableError,
    ask,
    ask_all,
    require,
    root_of,
    short,
)
from tautools.servers.checks.tools import TOOL_CALLS, check_tool_calls
from tautools.servers.diagnose import diagnose_answer, diagnose_refusal
from tautools.shell import process_alive


def _check_chat(context: CheckContext) -> str:
    """Check 5: one answer at temperature 0, not empty, and the server says why it ended."""
    reply = ask(context.endpoint, [{"role": "user", "content": "Answer with the one word: ready"}])
    reason = f"finish reason {reply.finish_reason or 'none'}"
    if not reply.text.strip():
        known = diagnose_answer(reply.text, reasoning=reply.thinking, asked_tools=False)
        why = f"{known.cause} {known.fix}" if known is not None else "an empty answer"
        raise CheckFailedError(f"{why} ({reason})")
    summary = f"answered {short(reply.text)}, {reason}"
    require(reply.finish_reason, f"{summary}: the answer did not end properly")
    if "ready" in reply.text.lower():
        return summary
    summary += ", not the word it was asked for"
    # A simulated server follows the request exactly. A model only needs to answer: a small or random one works too.
    require(not context.endpoint.simulated, summary)
    return summary


def _check_thinking(context: CheckContext) -> str:
    """Check 6: whether the model thinks as it was asked to, and whether thinking is kept out of the text.

    The model client would take thinking out of the text; here it matters where the server puts it.
    """
    target = context.target
    question = {"role": "user", "content": "How many days do two weeks have? Answer with the number."}
    body = {"model": context.model, "messages": [question], "temperature": 0, "max_tokens": 64}
    answer = http_post(f"{target.base_url}/chat/completions", body, key=target.key, timeout_s=600.0)
    require(answer.status == 200, f"the question was answered {answer.status}: {short(answer.text, 200)}")
    try:
        message = answer.json()["choices"][0]["message"]
        text = str(message.get("content") or "")
        thinking = str(message.get("reasoning") or message.get("reasoning_content") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise CheckFailedError(f"the answer cannot be read: {short(answer.text, 200)}") from error
    tag = next((tag for tag in ("<think>", "</think>") if tag in text), "")
    if target.thinking is Thinking.ON:
        require(not tag, f"it thinks, but {tag} stands in the text; set `reasoning_parser` in its server file")
        require(thinking, f"it was asked to think and does not; it said {short(text)}")
        return "it thinks, apart from the text"
    where = "apart from the text" if thinking else f"{tag} in the text"
    require(
        not (thinking or tag),
        f"it was asked not to think and does ({where}): {short(thinking or text)}; see whether the chat template "
        "knows the switch in `chat_template_kwargs`, and whether the reasoning parser fits the model",
    )
    return "it does not think"


_TELL_EVERY_S = 1.0
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
        text = f"about {limit - _SPARE_TOKENS} of {limit} tokens are not answered: {short(error.seen, 200)}"
        raise CheckFailedError(text) from error
    try:
        _prompt_tokens(context, above, answer_tokens=1)
    except ModelCallError as error:
        clean = error.fault is CallFault.CONTEXT_OVERFLOW and error.status == 400
        require(clean, f"more than {limit} tokens: the refusal is not a clean 400: {short(error.seen, 200)}")
        return f"{tokens} of {limit} tokens are answered, more are refused with 400"
    raise CheckFailedError(f"more than {limit} tokens: they were answered, so the server cuts prompts silently")


def _prompt_tokens(context: CheckContext, words: int, *, answer_tokens: int = _ANSWER_TOKENS) -> int:
    prompt = [{"role": "user", "content": " ".join(["a"] * words)}]
    return ask(context.endpoint, prompt, max_tokens=answer_tokens).record.prompt_tokens or 0


def _check_concurrency(context: CheckContext) -> str:
    """Check 9: as many short chats at once as a run sends are all answered."""
    count = context.target.concurrency
    texts = [f"Order number {number}: say one sentence about it." for number in range(count)]
    questions = [[{"role": "user", "content": text}] for text in texts]
    before, began = _preemptions(context), time.perf_counter()
    answers = ask_all(context.endpoint, questions, max_tokens=64)
    took_s = time.perf_counter() - began
    if failed := [answer for answer in answers if isinstance(answer, ModelCallError)]:
        raise CheckFailedError(
            f"{len(failed)} of {count} chats at once were not answered: {short(failed[0].seen, 200)}"
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
    first, second = (ask(context.endpoint, [question], max_tokens=128) for _ in range(2))
    if (first.text, first.thinking) != (second.text, second.thinking):
        at = next((i for i, (a, b) in enumerate(zip(first.text, second.text, strict=False)) if a != b), 0)
        raise NotApplicableError(f"not deterministic: at temperature 0 two answers differ from character {at} on")
    return "the same text twice at temperature 0"


_CHECKS = (
    *FIRST_CHECKS,
    ("chat", _check_chat),
    ("thinking", _check_thinking),
    (TOOL_CALLS, check_tool_calls),
    ("length", _check_context_length),
    ("at once", _check_concurrency),
    ("same twice", _check_determinism),
    ("as a run", check_as_a_run),
)
"""By their numbers, as `FIRST_CHECKS`."""


OnWait = Callable[[str], None]
"""Takes, about once a second, which checks are waited for and for how long already."""


def run_checks(
    target: CheckTarget, *, on_check: Callable[[Check], None] | None = None, on_wait: OnWait | None = None
) -> CheckContext:
    """Run every check, report each in order as it is done, and return what was found; a failed check raises nothing."""
    context = CheckContext(target, model=target.model)
    _run(context, range(4), on_check, on_wait)
    thinking = [6] if target.thinking is not Thinking.DEFAULT else []
    _run(context, [4, 5, *thinking, 7], on_check, on_wait, parallel=True)
    load = range(8, 11) if target.concurrency else ()
    _run(context, [*load, 11], on_check, on_wait)
    return context


def check_demand(context: CheckContext, demand: Demand, on_wait: OnWait | None = None) -> Check:
    """Send a server that is known to answer what a run demands, and return how that went."""
    context.target = replace(context.target, demand=demand)
    _run(context, [11], on_wait=on_wait)
    return context.checks[-1]


def recheck(target: CheckTarget) -> CheckContext:
    """Run the checks that cost a server nothing, 0 to 4, to see whether it is still the one that was verified."""
    context = CheckContext(target, model=target.model)
    _run(context, range(5))
    return context


def _run(
    context: CheckContext,
    numbers: Sequence[int],
    on_check: Callable[[Check], None] | None = None,
    on_wait: OnWait | None = None,
    *,
    parallel: bool = False,
) -> None:
    """Run checks in turn or at the same time and report them in order; in turn none runs after one that failed."""
    running: dict[int, Future[Check]] = {}
    with ThreadPoolExecutor(max_workers=len(numbers)) as pool:
        if parallel and not context.failed:
            running = {number: pool.submit(_run_check, number, context, "") for number in numbers}
        for number in numbers:
            if number not in running:
                running[number] = pool.submit(_run_check, number, context, context.failed)
            check = _wait_for(running, number, on_wait)
            context.checks.append(check)
            if on_check is not None:
                on_check(check)


def _wait_for(running: Mapping[int, "Future[Check]"], number: int, on_wait: OnWait | None) -> Check:
    """Return a check once it is done, and say meanwhile which ones are waited for."""
    began = time.monotonic()
    while not wait([running[number]], timeout=_TELL_EVERY_S).done:
        if on_wait is not None:
            names = [_CHECKS[each][0] for each, future in running.items() if not future.done()]
            on_wait(f"{', '.join(names)} (for {time.monotonic() - began:.0f} s)")
    return running[number].result()


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
        without=context.without,
        demands=context.demands,
    )


def public_flags(argv: Sequence[str]) -> list[str]:
    """Return a command without the values of flags whose name is that of a secret."""
    shown = []
    for before, word in pairwise(["", *argv]):
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        flag = name or (before if before.startswith("--") else "")
        shown.append(f"{name}{equals}{without_secrets(value, name=flag.lstrip('-'))}")
    return shown
