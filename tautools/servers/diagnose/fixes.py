"""The automatic fixes that the table of failures names: new values of server params, from the log line and the params.

A fix that cannot know a good value returns nothing; the advice for a person is always there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tautools.params.find import nearest
from tautools.servers.vllm.flags import deprecated_flag, tool_parser_of

Words = Mapping[str, str]
Spec = Mapping[str, Any]

MIN_CONTEXT_TOKENS = 256
"""Fewer tokens of context are no use to any server [tokens]."""


def length_from_log(words: Words, _spec: Spec) -> dict[str, Any]:
    """Serve the context length that the log says would fit."""
    most = int(words["most"]) if words.get("most", "").isdigit() else 0
    return {"vllm.max_model_len": most} if most >= MIN_CONTEXT_TOKENS else {}


def divisor_of_heads(words: Words, _spec: Spec) -> dict[str, Any]:
    """Take the largest number of cards below the asked one that divides the heads evenly."""
    heads, cards = int(words["heads"]), int(words["cards"]) if words.get("cards", "").isdigit() else 0
    fitting = [number for number in range(1, cards) if heads % number == 0]
    return {"vllm.tensor_parallel_size": fitting[-1]} if fitting else {}


def share_that_is_free(words: Words, _spec: Spec) -> dict[str, Any]:
    """Ask for a little less than what the log says is free of the card."""
    free, total = float(words["free"]), float(words["total"])
    share = math.floor(free / total * 0.97 * 100) / 100 if total > 0 else 0.0
    # With less than a fifth of the card there is nothing to serve from; the other process must go.
    return {"vllm.gpu_memory_utilization": share} if 0.2 <= share <= 1.0 else {}


def drop_flags(words: Words, spec: Spec) -> dict[str, Any]:
    """Leave out the refused flags, or put the newer name in their place where one is known."""
    changes: dict[str, Any] = {}
    for word in words["what"].split():
        if not word.startswith("--"):
            continue
        name = word.partition("=")[0]
        written = _as_written_in_file(name, spec)
        if written is None:
            continue
        changes[f"vllm.args.{written}"] = None
        known = deprecated_flag(name)
        if known is not None and known.renamed:
            changes[f"vllm.args.{known.renamed}"] = spec["vllm"]["args"][written]
    return changes


def add_tool_parser(_words: Words, spec: Spec) -> dict[str, Any]:
    """Set the parser of the model's family, where it is known."""
    parser = tool_parser_of(str(spec.get("model", "")))
    return {"vllm.tool_call_parser": parser} if parser else {}


def nearest_tool_parser(words: Words, spec: Spec) -> dict[str, Any]:
    """Take the parser of the family if this vLLM lists it, else the nearest name of the list."""
    listed = _listed_names(words)
    family = tool_parser_of(str(spec.get("model", "")))
    if family in listed:
        return {"vllm.tool_call_parser": family}
    found = nearest(words["what"], listed)
    return {"vllm.tool_call_parser": found[0]} if found else {}


def nearest_reasoning_parser(words: Words, _spec: Spec) -> dict[str, Any]:
    """Take the nearest name of the list."""
    found = nearest(words["what"], _listed_names(words))
    return {"vllm.reasoning_parser": found[0]} if found else {}


def no_swap(_words: Words, _spec: Spec) -> dict[str, Any]:
    """Do without swap space in the host's memory."""
    return {"vllm.args.swap_space": 0}


def free_port(_words: Words, spec: Spec) -> dict[str, Any]:
    """Let the launcher choose a free port."""
    return {"port": None} if spec.get("port") is not None else {}


def other_environment(**values: str | None) -> Any:
    """Return a fix that sets these environment variables of the server, or removes those that are None."""

    def fix(_words: Words, spec: Spec) -> dict[str, Any]:
        env = spec.get("env") or {}
        return {f"env.{name}": value for name, value in values.items() if value is not None or name in env}

    return fix


def batch_from_log(words: Words, _spec: Spec) -> dict[str, Any]:
    """Let a batch hold a whole prompt."""
    return {"vllm.args.max_num_batched_tokens": int(words["most"])} if words.get("most") else {}


def requests_from_log(words: Words, _spec: Spec) -> dict[str, Any]:
    """Run as many requests at once as a batch has tokens."""
    return {"vllm.max_num_seqs": int(words["most"])} if words.get("most") else {}


def half_precision(_words: Words, _spec: Spec) -> dict[str, Any]:
    """Use the number format that every card has."""
    return {"vllm.dtype": "float16"}


def one_worker(_words: Words, _spec: Spec) -> dict[str, Any]:
    """Spread the model over nothing."""
    return {"vllm.tensor_parallel_size": 1}


def without(option: str) -> Any:
    """Return a fix that leaves an option out, when the server file has it under `vllm.args`."""

    def fix(_words: Words, spec: Spec) -> dict[str, Any]:
        written = _as_written_in_file(option, spec)
        return {f"vllm.args.{written}": None} if written is not None else {}

    return fix


def _listed_names(words: Words) -> list[str]:
    return [name.strip(" '\"") for name in words.get("list", "").split(",") if name.strip(" '\"")]


def _as_written_in_file(flag: str, spec: Spec) -> str | None:
    """Return how the server file spells a flag under `vllm.args`, if it does."""
    plain = _normalized_flag(flag)
    return next((name for name in (spec.get("vllm") or {}).get("args", {}) if _normalized_flag(name) == plain), None)


def _normalized_flag(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-").removeprefix("no-")
