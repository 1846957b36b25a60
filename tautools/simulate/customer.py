"""The simulated customer: reads the scenario and persona in its own system prompt, as a real model would.

It does what the agent asks it to do with tools of its own, and nothing else. What it has to say stays word for word
under every persona, so that a conversation's reward does not depend on it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tautools.bench.types import ReferenceAction
from tautools.files import packaged_yaml
from tautools.simulate.reply import Step
from tautools.simulate.requests import text_of

STOP = "###STOP###"
TRANSFER = "###TRANSFER###"

_MAX_REPLIES = 30
"""After this many replies the customer ends a conversation that leads nowhere."""
_LONGEST_REPORT = 200
"""Most characters of a tool's result that the customer repeats."""

_HEADING = re.compile(r"^# Your mood in this conversation: (.+?)(?: \(([a-z0-9-]+)\))?$", re.MULTILINE)
_JUDGE_QUESTION = re.compile(r"^Moods: (.+)$.*?^What the customer said:$(.*)", re.MULTILINE | re.DOTALL)
_REPLY_MARK = "User Response:\n"
"""What stands before the reply when v1 asks for a thought too."""
_PHRASES = packaged_yaml(__package__, "phrases.yaml")
_PERSONA_PHRASES: Mapping[str, list[list[str]]] = _PHRASES["personas"]
"""What a persona says before and after the reply."""

_NEXT_PART = r"^[\t ]*(?:Domain|Reason for call|Known info|Unknown info|Task instructions):|</scenario>|\Z"
# "please turn the airplane mode off" means "toggle airplane mode".
_TURNING = re.compile(r"\b(?:turn|switch)\b")
_FILLING = re.compile(r"\b(?:the|a|an|your|my|on|off|back|please)\b ?")


def customer_answer(messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]) -> Step:
    """Return the customer's next reply: a call that it was asked for, what the call returned, or words.

    `messages` are those that the user model sees, `tools` the customer's own.
    """
    last = messages[-1]
    text = text_of(last)
    if last["role"] == "tool":
        result = " ".join(text.split())[:_LONGEST_REPORT]
        failed = result.startswith("Error")
        return Step(f"{'I tried, but it did not work:' if failed else 'I did that. It says:'} {result}")
    call = requested_call(text, tools) if last["role"] == "user" else None
    said = [each for each in messages if each["role"] != "tool" and not each.get("tool_calls")]
    return call or Step(customer_text(said))


def ask_customer(action: ReferenceAction) -> str:
    """Return the words by which the agent asks the customer to take an action of its own."""
    arguments = ", ".join(
        f"{_spaced(name)}: {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in action.arguments.items()
    )
    call = f"{_spaced(action.name)}{arguments and f' ({arguments})'}"
    return f"Please do this on your side: {call}. What does it say then?"


def requested_call(words: str, tools: Sequence[Mapping[str, Any]]) -> Step | None:
    """Return the call that the agent's words ask for; None when they name no tool, or not all that it needs."""
    text = _normalized(words)
    named = [
        (text.index(name), -len(name), tool["function"])
        for tool in tools
        if (name := _normalized(_spaced(tool["function"]["name"]))) in text
    ]
    if not named:
        return None
    function = min(named, key=lambda each: each[:2])[2]
    schema = function.get("parameters") or {}
    given = {}
    for name in schema.get("properties") or {}:
        value = re.search(rf"\b{re.escape(_spaced(name))}: ([^,;()\n]+)", words, flags=re.IGNORECASE)
        if value:
            given[name] = value[1].strip()
    return Step(tool=function["name"], arguments=given) if set(schema.get("required") or ()) <= given.keys() else None


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _normalized(words: str) -> str:
    return _FILLING.sub("", " ".join(_TURNING.sub("toggle", _spaced(words.lower())).split()))


