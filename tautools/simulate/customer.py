"""The simulated customer: reads the scenario and persona in its own system prompt, as a real model would.

It does what the agent asks it to do with tools of its own, and nothing that it was not asked to do. What it has to say
stays word for word under every persona, so that a conversation's reward does not depend on it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from tautools.simulate.reply import Do, SimulatedReply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.types import ReferenceAction


_HEADING = re.compile(r"^# Your mood in this conversation: (.+?)(?: \(([a-z0-9-]+)\))?$", re.MULTILINE)
_QUESTION = re.compile(r"^Moods: (.+)$.*?^What the customer said:$(.*)", re.MULTILINE | re.DOTALL)
_DEGREES = {"mild": 1, "moderate": 2, "strong": 3}
_USUAL_DEGREE = 2
_REPLY_MARK = "User Response:\n"
"""What stands before the words when v1 asks for a thought too."""


class _MoodStyle(NamedTuple):
    before: tuple[str, ...]
    after: tuple[str, ...]


_MOOD_STYLES = {
    "frustration": _MoodStyle(
        ("Honestly, this is tedious.", "Sigh, here we go.", "I am fed up with how slow this is."),
        ("This is so frustrating.", "I am tired of this.", "Why is this so complicated?"),
    ),
    "anxiety": _MoodStyle(
        ("I am a bit nervous about this.", "Sorry, I am really worried.", "I hope nothing goes wrong."),
        ("Will it be all right?", "Are you sure it is safe?", "I am so anxious, can you reassure me?"),
    ),
    "anger": _MoodStyle(
        ("I am angry!", "This is OUTRAGEOUS!", "This is completely UNACCEPTABLE!"),
        ("Get on with it!", "I am furious!", "Just fix it NOW!"),
    ),
    "confusion": _MoodStyle(
        ("Hmm, I am a little lost.", "I am not sure I understand.", "Wait, I am confused."),
        ("What does that mean?", "How does this work?", "Could you explain what happens next?"),
    ),
}


def with_persona(messages: Sequence[Mapping[str, Any]], answer: str) -> str:
    """Return the customer's answer as the mood in its system prompt would have it said.

    Parameters
    ----------
    messages : sequence of dict
        The conversation as the user model sees it.
    answer : str
        What it would say without a mood.
    """
    system = "\n".join(str(each.get("content") or "") for each in messages if each["role"] == "system")
    found = _HEADING.search(system)
    style = _MOOD_STYLES.get(found[1]) if found else None
    if found is None or style is None:
        return answer
    turn = sum(each["role"] == "assistant" for each in messages)
    thought, mark, words = answer.rpartition(_REPLY_MARK)
    said, stop, rest = words.partition("###")
    if not said.strip():
        return answer
    return f"{thought}{mark}{_styled(said, style, _DEGREES.get(found[2] or '', _USUAL_DEGREE), turn)}{stop}{rest}"


def persona_label(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the mood that a simulated judge sees in a customer's words; None when it is asked something else."""
    asked = str(messages[-1].get("content") or "")
    found = _QUESTION.search(asked)
    return _shown_mood(found[2], [name.strip() for name in found[1].split(",")]) if found else None


def _shown_mood(said: str, moods: Sequence[str]) -> str:
    """Return which of `moods` shows by the phrases above; one that has no such phrases when none does."""
    counts = {
        name: sum(said.count(words) for words in style.before + style.after) for name, style in _MOOD_STYLES.items()
    }
    best = max((name for name in moods if name in counts), key=lambda name: counts[name], default="")
    if best and counts[best]:
        return best
    return next((name for name in moods if name not in counts), moods[0] if moods else "")


def _styled(said: str, style: _MoodStyle, degree: int, turn: int) -> str:
    """Put the mood's words around what is said: now and then, on one side each time, or on both sides."""
    before, after = style.before[turn % len(style.before)], style.after[turn % len(style.after)]
    space = " " if said.endswith(" ") else ""
    bare = said.rstrip()
    if degree == 1:
        return f"{before} {bare}{space}" if turn % 3 == 0 else said
    if degree == _USUAL_DEGREE:
        return f"{before} {bare}{space}" if turn % 2 == 0 else f"{bare} {after}{space}"
    return f"{before} {bare} {after}{space}"


