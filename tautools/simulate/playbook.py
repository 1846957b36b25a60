"""What the agent does in one conversation: all steps of a solved one, all steps of one that is given up.

Solved: ask who calls, read, ask for consent, follow the reference actions (the customer's by asking it for them), say
what must be said. Given up: perhaps read something, change nothing, say nothing that scores. The steps follow from the
task and a seed alone, so the agent finds its place from the messages it is sent and keeps no memory.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tautools.simulate.errands import asking
from tautools.simulate.speech import Do, Say, Step

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tautools.bench.types import Action, Task

__all__ = ["CLOSING", "given_up", "place_in", "reads_only", "solved"]

_READ_PREFIXES = ("get_", "find_", "search_", "list_", "calculate", "check_")
# Which tool looks up what an argument names.
_LOOK_UP = {"reservation_id": "get_reservation_details", "order_id": "get_order_details", "user_id": "get_user_details"}
# How a caller is found: tool, argument, and what the argument looks like in a scenario.
_FIRST_LOOKS = (
    ("get_user_details", "user_id", re.compile(r"\b[a-z]+_[a-z]+_\d{4}\b")),
    ("get_customer_by_phone", "phone_number", re.compile(r"\b\d{3}-\d{3}-\d{4}\b")),
)
_NUMBER = re.compile(r"\d+(\.\d+)?")

CLOSING = "Is there anything else I can help you with?"
_GREETING = "I am happy to help with that. May I have your user id, or your name and zip code or email?"
_GREETING_BY_PHONE = "I am happy to help with that. May I have your name and your phone number?"
_CONSENT = "Thank you. I have what I need and can make the changes you asked for. Shall I go ahead?"
_TRANSFER = "YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON."
# Apologies that share as few letter runs as possible: one of them is free of any text that would score.
_APOLOGIES = (
    f"I am sorry, I am unable to do that. {CLOSING}",
    "I regret that I am unable to help with this. Is there anything else?",
    "Unable to help, sorry. Anything else?",
)


def reads_only(name: str) -> bool:
    """Whether a tool of that name only looks things up."""
    return name.startswith(_READ_PREFIXES)


def solved(task: Task, tools: Collection[str], ending: Collection[str] = ()) -> tuple[Step, ...]:
    """Return the steps that follow the task's reference; a call of a tool in `ending` ends the talk and comes last."""
    reference = [each for each in task.reference if each.name not in ending]
    actions = [each for each in reference if each.requestor == "assistant"]
    steps: list[Step] = [Say(_greeting(tools))]
    known: set[str] = set()
    if not any(reads_only(action.name) for action in actions):
        steps += _first_look(task, tools)
    asked = False
    for action in reference:
        if action.requestor != "assistant":
            steps.append(Say(asking(action)))
            continue
        steps += _look_up(action, tools, known)
        if not asked and not reads_only(action.name) and action.name != "transfer_to_human_agents":
            steps.append(Say(_CONSENT))
            asked = True
        steps.append(Do(action.name, action.arguments))
    last = [Do(each.name, each.arguments) for each in task.reference if each.name in ending][-1:]
    if task.communicate or not last:
        steps.append(Say(_last_words(task, actions)))
    return (*steps, *last)


def given_up(task: Task, tools: Collection[str], style: int) -> tuple[Step, ...]:
    """Return the steps of a conversation that is not solved; `style` chooses how soon it is given up."""
    reads: list[Step] = [Do(action.name, action.arguments) for action in task.reference if _looks_up(action)]
    reads = (reads or _first_look(task, tools))[: style % 4]
    greeting: list[Step] = [Say(_silent(_greeting(tools), task))] if style % 2 else []
    return (*greeting, *reads, Say(_silent(_APOLOGIES[style % len(_APOLOGIES)], task)))


def place_in(steps: Sequence[Step], moves: Sequence[str]) -> int:
    """Return the index of the next step, given what was done so far.

    A move that is not the step that was due (an answer cut short, words of another model) leaves the place as it is, so
    the step comes again. A tool's error does not: the reference goes on after a refused call too.
    """
    place = 0
    for move in moves:
        if place < len(steps) and move == _name(steps[place]):
            place += 1
    return place


def _name(step: Step) -> str:
    return step.name if isinstance(step, Do) else ""


def _greeting(tools: Collection[str]) -> str:
    return _GREETING_BY_PHONE if "get_customer_by_phone" in tools else _GREETING


def _looks_up(action: Action) -> bool:
    return action.requestor == "assistant" and reads_only(action.name)


def _first_look(task: Task, tools: Collection[str]) -> list[Step]:
    for tool, argument, pattern in _FIRST_LOOKS:
        found = pattern.search(task.user_system)
        if found is not None and tool in tools:
            return [Do(tool, {argument: found.group()})]
    return []


def _look_up(action: Action, tools: Collection[str], known: set[str]) -> list[Step]:
    """Return the reads that should come before an action: of each thing it names that was not looked at yet."""
    steps: list[Step] = []
    for argument, tool in _LOOK_UP.items():
        value = action.arguments.get(argument)
        if not isinstance(value, str) or value in known:
            continue
        known.add(value)
        if tool in tools and not reads_only(action.name):
            steps.append(Do(tool, {argument: value}))
    return steps


def _last_words(task: Task, actions: Sequence[Action]) -> str:
    transferred = bool(actions) and actions[-1].name == "transfer_to_human_agents"
    said = _information(task.communicate)
    if transferred:
        return f"{said} {_TRANSFER}".strip()
    return f"{said or 'Your request has been taken care of as far as our policy allows.'} {CLOSING}"


def _information(items: Sequence[str]) -> str:
    numbers = [item for item in items if _NUMBER.fullmatch(item)]
    words = [item for item in items if not _NUMBER.fullmatch(item)]
    sentences = []
    if numbers:
        sentences.append(f"The figures you asked about are {' and '.join(numbers)}.")
    if words:
        sentences.append(f"For your records, the details are: {' and '.join(words)}.")
    return " ".join(sentences)


def _silent(text: str, task: Task) -> str:
    """Return `text`, or other words where the scorer would find in it what the agent must say."""
    for words in (text, *_APOLOGIES, "Sorry, no."):
        heard = words.lower().replace(",", "")
        if not any(item.lower() in heard for item in task.communicate):
            return words
    return "-"
