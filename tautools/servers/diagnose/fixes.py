"""The automatic fixes that `failures.yaml` names: new values of server params, from the log line and the params.

A fix that cannot know a good value returns nothing; the advice for a person is always there. A row names a fix with its
argument, such as `auto: {set: {vllm.dtype: float16}}`.
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


def _set(values: Mapping[str, Any], _words: Words, spec: Spec) -> Changes:
    changes: Changes = {}
    for name, value in values.items():
        folder, _, last = name.rpartition(".")
        changes |= {name: value} if value is not None else dict.fromkeys(_as_written(folder, last, spec))
    return changes


def _set_from_log(values: Mapping[str, str], words: Words, _spec: Spec) -> Changes:
    found = {param: int(words[word]) for param, word in values.items() if words.get(word, "").isdigit()}
    least = {"vllm.max_model_len": 256}  # a server with a shorter context is of no use
    return {param: number for param, number in found.items() if number >= least.get(param, 0)}


def _drop_flags(word: str, words: Words, spec: Spec) -> Changes:
    """Leave out the refused flags, or put the newer name in their place where one is known."""
    changes: Changes = {}
    for name in (each.partition("=")[0] for each in words[word].split() if each.startswith("--")):
        known = deprecated_flags().get(name.lstrip("-").replace("_", "-"))
        for written in _as_written("vllm.args", name, spec):
            changes[written] = None
            if known is not None and known.renamed:
                changes[f"vllm.args.{known.renamed}"] = spec["vllm"]["args"][written.removeprefix("vllm.args.")]
    return changes


def _divisor_of_heads(param: str, words: Words, _spec: Spec) -> Changes:
    """Take the largest number of cards below the asked one that divides the heads evenly."""
    heads, cards = int(words["heads"]), int(words["cards"]) if words.get("cards", "").isdigit() else 0
    fitting = [number for number in range(1, cards) if heads % number == 0]
    return {param: fitting[-1]} if fitting else {}


def _free_share(param: str, words: Words, _spec: Spec) -> Changes:
    """Ask for a little less than what the log says is free of the card."""
    free, total = float(words["free"]), float(words["total"])
    share = math.floor(free / total * 0.97 * 100) / 100 if total > 0 else 0.0
    # With less than a fifth of the card there is nothing to serve from; the other process must go.
    return {param: share} if 0.2 <= share <= 1.0 else {}


def _nearest_parser(param: str, words: Words, spec: Spec) -> Changes:
    """Take the nearest name that this vLLM lists; for tool calls the family's, if it is listed or none was refused."""
    listed = [name.strip(" '\"") for name in words.get("list", "").split(",") if name.strip(" '\"")]
    family = tool_parser_of(str(spec.get("model", ""))) if param == "vllm.tool_call_parser" else None
    if family and (family in listed or "what" not in words):
        return {param: family}
    found = nearest(words.get("what", ""), listed)
    return {param: found[0]} if found else {}


FIXES: Mapping[str, Callable[[Any, Words, Spec], Changes]] = {
    "set": _set,
    "set_from_log": _set_from_log,
    "drop_flags": _drop_flags,
    "divisor_of_heads": _divisor_of_heads,
    "free_share": _free_share,
    "nearest_parser": _nearest_parser,
}
"""By the name that a row of `failures.yaml` uses."""


def _as_written(folder: str, name: str, spec: Spec) -> list[str]:
    """Return the dotted name of a param as the server file spells it; empty when it does not set it."""
    tree: Any = spec
    for each in folder.split(".") if folder else ():
        tree = tree.get(each) or {}
    there = [each for each, value in tree.items() if value is not None and _normalized(each) == _normalized(name)]
    return [f"{folder}.{each}" if folder else each for each in there[:1]]


def _normalized(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-").removeprefix("no-")