STOP = "###STOP###"
TRANSFER = "###TRANSFER###"
_MAX_REPLIES = 30
"""Answers after which the customer ends a conversation that leads nowhere."""

_NEXT_PART = r"^[\t ]*(?:Domain|Reason for call|Known info|Unknown info|Task instructions):|</scenario>|\Z"
# What the agent's words mean to the customer; the first that fits decides.
_REPLIES = (
    (("being transferred", "transferred to a human", "transfer you to a human"), TRANSFER),
    (
        ("anything else", "have a great day", "have a nice day", "goodbye"),
        f"No, that is all. Thank you for your help. {STOP}",
    ),
    (
        ("unable to", "not able to", "cannot help", "can't help", "sorry, no"),
        f"That is a pity. Then I leave it at that. {STOP}",
    ),
    (
        ("go ahead", "confirm", "proceed", "(yes/no)", "yes or no", "would you like me to", "is that correct"),
        "Yes, please go ahead.",
    ),
)

# "you" after one of these is the person spoken of, not the one who acts.
_BEFORE_OBJECT = (
    r"\b(to|for|from|with|of|told|tell|gives?|gave|send|sent|helps?|allows?|lets?|offers?|offered|asks?|asked|charge)"
)
_FIRST_PERSON = (
    (_BEFORE_OBJECT + r"\s+you\b", r"\1 me"),
    (r"\byou name is\b", "my name is"),  # so written in some scenarios
    (r"\byou're\b", "I'm"),
    (r"\byou've\b", "I've"),
    (r"\byou'd\b", "I'd"),
    (r"\byou'll\b", "I'll"),
    (r"\byou are\b", "I am"),
    (r"\bare you\b", "am I"),
    (r"\byou were\b", "I was"),
    (r"\byourself\b", "myself"),
    (r"\byours\b", "mine"),
    (r"\byour\b", "my"),
    (r"\byou\b", "I"),
)


def customer_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return what the customer's model answers next.

    v1 asks it for more than words: with a thought before them, or what it thinks of a draft of its own.

    Parameters
    ----------
    messages : sequence of dict
        The conversation as the user model sees it: its scenario as system prompt, the agent's words with role `user`.
    """
    scenario = "\n".join(str(item.get("content") or "") for item in messages if item["role"] == "system")
    if [item["role"] for item in messages] == ["user"]:
        return _draft_verdict(str(messages[-1].get("content") or ""))
    words = _next_text(scenario, messages)
    return f"Thought:\nI say what I came for.\n\nUser Response:\n{words}" if "User Response:" in scenario else words


def _draft_verdict(asked: str) -> str:
    """Judge a draft of the customer's own: it is good; where a better one is wanted, other words."""
    if asked.rstrip().endswith("Classification:"):
        return "true"
    return "Reflection:\nIt could be shorter.\n\nResponse:\nPlease go on."


def _next_text(scenario: str, messages: Sequence[Mapping[str, Any]]) -> str:
    heard = [str(item.get("content") or "") for item in messages if item["role"] == "user"]
    spoken = sum(item["role"] == "assistant" for item in messages)
    if spoken == 0:
        return _first_text(scenario)
    return _reply_to(scenario, heard[-1].lower() if heard else "", spoken)


def first_person(text: str) -> str:
    """Turn what a scenario tells its reader ("You want …") into what the customer says ("I want …")."""
    for pattern, said in _FIRST_PERSON:
        text = re.sub(pattern, said, text, flags=re.IGNORECASE)
    return " ".join(sentence[:1].upper() + sentence[1:] for sentence in _sentences(text))


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", " ".join(text.split()))


def _first_text(scenario: str) -> str:
    # A customer opens with the matter and does not read the whole scenario out.
    reason = " ".join(_sentences(_scenario_part(scenario, "Reason for call") or _instruction(scenario))[:2])
    return f"Hi! {first_person(reason)}" if reason else "Hi! I need some help with my account, please."


