"""Whether a persona's words name facts of the benchmark's tasks: such a persona would change the task.

Facts are what tasks are made of: whatever holds a digit (ids, amounts, dates), the customers' names, the values of the
reference's arguments, what must be said, and the names of tools. Plain words such as `blue` are not told apart from
everyday speech and not looked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tautools.errors import ParamsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tautools.bench.types import Domain, Task
    from tautools.params.personas import Persona

__all__ = ["facts_in", "leaves", "refuse_facts"]

_TOKEN = re.compile(r"[A-Za-z0-9_#@$.,'-]+")
_PERSON = re.compile(r"\b(?:[Yy]our (?:user )?name is|[Yy]ou are)\s+([A-Z][a-z]+)\s+([A-Z][a-z]+)")
_MOST_WORDS = 6
"""Longer values, such as the summary of a transfer, are sentences and not facts."""


@dataclass(frozen=True)
class _Facts:
    exact: frozenset[str]
    """Tokens that mean the same in any case: ids, numbers, tools, mail addresses."""
    names: frozenset[str]
    """Words with a capital, which only so are names."""
    phrases: frozenset[str]
    """Values of several words, in lower case."""


def refuse_facts(persona: Persona, domain: Domain) -> None:
    """Refuse a persona whose words name facts of the env's tasks.

    Raises
    ------
    ParamsError
        Naming what was found.
    """
    found = facts_in(persona.words, domain)
    if found:
        raise ParamsError(
            f"The persona {persona.label} names facts of the tasks of {domain.env}: a persona that changes the task's "
            "facts is not played.",
            evidence=f"Found in its words: {', '.join(found)}.",
            next_step="Say how the customer speaks and behaves, without ids, names, amounts, values or tools.",
        )


def facts_in(text: str, domain: Domain) -> list[str]:
    """Return the facts of the env's tasks that a text names, each once, in their order."""
    facts = _facts(domain)
    words = [_bare(token) for token in _TOKEN.findall(text)]
    found = [word for word in words if word.lower() in facts.exact or word in facts.names]
    spoken = f" {' '.join(word.lower() for word in words)} "
    found += [phrase for phrase in sorted(facts.phrases) if f" {phrase} " in spoken]
    return list(dict.fromkeys(found))


def leaves(value: Any) -> Iterator[str]:
    """Yield the plain values within a call's arguments, as text; truth values and nothing are none."""
    if isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from leaves(each)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _facts(domain: Domain) -> _Facts:
    exact = {str(tool["function"]["name"]).lower() for tool in (*domain.tools, *domain.user_tools)}
    exact = {name for name in exact if "_" in name}  # `calculate` is a word like any other
    names: set[str] = set()
    phrases: set[str] = set()
    for task in domain.tasks.values():
        exact.update(_tokens_with_digits(task.user_system))
        for person in _PERSON.findall(task.user_system):
            names.update(person)
        for value in _values(task):
            _sort(value, exact, names, phrases)
    return _Facts(frozenset(exact), frozenset(names), frozenset(phrases))


def _values(task: Task) -> Iterator[str]:
    arguments: Iterable[Mapping[str, Any]] = (action.arguments for action in task.reference)
    for each in arguments:
        yield from leaves(dict(each))
    yield from task.communicate


def _sort(value: str, exact: set[str], names: set[str], phrases: set[str]) -> None:
    words = [_bare(token) for token in _TOKEN.findall(value)]
    if len(words) > _MOST_WORDS:
        return
    exact.update(_tokens_with_digits(value))
    if len(words) > 1:
        phrases.add(" ".join(word.lower() for word in words))
    elif words and ("_" in value or "@" in value):
        exact.add(words[0].lower())
    elif words and len(words[0]) > 2 and words[0] != words[0].lower():
        names.add(words[0])


def _tokens_with_digits(text: str) -> Iterator[str]:
    for token in _TOKEN.findall(text):
        bare = _bare(token).lower()
        if len(bare) > 2 and any(char.isdigit() for char in bare):
            yield bare


def _bare(token: str) -> str:
    return token.replace(",", "").strip("#$.'-")
