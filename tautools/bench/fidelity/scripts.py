"""The scripts: for each task what both models write, the same words for the original and for our loop.

Answers are told by role and by the number of that role's request, never by what is asked, so that two loops that ask
differently still hear the same. `solve` follows the reference; `mixed` strews oddities over it; `broken` holds one
answer that the original does not live through.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from tautools.bench.fidelity import spoken
from tautools.bench.fidelity.spoken import ScriptedAnswer, ScriptedCall
from tautools.bench.setting import conversation_seed
from tautools.records import Strategy, UserStrategy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tautools.bench.fidelity.spoken import ScriptedAnswer
    from tautools.bench.types import Approach, Domain, Task


_Lines: TypeAlias = "list[tuple[ScriptedAnswer, str]]"
"""Answers, each with what is odd about it."""

VARIANTS = ("solve", "mixed", "broken")
"""`mixed 2` and so on are further ones of their kind."""
_ODDS = 0.4
"""How likely an answer of `mixed` is odd."""
_ENDLESS_ODDS = 0.1
"""How likely the customer of `mixed` never says the stop word."""
_BY_TEXT = (Strategy.ACT, Strategy.REACT)
_VERDICTS = ("true", "false", "True.", "FALSE", "It is not true.", "yes", "")
_CHECKS = 90
"""More than any customer is ever asked about its drafts."""


@dataclass(frozen=True)
class Case:
    """One conversation's script."""

    name: str
    """Task id and variant."""
    task_id: str
    variant: str
    index: int
    """The task's place in its split."""
    seed: int
    """The conversation's."""
    answers: Mapping[str, Sequence[ScriptedAnswer]]
    """Role to its answers in order: `agent`, `user`, and `check`, what a user model is asked about its own drafts."""
    after: Mapping[str, ScriptedAnswer]
    """What a role says when its answers are used up."""
    odd: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What is odd about each of the answers; empty: nothing."""


def make_cases(
    domain: Domain, approach: Approach, variants: Sequence[str] = VARIANTS, tasks: Sequence[Task] | None = None
) -> list[Case]:
    """Return the script of each task and variant, the same ones at each call."""
    places = {name: index for index, name in enumerate(domain.tasks)}
    chosen = list(domain.tasks.values()) if tasks is None else tasks
    return [
        _ScriptWriter(domain, approach, task, variant).case(places[task.id]) for task in chosen for variant in variants
    ]


class _ScriptWriter:
    """Writes the script of one conversation."""

    def __init__(self, domain: Domain, approach: Approach, task: Task, variant: str) -> None:
        ref = domain.ref
        place = "/".join((ref.env, ref.split, task.id, variant, approach.strategy, approach.user_strategy))
        self.rng = random.Random(place)  # noqa: S311 - a script, not a secret
        self.task, self.variant, self.kind = task, variant, variant.split(maxsplit=1)[0]
        self.strategy, self.user_strategy = approach.strategy, approach.user_strategy
        self.by_text = self.strategy in _BY_TEXT
        self.odds = 0.0 if self.kind == "solve" else _ODDS

    def case(self, index: int) -> Case:
        """Return the script."""
        agent, customer = self._agent(), self._customer()
        checks = [({"content": self._verdict(number)}, "") for number in range(_CHECKS)]
        if self.kind == "broken":
            self._break(agent, customer, checks)
        roles = {"agent": agent, "user": customer, "check": checks}
        return Case(
            name=f"{self.task.id}/{self.variant}",
            task_id=self.task.id,
            variant=self.variant,
            index=index,
            seed=conversation_seed(0, self.task.id, 0),
            answers={role: [answer for answer, _ in lines] for role, lines in roles.items()},
            after=self._after(),
            odd={role: [kind for _, kind in lines] for role, lines in roles.items()},
        )

    def _plan(self) -> list[ScriptedCall]:
        """Return what solves the task: a question, the reference's calls, and the words that are asked for."""
        question = ScriptedCall("respond", {"content": "Certainly. Could you confirm your details?"})
        calls = [
            ScriptedCall(action.name, action.arguments, f"call_{number}")
            for number, action in enumerate(self.task.reference)
        ]
        done = " ".join(("It is done.", *self.task.communicate))
        return [question, *calls, ScriptedCall("respond", {"content": done})]

    def _agent(self) -> _Lines:
        odd = spoken.ODD_TEXTS if self.by_text else spoken.ODD_CALLS
        lines: _Lines = []
        for call in self._plan():
            if self.rng.random() < self.odds:
                kind = self.rng.choice(list(odd))
                lines.append((odd[kind](call, self.rng), kind))
            if self.kind == "solve" or self.rng.random() < 0.9:
                lines.append((spoken.as_text(call, self.strategy) if self.by_text else spoken.as_calls(call), ""))
        return lines

    def _customer(self) -> _Lines:
        words = ["Hello, I need your help.", "Here you are: it is as I said."]
        lines = [(spoken.as_customer(each, self.user_strategy), "") for each in words]
        if self.kind == "solve":
            return lines
        odd = spoken.ODD_CUSTOMER[self.user_strategy]
        for number in range(self.rng.randrange(8)):
            strange = self.rng.random() < self.odds
            kind = self.rng.choice(list(odd)) if strange else ""
            plain = spoken.as_customer(f"And {number} more of it, please.", self.user_strategy)
            lines.insert(self.rng.randrange(len(lines) + 1), ({"content": odd[kind]}, kind) if kind else (plain, ""))
        return lines

    def _verdict(self, number: int) -> str:
        """Return a verdict; one that may be read as a reflection too where the customer reflects."""
        verdict = self.rng.choice(_VERDICTS) if self.odds else "true"
        reflects = self.user_strategy is UserStrategy.REFLECTION
        return f"{verdict}\nReflection:\nToo long.\n\nResponse:\nIn short, {number}." if reflects else verdict

    def _after(self) -> dict[str, ScriptedAnswer]:
        endless = self.kind == "mixed" and self.rng.random() < _ENDLESS_ODDS
        last = "Go on, please." if endless else "###STOP###"
        asks = ScriptedCall("respond", {"content": "Is there anything else?"})
        return {
            "agent": spoken.as_text(asks, self.strategy) if self.by_text else spoken.as_calls(asks),
            "user": spoken.as_customer(last, self.user_strategy),
            "check": {"content": "true\nResponse:\nNo, thank you."},
        }

    def _break(self, agent: _Lines, customer: _Lines, checks: _Lines) -> None:
        """Put one answer in that the original does not live through, or that ours ends at."""
        if self.user_strategy is UserStrategy.REFLECTION and self.rng.random() < 0.5:
            first = self.rng.randrange(3)
            broken = self.rng.choice(("In short, no.", "Response:\nA.\nResponse:\nB."))
            checks[: first + 2] = [
                *(({"content": "true"}, "") for _ in range(first)),
                ({"content": "false"}, ""),
                ({"content": broken}, spoken.BROKEN_REFLECTION),
            ]
            return
        breaking = spoken.BREAKING_CUSTOMER[self.user_strategy]
        if self.rng.random() < 0.3:
            kind = self.rng.choice(list(breaking))
            customer.insert(self.rng.randrange(len(customer) + 1), ({"content": breaking[kind]}, kind))
            return
        odd = spoken.BREAKING_TEXTS if self.by_text else spoken.BREAKING_CALLS
        kind = self.rng.choice(list(odd))
        agent.insert(self.rng.randrange(len(agent) + 1), (odd[kind](self._some_call(), self.rng), kind))

    def _some_call(self) -> ScriptedCall:
        """Return a call of the reference, or a thought when there is none."""
        calls = [each for each in self._plan() if each.name != "respond"]
        return self.rng.choice(calls) if calls else ScriptedCall("think", {"thought": "Nothing to do."})