def _reply_to(scenario: str, heard: str, spoken: int) -> str:
    if spoken >= _MAX_REPLIES:
        return f"This takes too long for me, I will try again another day. {STOP}"
    for phrases, reply in _REPLIES:
        if any(phrase in heard for phrase in phrases):
            return reply
    known = _scenario_part(scenario, "Known info") or _instruction(scenario)
    if known and "?" in heard:
        return first_person(known)
    return "Yes, that would be good." if "?" in heard else "All right, thank you. Please go on."


def _instruction(scenario: str) -> str:
    """Return the whole scenario of v1, which has no parts."""
    found = re.search(r"^Instruction: (.*)$", scenario, flags=re.MULTILINE)
    return found.group(1).strip() if found else ""


def _scenario_part(scenario: str, name: str) -> str:
    pattern = rf"^[\t ]*{name}:[ ]*\n?(.*?)(?={_NEXT_PART})"
    found = re.search(pattern, scenario, flags=re.DOTALL | re.MULTILINE)
    return found.group(1).strip() if found else ""


_LONGEST_REPORT = 200
"""Characters of what a tool gave back that the customer tells."""
# "please turn the airplane mode off" is meant as "toggle airplane mode".
_TURNING = re.compile(r"\b(?:turn|switch)\b")
_FILLING = re.compile(r"\b(?:the|a|an|your|my|on|off|back|please)\b ?")


def ask_customer(action: ReferenceAction) -> str:
    """Return the words by which the agent asks the customer to take an action of its own."""
    arguments = ", ".join(f"{_tool_phrase(name)}: {_argument_text(value)}" for name, value in action.arguments.items())
    asked = f"{_tool_phrase(action.name)}{arguments and f' ({arguments})'}"
    return f"Please do this on your side: {asked}. What does it say then?"


def requested_call(words: str, tools: Sequence[Mapping[str, Any]]) -> Do | None:
    """Return the call that the agent's words ask for; None when they name no tool, or not all that it needs.

    Parameters
    ----------
    words : str
        What the agent said last.
    tools : sequence of dict
        The tools that the customer is offered, as requests carry them.
    """
    heard = _normalized(words)
    found = [
        (heard.index(spoken), -len(spoken), tool["function"])
        for tool in tools
        if (spoken := _normalized(_tool_phrase(tool["function"]["name"]))) in heard
    ]
    if not found:
        return None
    function = min(found, key=lambda each: each[:2])[2]
    schema = function.get("parameters") or {}
    arguments = {name: _argument(name, words) for name in schema.get("properties") or {}}
    given = {name: value for name, value in arguments.items() if value is not None}
    return Do(function["name"], given) if set(schema.get("required") or ()) <= given.keys() else None


def customer_answer(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> SimulatedReply:
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
        return SimulatedReply(text=_tool_report(str(last.get("content") or "")))
    errand = requested_call(str(last.get("content") or ""), tools) if last["role"] == "user" else None
    if errand is not None:
        return SimulatedReply(tool=errand.name, arguments=json.dumps(dict(errand.arguments)))
    return SimulatedReply(text=customer_text([each for each in messages if not _is_tool_traffic(each)]))


def _is_tool_traffic(message: Mapping[str, Any]) -> bool:
    return message["role"] == "tool" or bool(message.get("tool_calls"))


def _tool_report(gave: str) -> str:
    told = " ".join(gave.split())[:_LONGEST_REPORT]
    return f"I tried, but it did not work: {told}" if told.startswith("Error") else f"I did that. It says: {told}"


def _tool_phrase(name: str) -> str:
    return name.replace("_", " ")


def _argument_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _normalized(words: str) -> str:
    return _FILLING.sub("", " ".join(_TURNING.sub("toggle", words.lower().replace("_", " ")).split()))


def _argument(name: str, words: str) -> Any:
    found = re.search(rf"\b{re.escape(_tool_phrase(name))}: ([^,;()\n]+)", words, flags=re.IGNORECASE)
    return found.group(1).strip() if found else None
