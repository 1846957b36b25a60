"""What scripted models write: an agent's calls and words in the form of its strategy, and a customer's words.

Each oddity is one row of a table: its name, and the answer made of the call or the words that were due.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tautools.records import Strategy, UserStrategy

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping


ScriptedAnswer: TypeAlias = dict[str, Any]
"""`content`, and `tool_calls` in OpenAI's form."""


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """A tool call that is due; saying something is the call `respond`."""

    name: str
    arguments: Mapping[str, Any]
    wanted_id: str = "call_0"

    @property
    def words(self) -> str:
        """What is said; a call is described."""
        return str(self.arguments.get("content", f"I will use {self.name} now."))

    @property
    def json(self) -> str:
        """The action as JSON text."""
        return json.dumps({"name": self.name, "arguments": dict(self.arguments)})


Odd: TypeAlias = "Callable[[ScriptedCall, random.Random], ScriptedAnswer]"


def as_calls(call: ScriptedCall, content: str | None = None) -> ScriptedAnswer:
    """Return what a model writes that calls tools; words when there is nothing to call."""
    if call.name == "respond":
        return {"content": call.words}
    return tool_calls((call.name, json.dumps(dict(call.arguments))), first=call.wanted_id, content=content)


def tool_calls(*calls: tuple[str, str], first: str = "call_0", content: str | None = None) -> ScriptedAnswer:
    """Return an answer with these calls, the arguments as text."""
    made = [
        {"function": {"arguments": arguments, "name": name}, "id": f"{first}_{index}", "type": "function"}
        for index, (name, arguments) in enumerate(calls)
    ]
    return {"content": content, "tool_calls": made}


def as_text(call: ScriptedCall, strategy: Strategy) -> ScriptedAnswer:
    """Return what a model of `act` or `react` writes."""
    thought = "Thought:\nThis is the next step.\n" if strategy is Strategy.REACT else ""
    return {"content": f"{thought}Action:\n{call.json}"}


def as_customer(words: str, user_strategy: UserStrategy) -> ScriptedAnswer:
    """Return what a customer's model writes to say `words`."""
    if user_strategy is UserStrategy.REACT:
        return {"content": f"Thought:\nI should answer.\n\nUser Response:\n{words}"}
    return {"content": words}


def _changed(call: ScriptedCall, rng: random.Random, value: Any) -> dict[str, Any]:
    """Return the call's arguments with `value` in the place of one of them, or as one more when there is none."""
    name = rng.choice(sorted(call.arguments)) if call.arguments else "unasked"
    return {**call.arguments, name: value}


def _without_one(call: ScriptedCall, rng: random.Random) -> dict[str, Any]:
    left_out = rng.choice(sorted(call.arguments)) if call.arguments else ""
    return {name: value for name, value in call.arguments.items() if name != left_out}


def _with(
    change: Callable[[ScriptedCall, random.Random], dict[str, Any]],
) -> Callable[[ScriptedCall, random.Random], ScriptedCall]:
    return lambda call, rng: ScriptedCall(call.name, change(call, rng), call.wanted_id)


_ARGUMENTS: dict[str, Callable[[ScriptedCall, random.Random], ScriptedCall]] = {
    "a wrong value": _with(lambda call, rng: _changed(call, rng, f"none_{rng.randrange(10**6)}")),
    "a number for a text": _with(lambda call, rng: _changed(call, rng, rng.choice([0, -3, 2.0, 10**20]))),
    "a list for a text": _with(lambda call, rng: _changed(call, rng, ["#W0000000", {"a": 1}])),
    "null for a text": _with(lambda call, rng: _changed(call, rng, None)),
    "letters of other scripts": _with(lambda call, rng: _changed(call, rng, "Zoë 王 🙂 \u2028")),
    "a missing argument": _with(_without_one),
    "one argument too many": _with(lambda call, _: {**call.arguments, "unasked": True}),
    "an argument named data": _with(lambda call, _: {**call.arguments, "data": {}}),
    "an unknown tool": lambda call, _: ScriptedCall("open_the_safe", call.arguments, call.wanted_id),
}
"""What can be odd about a call, whatever its form."""

ODD_CALLS: dict[str, Odd] = {
    **{name: lambda call, rng, odd=odd: as_calls(odd(_any_call(call), rng)) for name, odd in _ARGUMENTS.items()},  # type: ignore[misc]
    "several calls in one answer": lambda call, _: tool_calls(
        (_any_call(call).name, json.dumps(dict(_any_call(call).arguments))),
        ("think", '{"thought": "and then"}'),
        first=call.wanted_id,
    ),
    "words beside a call": lambda call, _: as_calls(_any_call(call), content="One moment, please."),
    "arguments laid out by the model": lambda call, _: tool_calls(
        (_any_call(call).name, json.dumps(dict(_any_call(call).arguments), indent=2) + "\n"), first=call.wanted_id
    ),
    "no call and no words": lambda *_: {"content": ""},
    "a call of respond": lambda call, _: tool_calls(
        ("respond", json.dumps({"content": call.words})), first=call.wanted_id
    ),
    "an action as text": lambda call, _: {"content": f"Action:\n{call.json}"},
}
"""Answers that tool calling lives through, by what is odd about them."""

