"""Classify failed responses: from HTTP status and body to the kind of fault and what to do about it."""

import contextlib
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from tautools.errors import CallFault, ModelCallError
from tautools.redaction import redacted

_OVERFLOW = re.compile(
    r"context_length_exceeded|maximum context length|maximum model length|context (?:length|window|size)"
    r"|exceed_context_size|max_seq_len|prompt is too long|input is too long|too many (?:input )?tokens"
    r"|max_tokens must be at least 1, got -|input token count.{0,40}exceeds"
    r"|inputs?.{0,20}tokens.{0,60}must (?:have|be) (?:less|<)",
    re.IGNORECASE | re.DOTALL,
)
"""How vLLM, OpenAI, SGLang, llama.cpp, TGI, Anthropic and Gemini say that the prompt no longer fits."""

_PARSER_SAYS = re.compile(r"tokens remaining in|(?:failed|unable) to parse|could not parse", re.IGNORECASE)
"""After this a parser quotes what the model wrote, which may be any words."""

_ASKED = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"=(?P<asked>\d+)\s*cannot be greater than\s*\w+=(?P<whole>\d+)",
        r"is too large: (?P<asked>\d+)\..{0,60}context length is (?P<whole>\d+)",
        r"context length is (?P<whole>\d+) tokens.{0,80}, (?P<asked>\d+) in the completion",
    )
)
"""How versions of vLLM say how many tokens of output were asked for, and how many the whole context has."""

_BY_STATUS = {
    401: CallFault.AUTH,
    403: CallFault.AUTH,
    404: CallFault.NOT_FOUND,
    408: CallFault.TIME_OUT,
    429: CallFault.OVERLOADED,
    503: CallFault.OVERLOADED,
    529: CallFault.OVERLOADED,
}

NEXT_STEPS = {
    CallFault.UNREACHABLE: "See whether the server runs: `tautools server ls`; start one that has only an address "
    "again where it runs.",
    CallFault.OVERLOADED: "Lower the concurrency, or start another replica.",
    CallFault.AUTH: "Check the server's key; `api_key_env` names the variable that holds it.",
    CallFault.NOT_FOUND: "Ask the server which models it serves: `tautools server test` with its address, which "
    "ends in /v1.",
    CallFault.CONTEXT_OVERFLOW: "Serve the model with a larger max_model_len, or lower max_tokens.",
    CallFault.REFUSED: "Correct the request: sampling, extra_body, or how the server was started (tool-call parser).",
}

_SAYS = {
    CallFault.AUTH: "refuses the key",
    CallFault.CONTEXT_OVERFLOW: "says that the prompt no longer fits its context",
    CallFault.NOT_FOUND: "does not have what was asked for",
    CallFault.OVERLOADED: "is overloaded",
}


def fault_of(status: int, text: str) -> CallFault:
    """Return the kind of fault of a response with `status` (not 200) and the body `text`."""
    if status == 400 and _asks_too_much(text):
        return CallFault.REFUSED
    if status in {400, 413, 422} and _OVERFLOW.search(text):
        return CallFault.CONTEXT_OVERFLOW
    if status == 429 and "insufficient_quota" in text:
        return CallFault.REFUSED
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return CallFault.SERVER_FAULT
    return CallFault.REFUSED if status >= 300 else CallFault.MALFORMED


def refusal(where: str, status: int, text: str, *, headers: Mapping[str, str] | None = None) -> ModelCallError:
    """Return the error for an answer of `where` with a status, or the code of an error event, other than 200."""
    fault = fault_of(status, text)
    step = {"next_step": NEXT_STEPS[fault]} if fault in NEXT_STEPS else {}
    if fault is CallFault.REFUSED and "chat_template_kwargs" in text:
        step = {"next_step": "This server has no template switch: set `thinking_switch: no_think` in the role."}
    return ModelCallError(
        f"{where} {_SAYS.get(fault, 'answered with an error')} ({status}).",
        fault=fault,
        status=status,
        evidence=excerpt(_message(text)),
        retry_after_s=retry_after_s(headers or {}),
        **step,
    )


def error_in_stream(where: str, code: Any, text: str) -> ModelCallError:
    """Return the error for an error event, which comes after status 200 and so after the request was accepted.

    Whatever its code, it is transient: vLLM says 400 also when its parser fails on what the model just wrote. Only an
    overflow stays one.
    """
    status = int(code) if re.fullmatch("[1-5][0-9][0-9]", str(code)) else 500
    said = _PARSER_SAYS.split(text, maxsplit=1)[0]
    if _OVERFLOW.search(f"{code} {said}"):
        fault, status = fault_of(400, said if _asks_too_much(said) else "context_length_exceeded"), 400
    else:
        fault = _BY_STATUS.get(status, CallFault.SERVER_FAULT)
        fault = fault if fault.transient else CallFault.SERVER_FAULT
    says = _SAYS.get(fault, "broke the answer off with an error")
    error = ModelCallError(f"{where} {says} ({status}).", fault=fault, status=status, evidence=excerpt(text))
    error.next_step, error.in_answer = NEXT_STEPS.get(fault, error.next_step), True
    return error


def excerpt(text: str, most: int = 400) -> str:
    """Return the beginning of `text` on one line, without keys."""
    flat = " ".join(redacted(text).split())
    return flat if len(flat) <= most else flat[: most - 1] + "…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return what `Retry-After` asks for [s], given in seconds or as a date; None without it."""
    value = headers.get("Retry-After") or headers.get("retry-after")
    if not value:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _asks_too_much(text: str) -> bool:
    """Whether `max_tokens` alone fills the context.

    Then no prompt would ever fit: a mistake in the params, not to be scored as a conversation that grew too long.
    """
    match = next(filter(None, (pattern.search(text) for pattern in _ASKED)), None)
    return match is not None and int(match["asked"]) >= int(match["whole"])


def _message(text: str) -> str:
    """Return the message in an error body, whatever its shape; the body itself when it has none."""
    try:
        body: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    for name in ("error", "message", "detail"):
        if isinstance(body, dict) and body.get(name):
            body = body[name]
    return body if isinstance(body, str) else text