def customer_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the customer's next words; v1 also asks for a thought before them, or for a judgement of a draft."""
    if [message["role"] for message in messages] == ["user"]:
        # A draft of its own is good; where a better one is wanted, it finds other words.
        judged = text_of(messages[0]).rstrip().endswith("Classification:")
        return "true" if judged else "Reflection:\nIt could be shorter.\n\nResponse:\nPlease go on."
    scenario = _system_prompt(messages)
    agent = [text_of(message).lower() for message in messages if message["role"] == "user"]
    replies = sum(message["role"] == "assistant" for message in messages)
    if replies:
        text = _reply_to(scenario, agent[-1] if agent else "", replies)
    else:  # a customer starts with the matter and does not read the whole scenario out
        reason = " ".join(_sentences(_scenario_part(scenario, "Reason for call"))[:2])
        text = f"Hi! {first_person(reason)}" if reason else "Hi! I need some help with my account, please."
    return f"Thought:\nI say what I came for.\n\nUser Response:\n{text}" if "User Response:" in scenario else text


def first_person(text: str) -> str:
    """Turn what a scenario tells its reader ("You want …") into what the customer says ("I want …")."""
    for pattern, replacement in _PHRASES["first_person"]:
        text = re.sub(pattern, replacement, text, flags=re.IGNORECASE)
    return " ".join(sentence[:1].upper() + sentence[1:] for sentence in _sentences(text))


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+", " ".join(text.split()))


def _reply_to(scenario: str, agent: str, replies: int) -> str:
    if replies >= _MAX_REPLIES:
        return f"This takes too long for me, I will try again another day. {STOP}"
    for known in _PHRASES["replies"]:
        if any(phrase in agent for phrase in known["to"]):
            return str(known["say"])
    if "?" not in agent:
        return "All right, thank you. Please go on."
    info = _scenario_part(scenario, "Known info")
    return first_person(info) if info else "Yes, that would be good."


def _scenario_part(scenario: str, name: str) -> str:
    """Return a part of a tau2 scenario, or the whole one of v1, which has no parts."""
    pattern = rf"^[\t ]*{name}:[ ]*\n?(.*?)(?={_NEXT_PART})"
    part = re.search(pattern, scenario, flags=re.DOTALL | re.MULTILINE)
    whole = re.search(r"^Instruction: (.*)$", scenario, flags=re.MULTILINE)
    return (part[1].strip() if part else "") or (whole[1].strip() if whole else "")


def with_persona(messages: Sequence[Mapping[str, Any]], answer: str) -> str:
    """Return the customer's answer as the persona in its system prompt would say it.

    It reads the persona's heading and degree as a model would read them. An unknown persona changes nothing.
    """
    heading = _HEADING.search(_system_prompt(messages))
    thought, mark, words = answer.rpartition(_REPLY_MARK)
    text, stop, rest = words.partition("###")
    if heading is None or heading[1] not in _PERSONA_PHRASES or not text.strip():
        return answer
    turn = sum(message["role"] == "assistant" for message in messages)
    before, after = (phrases[turn % len(phrases)] for phrases in _PERSONA_PHRASES[heading[1]])
    bare, space = text.rstrip(), " " if text.endswith(" ") else ""
    # A mild persona shows now and then, a moderate one on one side of each reply, a strong one on both.
    if heading[2] == "mild":
        styled = text if turn % 3 else f"{before} {bare}{space}"
    elif heading[2] == "strong":
        styled = f"{before} {bare} {after}{space}"
    else:
        styled = f"{bare} {after}{space}" if turn % 2 else f"{before} {bare}{space}"
    return f"{thought}{mark}{styled}{stop}{rest}"


def persona_label(messages: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the mood that a simulated judge sees in a customer's words; None when it is asked something else."""
    question = _JUDGE_QUESTION.search(text_of(messages[-1]))
    if question is None:
        return None
    moods = [name.strip() for name in question[1].split(",")]
    counts = {
        name: sum(question[2].count(phrase) for phrase in before + after)
        for name, (before, after) in _PERSONA_PHRASES.items()
    }
    best = max((name for name in moods if counts.get(name)), key=lambda name: counts[name], default="")
    # Without any such phrase it is the mood that has none, such as `control`.
    return best or next((name for name in moods if name not in counts), moods[0])


def _system_prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(text_of(message) for message in messages if message["role"] == "system")
