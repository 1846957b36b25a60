"""What the agent asks the customer to do with tools of its own, one thing at a time, and how the customer does it.

The customer reads the agent's last words as a real one would: a tool that it was offered and that is spoken of there,
with its arguments as `name: value`, is called; what came back is told. It does nothing that it was not asked to do.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tautools.simulate.customer import customer_words
from tautools.simulate.speech import Do, Speech

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.types import Action

__all__ = ["asked_for", "asking", "customer_answer"]

_LONGEST_REPORT = 200
"""Characters of what a tool gave back that the customer tells."""
# "please turn the airplane mode off" is meant as "toggle airplane mode".
_TURNING = re.compile(r"\b(?:turn|switch)\b")
_FILLING = re.compile(r"\b(?:the|a|an|your|my|on|off|back|please)\b ?")


def asking(action: Action) -> str:
    """Return the words by which the agent asks the customer to take an action of its own."""
    arguments = ", ".join(f"{_spoken(name)}: {_told(value)}" for name, value in action.arguments.items())
    return (
        f"Please do this on your side: {_spoken(action.name)}{arguments and f' ({arguments})'}. What does it say then?"
    )


def asked_for(words: str, tools: Sequence[Mapping[str, Any]]) -> Do | None:
    """Return the call that the agent's words ask for; None when they name no tool, or not all that it needs.

    Parameters
    ----------
    words : str
        What the agent said last.
    tools : sequence of dict
        The tools that the customer is offered, as requests carry them.
    """
    heard = _plain(words)
    found = [
        (heard.index(spoken), -len(spoken), tool["function"])
        for tool in tools
        if (spoken := _plain(_spoken(tool["function"]["name"]))) in heard
    ]
    if not found:
        return None
    function = min(found, key=lambda each: each[:2])[2]
    schema = function.get("parameters") or {}
    arguments = {name: _argument(name, words) for name in schema.get("properties") or {}}
    given = {name: value for name, value in arguments.items() if value is not None}
    return Do(function["name"], given) if set(schema.get("required") or ()) <= given.keys() else None


def customer_answer(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Speech:
    """Return the customer's next answer: a call that it was asked for, what the call gave, or words.

    Parameters
    ----------
    messages : sequence of dict
        The conversation as the user model sees it.
    tools : sequence of dict
        What it is offered; empty in most envs.
    """
    last = messages[-1]
    if last["role"] == "tool":
        return Speech(text=_report(str(last.get("content") or "")))
    errand = asked_for(str(last.get("content") or ""), tools) if last["role"] == "user" else None
    if errand is not None:
        return Speech(tool=errand.name, arguments=json.dumps(dict(errand.arguments)))
    return Speech(text=customer_words([each for each in messages if not _of_a_call(each)]))


def _of_a_call(message: Mapping[str, Any]) -> bool:
    return message["role"] == "tool" or bool(message.get("tool_calls"))


def _report(gave: str) -> str:
    told = " ".join(gave.split())[:_LONGEST_REPORT]
    return f"I tried, but it did not work: {told}" if told.startswith("Error") else f"I did that. It says: {told}"


def _spoken(name: str) -> str:
    return name.replace("_", " ")


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _plain(words: str) -> str:
    return _FILLING.sub("", " ".join(_TURNING.sub("toggle", words.lower().replace("_", " ")).split()))


def _argument(name: str, words: str) -> Any:
    found = re.search(rf"\b{re.escape(_spoken(name))}: ([^,;()\n]+)", words, flags=re.IGNORECASE)
    return found.group(1).strip() if found else None
