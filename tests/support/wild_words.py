"""What a model may write and no tool expects: values of every shape, depth, size and encoding, drawn by a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

__all__ = ["ANSWERS", "ENDLESS", "wild_calls"]

ENDLESS = [
    "9**9**8",
    "9**9**9**9",
    "1/(9**9**8)",
    "((9**9)**9)**9**9",
    "0*9**9**9",
    "0**9**9**9",
    "9//9**9**8",
    "1(9**9**8)",
    "-9**9**8",
    "(9**9**8)**0.5",
    "99**9999*" * 1000 + "1",
    "(9**9999//7**5999)+" * 500 + "1",
    "7" * 4000 + "**" + "9" * 4000,
    "1+" * 2_500_000 + "1",
    "(" * 5_000_000,
]
"""Expressions whose evaluation takes minutes, hours or all memory."""

_BIG = "x" * 5_000_000
_VALUES = [
    *(json.dumps(each) for each in ENDLESS),
    "9" * 4300,
    "9" * 5000,
    "-" + "9" * 5000,
    "1" + "0" * 4299,
    "1e400",
    "-1e400",
    "1e-400",
    "NaN",
    "-Infinity",
    "[" * 90 + "]" * 90,
    "[" * 900 + "]" * 900,
    "[" * 10_000 + "]" * 10_000,
    '{"a":' * 950 + "1" + "}" * 950,
    '{"a":' * 10_000 + "1" + "}" * 10_000,
    "[" + "1," * 200_000 + "1]",
    "[" + '{"item_id": "1"},' * 100_000 + "1]",
    f'"{_BIG}"',
    '"\\ud800"',
    '"\\udc00\\ud83d"',
    '"\\u0000"',
    '"\\u202e\\u2066\\u001b[2J"',
    '{"\\ud800": "\\ud800", "\\u0000": 1}',
    '{"__class__": {"__init__": 1}, "__proto__": {}}',
    "\"__import__('os').system('true')\"",
    '"(1).__class__"',
    '["1", "+", "1"]',
    "true",
    "null",
    '""',
    "1.5",
]
_WHOLE = [
    *(value for value in _VALUES),
    "",
    "{",
    '{"a": 1, "a": 2}',
    '{"order_id": "#W1", "order_id": ["#W1"]}',
    '{"data": {}, "self": 1}',
    "2024-99-99",
    "2024-01-01",
    "!!timestamp x",
    "!!int x",
    "!!binary YQ==",
    "!!set {a, b}",
    "{[1]: 2}",
    "? [a]\n: b",
    "0x" + "f" * 9000,
    "9" * 9000,
    "&a [*a, *a]",
    "a: &a [x, x]\nb: &b [" + "*a, " * 9 + "*a]\nc: &c [" + "*b, " * 9 + "*b]\nd: [" + "*c, " * 9 + "*c]",
    "- " * 5000,
    "[" * 9000,
    "\ud800",
    "\ufeff{}",
    "\x00",
]
_NAMES = ["", "__class__", "__proto__", "db", "eval", "calculate(1)", "\ud800", "\x00", "respond", "x" * 100_000, "é"]

ANSWERS = [
    "",
    "\x00",
    "\ud800 half",
    "\u202eback\x1b[2J",
    _BIG,
    "Action:\n" * 600_000,
    'Action:\n{"name": "think", "arguments": {"thought": ' * 100_000,
    'Action:\n{"name": "think", "arguments": {"thought": ' + "[" * 980 + "]" * 980 + "}}",
    'Action:\n{"name": "think", "arguments": {"thought": ' + "[" * 10_000 + "]" * 10_000 + "}}",
    'Action:\n{"name": "calculate", "arguments": {"expression": "9**9**8"}}',
    'Action:\n{"name": "calculate", "arguments": {"expression": ' + "9" * 5000 + "}}",
    'Action:\n{"name": "respond", "arguments": {"content": "\\ud800"}}',
    'Action:\n{"name": "\\ud800", "arguments": {"\\udc00": "\\ud800"}}',
    'Action:\n{"name": ["a"], "arguments": 1}',
    "Action:\n[" + "1," * 300_000 + "1]",
    "Action:\nnull",
]
"""Answers of act and react."""


def wild_calls(tools: Sequence[dict[str, Any]], seed: int, a_tool: int = 14) -> list[tuple[str, str]]:
    """Return calls as (name, arguments as text): of each tool some with its own parameters, and of what is none."""
    rng = random.Random(seed)
    calls = [("calculate", json.dumps({"expression": each})) for each in ENDLESS]
    for tool in tools:
        name, parameters = tool["function"]["name"], list(tool["function"]["parameters"].get("properties", {}))
        for _ in range(a_tool):
            pairs = (f'"{each}": {rng.choice(_VALUES if rng.random() < 0.6 else ["1"])}' for each in parameters)
            calls.append((name, rng.choice(_WHOLE) if rng.random() < 0.3 else "{" + ", ".join(pairs) + "}"))
    calls += [(name, rng.choice(_WHOLE)) for name in _NAMES]
    rng.shuffle(calls)
    return calls
