"""Personas in a conversation: verified in each request that the customer's model is sent, and in what they say.

A text that was meant to change the customer and never reached its model would be measured as "no effect". So the loop
looks at the requests themselves, and a text that is missing there ends the run. A persona whose words name facts of the
benchmark's tasks would change the task, and is refused. Facts are: words with a digit (ids, amounts, dates), the
customers' names, the values of the reference's arguments, what must be said, and the names of tools. Plain words such
as `blue` are not told apart from everyday speech and not looked for.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tautools.bench.types import Domain
from tautools.errors import ParamsError, PersonaError
from tautools.llm.types import Message
from tautools.params.personas import Persona


def verify_persona(messages: Sequence[Message], persona: Persona, *, first: bool) -> None:
    """Refuse a request to the customer's model whose system prompt lacks the persona.

    The checks that v1 asks of a draft have no system prompt; the first request always has one.

    Raises
    ------
    PersonaError
        When the text is not in it, once and whole.
    """
    system = [str(message.get("content") or "") for message in messages if message.get("role") == "system"]
    if not system and not first:
        return
    times = sum(text.count(persona.block) for text in system)
    if times == 1:
        return
    raise PersonaError(
        f"The persona {persona.label} is {'missing from' if not times else 'more than once in'} "
        "a request to the customer's model.",
        evidence=f"The system prompt sent ends: {system[-1][-200:]!r}" if system else "No system prompt was sent.",
        next_step="Nothing was recorded. Run it without --persona, or report how this customer's prompt is made.",
    )


_TOKEN = re.compile(r"[A-Za-z0-9_#@$.,'-]+")
_PERSON = re.compile(r"\b(?:[Yy]our (?:user )?name is|[Yy]ou are)\s+([A-Z][a-z]+)\s+([A-Z][a-z]+)")
_MOST_WORDS = 6
"""Longer values, such as the summary of a transfer, are sentences and not facts."""


def refuse_task_facts(persona: Persona, domain: Domain) -> None:
    """Refuse a persona whose words name facts of the env's tasks.

    Raises
    ------
    ParamsError
        Naming the facts.
    """
    named = task_facts_in(persona.words, domain)
    if named:
        raise ParamsError(
            f"The persona {persona.label} names facts of the tasks of {domain.ref.env}: a persona that changes the "
            "task's facts is not played.",
            evidence=f"Found in its words: {', '.join(named)}.",
            next_step="Say how the customer speaks and behaves, without ids, names, amounts, values or tools.",
        )


def task_facts_in(text: str, domain: Domain) -> list[str]:
    """Return the facts of the env's tasks that a text names, each once, in their order."""
    facts = _task_facts(domain)
    words = _words(text)
    named = [word for word in words if word.lower() in facts.exact or word in facts.names]
    sentence = f" {' '.join(words).lower()} "
    named += [phrase for phrase in sorted(facts.phrases) if f" {phrase} " in sentence]
    return list(dict.fromkeys(named))


def plain_values(value: Any) -> Iterator[str]:
    """Yield the plain values within a call's arguments, as text, without booleans and nulls."""
    if isinstance(value, dict):
        for each in value.values():
            yield from plain_values(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from plain_values(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


@dataclass
class _TaskFacts:
    exact: set[str]
    """Tokens that mean the same in any case: ids, numbers, tools, mail addresses."""
    names: set[str] = field(default_factory=set)
    """Words that are names only with a capital."""
    phrases: set[str] = field(default_factory=set)
    """Values of several words, in lower case."""

    def add_value(self, value: str) -> None:
        """Add a value of the reference by its kind."""
        words = _words(value)
        if len(words) > _MOST_WORDS:
            return
        self.exact.update(_with_digits(words))
        if len(words) > 1:
            self.phrases.add(" ".join(words).lower())
        elif words and ("_" in value or "@" in value):
            self.exact.add(words[0].lower())
        elif words and len(words[0]) > 2 and words[0] != words[0].lower():
            self.names.add(words[0])


def _task_facts(domain: Domain) -> _TaskFacts:
    tools = {str(tool["function"]["name"]).lower() for tool in (*domain.tools, *domain.user_tools)}
    facts = _TaskFacts({name for name in tools if "_" in name})  # `calculate` is a word like any other
    for task in domain.tasks.values():
        facts.exact.update(_with_digits(_words(task.user_system)))
        for person in _PERSON.findall(task.user_system):
            facts.names.update(person)
        for action in task.reference:
            for value in plain_values(dict(action.arguments)):
                facts.add_value(value)
        for value in task.communicate:
            facts.add_value(value)
    return facts


def _words(text: str) -> list[str]:
    return [token.replace(",", "").strip("#$.'-") for token in _TOKEN.findall(text)]


def _with_digits(words: Iterable[str]) -> Iterator[str]:
    return (word.lower() for word in words if len(word) > 2 and any(char.isdigit() for char in word))
