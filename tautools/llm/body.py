"""The body of a chat request. What is not set is not sent: no key with a null in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tautools.llm.switches import marked, switch_fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tautools.llm.types import CallTag, Endpoint, Message, ToolSpec
    from tautools.records import Party, Sampling

__all__ = ["chat_body", "sampling_fields", "task_field"]


def chat_body(
    endpoint: Endpoint, party: Party, tag: CallTag, messages: Sequence[Message], tools: Sequence[ToolSpec] | None
) -> dict[str, Any]:
    """Return the request for an OpenAI-compatible server; the party's `extra_body` has the last word.

    Parameters
    ----------
    endpoint : Endpoint
        Whose served model is asked; only a simulated one is told which task it plays.
    party : Party
        Sampling and thinking of the role. What it leaves open is not sent, and the server's default holds.
    tag : CallTag
        The request's place in its conversation; its seed is sent when there is one.
    messages : sequence of Message
        The history as the model sees it, but for Qwen3's `/no_think` where that switches its thinking.
    tools : sequence of ToolSpec, optional
        What it may call; None and an empty sequence send no `tools`.

    Returns
    -------
    dict
        Streamed, with usage at the stream's end, unless `extra_body` says otherwise.
    """
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": marked(messages, party.thinking, party.thinking_switch),
        "stream": True,
        "stream_options": {"include_usage": True},
        **sampling_fields(party.sampling),
    }
    if tools:
        body["tools"] = list(tools)
    if tag.seed is not None:
        body["seed"] = tag.seed
    extra = dict(party.sampling.extra_body)
    switch = switch_fields(endpoint.model, party.thinking, party.thinking_switch)
    if "chat_template_kwargs" in switch:
        switch["chat_template_kwargs"] |= extra.get("chat_template_kwargs", {})
        extra.pop("chat_template_kwargs", None)
    extra = {**switch, **extra}
    if endpoint.simulated:
        body["tautools_task"] = task_field(tag)
    return {**body, **extra}


def sampling_fields(sampling: Sampling) -> dict[str, Any]:
    """Return what is set of temperature, top_p, top_k and max_tokens."""
    chosen = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
    }
    return {name: value for name, value in chosen.items() if value is not None}


def task_field(tag: CallTag) -> dict[str, Any]:
    """Return the field from which a simulated server learns which task it plays; real servers never get it."""
    place = {"source": tag.source, "path": tag.path, "python": tag.python}
    return {
        "bench": tag.bench,
        **{name: value for name, value in place.items() if value},
        "env": tag.env,
        "split": tag.split,
        "task_id": tag.task_id,
        "trial": tag.trial,
        "role": tag.role.value,
        "strategy": tag.strategy,
        "seed": tag.seed,
    }
