"""The automatic fixes that `failures.yaml` names: new values of server params, from the log line and the params.

A fix that cannot know a good value returns nothing; the advice for a person is always there. A row names a fix alone
(`auto: drop_flags`) or with its argument (`auto: {remove_arg: quantization}`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tautools.errors import nearest
from tautools.servers.vllm.flags import deprecated_flags, tool_parser_of

Words = Mapping[str, str]  # what the row's pattern captured
Spec = Mapping[str, Any]  # params of the server as a tree
Changes = dict[str, Any]  # new values by dotted name; None removes one


def automatic_fix(auto: str | Mapping[str, Any] | None, words: Words, spec: Spec) -> Changes:
    """Return the changes that a row's `auto` makes; empty when it has none or cannot know a good value.

    Parameters
    ----------
    auto : str or mapping, optional
        The name of a fix, or a mapping from its name to its argument.
    words : mapping
        What the row's pattern captured.
    spec : mapping
        The server's params as a tree.
    """
    if auto is None:
        return {}
    name, argument = (auto, None) if isinstance(auto, str) else next(iter(auto.items()))
    return FIXES[name](argument, words, spec)


def _set_env(values: Any, _words: Words, spec: Spec) -> Changes:
    env = spec.get("env") or {}
    return {f"env.{name}": value for name, value in values.items() if value is not None or name in env}


def _set_from_log(values: Any, words: Words, _spec: Spec) -> Changes:
    found = {param: int(words[word]) for param, word in values.items() if words.get(word, "").isdigit()}
    least = {"vllm.max_model_len": 256}  # a server with a shorter context is of no use
    return {param: number for param, number in found.items() if number >= least.get(param, 0)}


def _drop_flags(_argument: Any, words: Words, spec: Spec) -> Changes:
    """Leave out the refused flags, or put the newer name in their place where one is known."""
    changes: Changes = {}
    for name in (word.partition("=")[0] for word in words["what"].split() if word.startswith("--")):
        known = deprecated_flags().get(name.lstrip("-").replace("_", "-"))
        for written in _as_written_in_file(name, spec):
            changes[written] = None
            if known is not None and known.renamed:
                changes[f"vllm.args.{known.renamed}"] = spec["vllm"]["args"][written.removeprefix("vllm.args.")]
    return changes


def _divisor_of_heads(_argument: Any, words: Words, _spec: Spec) -> Changes:
    """Take the largest number of cards below the asked one that divides the heads evenly."""
    heads, cards = int(words["heads"]), int(words["cards"]) if words.get("cards", "").isdigit() else 0
    fitting = [number for number in range(1, cards) if heads % number == 0]
    return {"vllm.tensor_parallel_size": fitting[-1]} if fitting else {}


def _free_share(_argument: Any, words: Words, _spec: Spec) -> Changes:
    """Ask for a little less than what the log says is free of the card."""
    free, total = float(words["free"]), float(words["total"])
    share = math.floor(free / total * 0.97 * 100) / 100 if total > 0 else 0.0
    # With less than a fifth of the card there is nothing to serve from; the other process must go.
    return {"vllm.gpu_memory_utilization": share} if 0.2 <= share <= 1.0 else {}


def _family_tool_parser(_argument: Any, _words: Words, spec: Spec) -> Changes:
    parser = tool_parser_of(str(spec.get("model", "")))
    return {"vllm.tool_call_parser": parser} if parser else {}


def _nearest_parser(param: Any, words: Words, spec: Spec) -> Changes:
    """Take the nearest name that this vLLM lists; for tool calls, the family's parser if it is listed."""
    listed = [name.strip(" '\"") for name in words.get("list", "").split(",") if name.strip(" '\"")]
    family = tool_parser_of(str(spec.get("model", "")))
    if param == "vllm.tool_call_parser" and family in listed:
        return {param: family}
    found = nearest(words["what"], listed)
    return {param: found[0]} if found else {}


FIXES: Mapping[str, Callable[[Any, Words, Spec], Changes]] = {
    "set": lambda values, _words, _spec: dict(values),
    "set_env": _set_env,
    "set_from_log": _set_from_log,
    "remove_arg": lambda option, _words, spec: dict.fromkeys(_as_written_in_file(option, spec)),
    "drop_flags": _drop_flags,
    "divisor_of_heads": _divisor_of_heads,
    "free_share": _free_share,
    "family_tool_parser": _family_tool_parser,
    "nearest_parser": _nearest_parser,
    "free_port": lambda _argument, _words, spec: {"port": None} if spec.get("port") is not None else {},
}
"""By the name that a row of `failures.yaml` uses."""


def _as_written_in_file(flag: str, spec: Spec) -> list[str]:
    """Return the dotted name of a flag under `vllm.args` as the server file spells it; empty when it has none."""
    names = (spec.get("vllm") or {}).get("args", {})
    return [f"vllm.args.{name}" for name in names if _normalized_flag(name) == _normalized_flag(flag)][:1]


def _normalized_flag(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-").removeprefix("no-")
