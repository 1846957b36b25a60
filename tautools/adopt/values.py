"""Small readings that every format shares: task ids, rewards, times, models, messages."""

from __future__ import annotations

import datetime
import math
from typing import TYPE_CHECKING, Any

from tautools.records import Outcome, Party, Sampling, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["actions_text", "by_reward", "party", "plain_messages", "said_by", "task_name", "unix_time", "whole_number"]

_PASSED_FROM = 1 - 1e-6
_LOCAL = ("openai/", "hosted_vllm/", "vllm/", "openai-api/")
"""What other programs write before the name of a model on an OpenAI-compatible server."""
_HOSTED = {
    "anthropic",
    "azure",
    "bedrock",
    "deepseek",
    "gemini",
    "groq",
    "mistral",
    "ollama",
    "ollama_chat",
    "openrouter",
    "together_ai",
    "vertex_ai",
    "xai",
}


def task_name(value: Any) -> str | None:
    """Return a task's id as text; None when it is none."""
    if isinstance(value, str):
        return value.strip() or None
    number = whole_number(value)
    return None if number is None else str(number)


def whole_number(value: Any) -> int | None:
    """Return a number that counts things from 0; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return int(value) if value >= 0 and value == int(value) else None


def by_reward(value: Any) -> tuple[Outcome, float] | None:
    """Return what a reward says; None for what is no reward between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return (Outcome.PASSED if value >= _PASSED_FROM else Outcome.FAILED), float(value)


def unix_time(value: Any) -> float | None:
    """Return an ISO time as unix time [s]; one without a zone is this machine's local time."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        return datetime.datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def party(model: Any, settings: Any = None) -> Party | None:
    """Return a model as it was asked, from its name in litellm's or inspect's way of writing."""
    if not isinstance(model, str) or not model.strip():
        return None
    name, provider = model.strip(), "openai"
    for prefix in _LOCAL:
        name = name.removeprefix(prefix)
    first, _, rest = name.partition("/")
    if first in _HOSTED and rest:
        name, provider = rest, first
    return Party(model=name, provider=provider, sampling=_sampling(settings if isinstance(settings, dict) else {}))


def _sampling(given: Mapping[str, Any]) -> Sampling:
    known = {
        name: given[name] for name in ("temperature", "top_p", "top_k", "max_tokens") if given.get(name) is not None
    }
    try:
        return Sampling(**known)
    except ValueError:
        return Sampling()


def plain_messages(value: Any) -> list[dict[str, Any]] | None:
    """Return messages in OpenAI's form, without empty fields; None when they are not messages."""
    if not isinstance(value, list) or not all(isinstance(each, dict) and each.get("role") for each in value):
        return None
    found = [_plain(each) for each in value]
    return found if all(each is not None for each in found) else None  # type: ignore[return-value]


def _plain(message: Mapping[str, Any]) -> dict[str, Any] | None:
    kept = {name: value for name, value in message.items() if value is not None and value != [] and name != "name"}
    kept["content"] = message.get("content")
    for call in kept.get("tool_calls", ()):
        function = call.get("function") if isinstance(call, dict) else None
        if not (isinstance(function, dict) and function.get("name") and isinstance(function.get("arguments"), str)):
            return None
    return kept


def said_by(messages: Iterable[Mapping[str, Any]], role: str) -> int:
    """Return how many messages a role has."""
    return sum(message["role"] == role for message in messages)


def actions_text(actions: Any, arguments: str) -> str | None:
    """Return reference actions as canonical JSON, to be compared; None when they are not told.

    Parameters
    ----------
    actions : list of dict
        As the file has them.
    arguments : str
        The name under which it keeps the arguments.
    """
    if not isinstance(actions, list) or not all(isinstance(each, dict) for each in actions):
        return None
    return canonical_json([[each.get("name"), each.get(arguments)] for each in actions])
