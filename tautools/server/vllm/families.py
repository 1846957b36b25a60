"""What the family of a model tells: the parser that reads its tool calls, and names that no hub has."""

from __future__ import annotations

import re

__all__ = ["first_release_of", "tool_parser_of"]

# The first pattern that fits counts. Names of parsers are vLLM's.
_PARSERS = (
    (r"qwen3(-coder|\.[5-9])", "qwen3_xml"),
    (r"qwen|hermes|qwq|orchestrator", "hermes"),
    (r"gpt-oss", "openai"),
    (r"llama-?4", "llama4_pythonic"),
    (r"llama-?3", "llama3_json"),
    (r"mistral|mixtral|ministral|magistral", "mistral"),
    (r"deepseek-v3\.1", "deepseek_v31"),
    (r"deepseek-v3", "deepseek_v3"),
    (r"glm-4\.[56]", "glm45"),
    (r"kimi-k2", "kimi_k2"),
    (r"granite-?4", "granite4"),
    (r"granite", "granite"),
    (r"phi-?4-mini", "phi4_mini_json"),
    (r"xlam", "xlam"),
    (r"olmo-?3", "olmo3"),
)

_NEVER_RELEASED = re.compile(r"Qwen/Qwen3-(8B|14B|32B)-Instruct-2507")


def tool_parser_of(model: str) -> str | None:
    """Return the name of the parser that reads the tool calls of a model's family; None when it is not known.

    Parameters
    ----------
    model : str
        Hub id, folder or served name.
    """
    return next((parser for pattern, parser in _PARSERS if re.search(pattern, model, re.IGNORECASE)), None)


def first_release_of(model: str) -> str | None:
    """Return the model that is meant by one of the 2507 names that were never released; None for all others."""
    found = _NEVER_RELEASED.fullmatch(model)
    return f"Qwen/Qwen3-{found[1]}" if found else None
