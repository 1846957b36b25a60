"""The body of a chat request, and how each family of models is told to think or not to.

What is not set is not sent: no key with a null in it. What a family does is its makers' word (model cards and chat
templates); a server that was started with a template of its own may know other switches, so a role can name one with
`thinking_switch`.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import orjson

from tautools.errors import ParamsError
from tautools.llm.types import REFUSAL_CHECK, REFUSAL_CHECK_TOKENS, CallTag, Endpoint, Message, ToolSpec
from tautools.records import ModelConfig, SeedRule, Thinking, ThinkingSwitch, canonical_json

_ALWAYS, _NEVER = "always thinks", "never thinks"

# The first pattern that fits counts; what none fits is switched by its template.
_FAMILIES: tuple[tuple[str, ThinkingSwitch | str], ...] = (
    (r"gpt-?oss|\bgpt-5|\bo[134](-|$)", ThinkingSwitch.REASONING_EFFORT),
    (r"qwen3.*thinking|\bqwq|deepseek-r1|magistral|phi-4.*reasoning", _ALWAYS),
    (r"qwen3.*(instruct|coder)|qwen2|qwen-?2\.5|llama-?[23]|mistral|mixtral|gemma-?[23]|smollm2", _NEVER),
)
_ANSWER_TOKENS, _THINKING_TOKENS = 4096, 32768
"""Longest answers by default. Turns of a customer service have tens to hundreds of tokens; 32768 is what Qwen and
DeepSeek advise for models that think. A model that repeats itself for ever ends there and not at its context's end."""
_LEAST_TOKENS = 1024
"""Where less than this is left, the server's own end of the context is the limit."""
_BYTES_PER_TOKEN = 2.5
"""Fewer than any common text has, so that an estimate is rather too high."""
_TEMPLATE_KEYS = ((r"granite|deepseek-v3", "thinking"),)
"""What a family's chat template calls the switch, where it is not `enable_thinking`."""

_EFFORT = {Thinking.OFF: "low", Thinking.ON: "medium"}
"""For models that always think: off is as little as they can."""

_MARKS = {Thinking.OFF: " /no_think", Thinking.ON: " /think"}


def switch_of(model: str, thinking: Thinking, named: ThinkingSwitch | None = None) -> ThinkingSwitch:
    """Return how a model (hub id, folder or served name) is told to think or not; a switch that the role names counts.

    Raises
    ------
    ParamsError
        When models of that family always think and the role forbids it, or never do and the role asks for it.
    """
    if named is not None or thinking is Thinking.DEFAULT:
        return named or ThinkingSwitch.TEMPLATE
    family = next((habit for pattern, habit in _FAMILIES if re.search(pattern, model, re.IGNORECASE)), None)
    if family in {_ALWAYS, _NEVER}:
        if (family == _ALWAYS) != (thinking is Thinking.ON):
            raise ParamsError(
                f"`thinking: {thinking.value}` is asked of {model}, and its family {family}.",
                next_step="Leave `thinking` out, choose another model, or name what its server understands with "
                "`thinking_switch: template` (or no_think, reasoning_effort).",
            )
        return ThinkingSwitch.NONE
    return family if isinstance(family, ThinkingSwitch) else ThinkingSwitch.TEMPLATE


def default_max_tokens(model: str, thinking: Thinking) -> int:
    """Return the longest answer of a model whose role names none [tokens]: more where it thinks, or may think."""
    family = next((habit for pattern, habit in _FAMILIES if re.search(pattern, model, re.IGNORECASE)), None)
    always = family in {_ALWAYS, ThinkingSwitch.REASONING_EFFORT}
    never = family == _NEVER or thinking is Thinking.OFF
    return _ANSWER_TOKENS if never and not always else _THINKING_TOKENS


def switch_fields(model: str, thinking: Thinking, switch: ThinkingSwitch) -> dict[str, Any]:
    """Return the fields of a request's body that switch thinking; none when it is switched otherwise or not at all."""
    if thinking is Thinking.DEFAULT:
        return {}
    if switch is ThinkingSwitch.REASONING_EFFORT:
        return {"reasoning_effort": _EFFORT[thinking]}
    if switch is ThinkingSwitch.TEMPLATE:
        keys = (key for pattern, key in _TEMPLATE_KEYS if re.search(pattern, model, re.IGNORECASE))
        return {"chat_template_kwargs": {next(keys, "enable_thinking"): thinking is Thinking.ON}}
    return {}