BREAKING_CALLS: dict[str, Odd] = {
    "arguments that are not JSON": lambda call, _: tool_calls((_any_call(call).name, '{"order_id": '), first="odd"),
    "arguments that are no object": lambda call, _: tool_calls((_any_call(call).name, "[1]"), first="odd"),
    "a call of respond without content": lambda *_: tool_calls(("respond", "{}"), first="odd"),
}
"""Answers that end the original's conversation with an exception."""

_NO_THOUGHT = '{"name": "think", "arguments": {}}'
ODD_TEXTS: dict[str, Odd] = {
    **{name: lambda call, rng, odd=odd: _action(odd(_any_call(call), rng)) for name, odd in _ARGUMENTS.items()},  # type: ignore[misc]
    "plain words": lambda call, _: {"content": call.words},
    "a thought without an action": lambda *_: {"content": "Thought:\nI wonder what to do."},
    "two actions": lambda call, _: {
        "content": f'Action:\n{{"name": "think", "arguments": {{}}}}\nAction:\n{call.json}'
    },
    "an action in a fence": lambda call, _: {"content": f"Action:\n```json\n{call.json}\n```"},
    "words after the action": lambda call, _: {"content": f"Action:\n{call.json}\nI hope that this helps."},
    "broken JSON": lambda call, _: {"content": f"Action:\n{call.json[:-1]}"},
    "single quotes": lambda *_: {"content": "Action:\n{'name': 'think', 'arguments': {}}"},
    "the word Action: inside the words": lambda *_: {
        "content": 'Action:\n{"name": "respond", "arguments": {"content": "Action: none"}}'
    },
    "action in small letters": lambda call, _: {"content": f"action:\n{call.json}"},
    "the action alone": lambda call, _: {"content": call.json},
    "nothing": lambda *_: {"content": ""},
    "nothing after Action:": lambda *_: {"content": "Action:\n"},
    "more in the object": lambda call, _: {"content": f'Action: {call.json[:-1]}, "why": "it is due"}}'},
}
"""Answers that `act` and `react` live through."""

BREAKING_TEXTS: dict[str, Odd] = {
    "a number for an action": lambda *_: {"content": "Action:\n42"},
    "a text for an action": lambda *_: {"content": 'Action:\n"wait"'},
    "a list for an action": lambda *_: {"content": 'Action:\n["think"]'},
    "an action without a name": lambda *_: {"content": 'Action:\n{"arguments": {}}'},
    "an action without arguments": lambda *_: {"content": 'Action:\n{"name": "think"}'},
    "a list for arguments": lambda *_: {"content": 'Action:\n{"name": "think", "arguments": []}'},
    "a name that is no text": lambda *_: {"content": 'Action:\n{"name": 7, "arguments": {}}'},
    "a call of respond without content": lambda *_: {"content": 'Action:\n{"name": "respond", "arguments": {}}'},
}
"""Answers that end the original's conversation with an exception."""

_SAID = "Please go on."
_PLAINLY = {
    "a stop word within a sentence": f"{_SAID} ###STOP### Bye.",
    "a stop word in small letters": "###stop###",
    "a stop word of tau2": "###TRANSFER###",
    "several lines": "First this.\n\nThen that.",
    "braces and quotes": 'He said {"name": "think"} and "Action:".',
}
_WITH_THOUGHTS = {
    "a response without a thought": f"User Response:\n{_SAID}",
    "a thought without a response": "Thought:\nWhat now?",
    "a stop word in the thought": "Thought:\nNot yet ###STOP###\n\nUser Response:\nWait.",
    "blanks around": f"  User Response:   {_SAID}  \n",
}
ODD_CUSTOMER: dict[UserStrategy, dict[str, str]] = {
    UserStrategy.LLM: _PLAINLY,
    UserStrategy.REACT: _WITH_THOUGHTS,
    UserStrategy.VERIFY: _PLAINLY,
    UserStrategy.REFLECTION: _PLAINLY,
}
"""What a customer's model may write, by what is odd about it."""

BROKEN_REFLECTION = "a reflection without one response"
SILENT = "a customer that says nothing"
_NOTHING = {SILENT: ""}
BREAKING_CUSTOMER: dict[UserStrategy, dict[str, str]] = {
    UserStrategy.LLM: _NOTHING,
    UserStrategy.REACT: {
        "neither thought nor response": _SAID,
        "two thoughts": f"Thought:\nA.\nThought:\nB.\n\nUser Response:\n{_SAID}",
        SILENT: "User Response:\n",
    },
    UserStrategy.VERIFY: _NOTHING,
    UserStrategy.REFLECTION: _NOTHING,
}
"""What a customer's model may write that ends the original's conversation with an exception, or ours."""


def _any_call(call: ScriptedCall) -> ScriptedCall:
    """Return the call, or thinking about the words when words are due: something that can be called."""
    return call if call.name != "respond" else ScriptedCall("think", {"thought": call.words}, call.wanted_id)


def _action(call: ScriptedCall) -> ScriptedAnswer:
    return {"content": f"Action:\n{call.json}"}