def with_thinking_mark(messages: Sequence[Message], thinking: Thinking, switch: ThinkingSwitch) -> list[Message]:
    """Return a request's messages, with Qwen3's `/no_think` or `/think` where that is the switch.

    It stands at the end of every user message, or of the system prompt when there is none: what was sent before stays
    as it was, so a server finds it in its prefix cache. Histories and records do not have it.
    """
    if thinking is Thinking.DEFAULT or switch is not ThinkingSwitch.NO_THINK:
        return list(messages)
    role = "user" if any(message["role"] == "user" for message in messages) else "system"
    return [
        {**message, "content": f"{message['content']}{_MARKS[thinking]}"} if message["role"] == role else message
        for message in messages
    ]


def chat_body(
    endpoint: Endpoint, config: ModelConfig, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None
) -> dict[str, Any]:
    """Return the request for an OpenAI-compatible server: streamed, with usage at the stream's end.

    What `config` leaves open is not sent, and the server's default holds; its `extra_body` has the last word. Only a
    simulated server learns which task it plays. Without tools no `tools` are sent.
    """
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": with_thinking_mark(messages, config.thinking, config.thinking_switch),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    chosen = {name: getattr(config.sampling, name) for name in ("temperature", "top_p", "top_k", "max_tokens")}
    chosen |= {"tools": list(tools) if tools else None, "seed": request_seed(tag)}
    if chosen["max_tokens"] is None and config.default_max_tokens is not None:
        chosen["max_tokens"] = _room(config.default_max_tokens, endpoint.max_model_len, messages, tools)
    if tag.purpose == REFUSAL_CHECK:
        chosen["max_tokens"] = REFUSAL_CHECK_TOKENS
    body |= {name: value for name, value in chosen.items() if value is not None}
    if endpoint.simulated:
        body["tautools_task"] = task_field(tag)
    extra = config.sampling.extra_body
    switch = switch_fields(endpoint.model, config.thinking, config.thinking_switch)
    if template := switch.get("chat_template_kwargs"):
        extra = extra | {"chat_template_kwargs": template | extra.get("chat_template_kwargs", {})}
    return {**body, **switch, **extra}


def request_seed(tag: CallTag) -> int | None:
    """Return the seed that a request carries by the rule of its tag [0 .. 2**31 - 1]; None for none.

    By the rule `request` it follows from the conversation's seed, the part, the step, the purpose and the repeat, and
    from nothing else, so the same request of the same conversation has the same seed in every run.
    """
    if tag.seed is None or tag.seed_rule is not SeedRule.REQUEST:
        return None if tag.seed_rule is SeedRule.NONE else tag.seed
    text = canonical_json([tag.seed, tag.part, tag.step, tag.purpose, tag.repeat])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _room(
    wanted: int, max_model_len: int | None, messages: Sequence[Message], tools: Sequence[ToolSpec] | None
) -> int | None:
    """Return how long an answer may be by default; None where the context leaves so little that it is the limit."""
    if max_model_len is None:
        return wanted
    left = max_model_len - int(len(orjson.dumps([list(messages), tools or []])) / _BYTES_PER_TOKEN)
    return min(wanted, left) if left >= min(wanted, _LEAST_TOKENS) else None


def affinity_headers(endpoint: Endpoint, tag: CallTag) -> dict[str, str]:
    """Return the header that keeps a conversation on one server behind a router, where the endpoint asks for one.

    Its value is the same for all requests of a conversation, of both sides and in every attempt, and tells nothing.
    """
    if not (endpoint.affinity_header and tag.conversation):
        return {}
    return {endpoint.affinity_header: hashlib.sha256(f"affinity/{tag.conversation}".encode()).hexdigest()[:32]}


def task_field(tag: CallTag) -> dict[str, Any]:
    """Return the field from which a simulated server learns which task it plays; real servers never get it."""
    return {
        **{name: value for name, value in tag.ref._asdict().items() if value or name in {"bench", "env"}},
        "task_id": tag.task_id,
        "trial": tag.trial,
        "role": tag.role.value,
        "strategy": tag.strategy,
        "seed": tag.seed,
    }
