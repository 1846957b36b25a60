"""The scripts: for each task what both models write, the same for the original and for our loop.

Answers are given by role and by the number of that role's request, never by what is asked, so that two loops that ask
differently still get the same answers. `solve` follows the reference; `mixed` strews oddities over it; `broken` has one
answer at which the original raises. Each oddity is one row of a table: its name, and the answer made of the call or the
words that were due.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, TypeAlias

from tautools.bench.setting import conversation_seed
from tautools.bench.types import Approach, Domain, Task
from tautools.files import packaged_yaml
from tautools.records import Strategy, UserStrategy

ScriptedAnswer: TypeAlias = dict[str, Any]
"""`content`, and `tool_calls` in OpenAI's form."""

VARIANTS = ("solve", "mixed", "broken")
"""`mixed 2` and so on are further ones of their kind."""


@dataclass(frozen=True, slots=True)
class ScriptedCall:
    """A tool call that is due; saying something is the call `respond`."""

    name: str
    arguments: dict[str, Any]
    wanted_id: str = "call_0"

    @property
    def words(self) -> str:
        """What is said; a call is described."""
        return str(self.arguments.get("content", f"I will use {self.name} now."))

    @property
    def json(self) -> str:
        """The action as JSON text."""
        return json.dumps({"name": self.name, "arguments": self.arguments})

    @property
    def callable(self) -> "ScriptedCall":
        """The call; when words are due, thinking about them, which can be called."""
        return self if self.name != "respond" else ScriptedCall("think", {"thought": self.words}, self.wanted_id)


Odd: TypeAlias = Callable[[ScriptedCall, random.Random], ScriptedAnswer]


def as_calls(call: ScriptedCall, content: str | None = None, indent: int | None = None) -> ScriptedAnswer:
    """Return what a model writes that calls tools; words when there is nothing to call."""
    if call.name == "respond":
        return {"content": call.words}
    arguments = json.dumps(call.arguments, indent=indent) + ("\n" if indent else "")
    return tool_calls((call.name, arguments), first=call.wanted_id, content=content)


def tool_calls(*calls: tuple[str, str], first: str = "odd", content: str | None = None) -> ScriptedAnswer:
    """Return an answer with these calls, the arguments as text."""
    functions = [{"arguments": arguments, "name": name} for name, arguments in calls]
    made = [{"function": each, "id": f"{first}_{i}", "type": "function"} for i, each in enumerate(functions)]
    return {"content": content, "tool_calls": made}


def _as_action(call: ScriptedCall) -> ScriptedAnswer:
    return {"content": f"Action:\n{call.json}"}


def _as_customer(words: str, user_strategy: UserStrategy) -> ScriptedAnswer:
    """Return what a customer's model writes to say `words`."""
    reacts = user_strategy is UserStrategy.REACT
    return {"content": f"Thought:\nI should answer.\n\nUser Response:\n{words}" if reacts else words}


def _changed(arguments: dict[str, Any], rng: random.Random, value: Any) -> dict[str, Any]:
    """Put `value` in the place of one of the arguments, or add one when there is none."""
    return {**arguments, rng.choice(sorted(arguments)) if arguments else "unasked": value}


def _without_one(arguments: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    left_out = rng.choice(sorted(arguments)) if arguments else ""
    return {name: value for name, value in arguments.items() if name != left_out}


_ODD_ARGUMENTS: dict[str, Callable[[dict[str, Any], random.Random], dict[str, Any]]] = {
    "a wrong value": lambda given, rng: _changed(given, rng, f"none_{rng.randrange(10**6)}"),
    "a number for a text": lambda given, rng: _changed(given, rng, rng.choice([0, -3, 2.0, 10**20])),
    "a list for a text": lambda given, rng: _changed(given, rng, ["#W0000000", {"a": 1}]),
    "null for a text": lambda given, rng: _changed(given, rng, None),
    "letters of other scripts": lambda given, rng: _changed(given, rng, "Zoë 王 🙂 \u2028"),
    "a missing argument": _without_one,
    "one argument too many": lambda given, _: {**given, "unasked": True},
    "an argument named data": lambda given, _: {**given, "data": {}},
}


def _odd_calls(write: Callable[[ScriptedCall], ScriptedAnswer]) -> dict[str, Odd]:
    """Return what can be odd about a call, whatever its form."""

    def row(change: Callable[[dict[str, Any], random.Random], dict[str, Any]]) -> Odd:
        return lambda call, rng: write(replace(call.callable, arguments=change(call.callable.arguments, rng)))

    rows = {kind: row(change) for kind, change in _ODD_ARGUMENTS.items()}
    return rows | {"an unknown tool": lambda call, _: write(replace(call.callable, name="open_the_safe"))}


ODD_CALLS: dict[str, Odd] = {
    **_odd_calls(as_calls),
    "several calls in one answer": lambda call, _: tool_calls(
        (call.callable.name, json.dumps(call.callable.arguments)),
        ("think", '{"thought": "and then"}'),
        first=call.wanted_id,
    ),
    "words beside a call": lambda call, _: as_calls(call.callable, content="One moment, please."),
    "arguments laid out by the model": lambda call, _: as_calls(call.callable, indent=2),
    "no call and no words": lambda *_: {"content": ""},
    "a call of respond": lambda call, _: tool_calls(
        ("respond", json.dumps({"content": call.words})), first=call.wanted_id
    ),
    "an action as text": lambda call, _: _as_action(call),
}
"""Answers of tool calling that both sides can use, by what is odd about them."""

BREAKING_CALLS: dict[str, Odd] = {
    "arguments that are not JSON": lambda call, _: tool_calls((call.callable.name, '{"order_id": ')),
    "arguments that are no object": lambda call, _: tool_calls((call.callable.name, "[1]")),
    "a call of respond without content": lambda *_: tool_calls(("respond", "{}")),
}
"""Answers that end the original's conversation with an exception."""


def _text(text: str, call: ScriptedCall, _rng: random.Random) -> ScriptedAnswer:
    """Put in the action that is due for `CALL`, the same without its last brace for `OPEN`, its words for `WORDS`."""
    due = {"CALL": call.json, "OPEN": call.json[:-1], "WORDS": call.words}
    return {"content": re.sub("|".join(due), lambda name: due[name[0]], text)}


def _texts(kind: str) -> dict[str, Odd]:
    return {odd: partial(_text, text) for odd, text in _WRITTEN[kind].items()}


_WRITTEN: Mapping[str, dict[str, str]] = packaged_yaml(__package__, "scripts.yaml")
ODD_TEXTS: dict[str, Odd] = _odd_calls(_as_action) | _texts("odd_action")
"""Answers of `act` and `react` that both sides can use."""
BREAKING_TEXTS = _texts("breaking_action")
"""Answers that end the original's conversation with an exception."""
ODD_CUSTOMER = {each: _WRITTEN[f"odd_{'thought' if each == 'react' else 'words'}"] for each in UserStrategy}
"""What a customer's model may write, by what is odd about it."""
BREAKING_CUSTOMER = {each: _WRITTEN[f"breaking_{'thought' if each == 'react' else 'words'}"] for each in UserStrategy}
"""What a customer's model may write that ends the original's conversation with an exception, or ours."""
BROKEN_REFLECTION = "a reflection without one response"
SILENT = "a customer that says nothing"


@dataclass(frozen=True)
class Case:
    """One conversation's script."""

    name: str
    """Task id and variant."""
    task_id: str
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
    pairs = product(domain.tasks.values() if tasks is None else tasks, variants)
    return [_ScriptWriter(domain, approach, task, variant).case() for task, variant in pairs]


_Lines: TypeAlias = list[tuple[ScriptedAnswer, str]]
"""Answers, each with what is odd about it."""
_ODDS = 0.4
"""How likely an answer of `mixed` is odd."""
_VERDICTS = ("true", "false", "True.", "FALSE", "It is not true.", "yes", "")


class _ScriptWriter:
    """Writes the script of one conversation."""

    def __init__(self, domain: Domain, approach: Approach, task: Task, variant: str) -> None:
        ref = domain.ref
        seed = "/".join((ref.env, ref.split, task.id, variant, approach.strategy, approach.user_strategy))
        self.rng = random.Random(seed)  # noqa: S311 - a script, not a secret
        self.task, self.variant, self.kind = task, variant, variant.split(maxsplit=1)[0]
        self.index = list(domain.tasks).index(task.id)
        self.strategy, self.user_strategy = approach.strategy, approach.user_strategy
        self.by_text = self.strategy in {Strategy.ACT, Strategy.REACT}
        self.odds = 0.0 if self.kind == "solve" else _ODDS

    def case(self) -> Case:
        agent, customer = self._agent(), self._customer()
        # 90: more than any customer is ever asked about its drafts.
        checks = [({"content": self._verdict(number)}, "") for number in range(90)]
        if self.kind == "broken":
            self._break(agent, customer, checks)
        roles = {"agent": agent, "user": customer, "check": checks}
        return Case(
            name=f"{self.task.id}/{self.variant}",
            task_id=self.task.id,
            index=self.index,
            seed=conversation_seed(0, self.task.id, 0),
            answers={role: [answer for answer, _ in lines] for role, lines in roles.items()},
            after=self._after(),
            odd={role: [kind for _, kind in lines] for role, lines in roles.items()},
        )

    def _plan(self) -> list[ScriptedCall]:
        """Return what solves the task: a question, the reference's calls, and the words that are asked for."""
        question = ScriptedCall("respond", {"content": "Certainly. Could you confirm your details?"})
        reference = enumerate(self.task.reference)
        calls = [ScriptedCall(action.name, dict(action.arguments), f"call_{number}") for number, action in reference]
        done = " ".join(("It is done.", *self.task.communicate))
        return [question, *calls, ScriptedCall("respond", {"content": done})]

    def _written(self, call: ScriptedCall) -> ScriptedAnswer:
        if not self.by_text:
            return as_calls(call)
        thought = "Thought:\nThis is the next step.\n" if self.strategy is Strategy.REACT else ""
        return {"content": f"{thought}Action:\n{call.json}"}

    def _agent(self) -> _Lines:
        odd = ODD_TEXTS if self.by_text else ODD_CALLS
        lines: _Lines = []
        for call in self._plan():
            if self.rng.random() < self.odds:
                kind = self.rng.choice(list(odd))
                lines.append((odd[kind](call, self.rng), kind))
            if self.kind == "solve" or self.rng.random() < 0.9:
                lines.append((self._written(call), ""))
        return lines

    def _customer(self) -> _Lines:
        words = ["Hello, I need your help.", "Here you are: it is as I said."]
        lines = [(_as_customer(each, self.user_strategy), "") for each in words]
        if self.kind == "solve":
            return lines
        odd = ODD_CUSTOMER[self.user_strategy]
        for number in range(self.rng.randrange(8)):
            kind = self.rng.choice(list(odd)) if self.rng.random() < self.odds else ""
            plain = _as_customer(f"And {number} more of it, please.", self.user_strategy)
            lines.insert(self.rng.randrange(len(lines) + 1), ({"content": odd[kind]}, kind) if kind else (plain, ""))
        return lines

    def _verdict(self, number: int) -> str:
        """Return a verdict; one that may be read as a reflection too where the customer reflects."""
        verdict = self.rng.choice(_VERDICTS) if self.odds else "true"
        reflects = self.user_strategy is UserStrategy.REFLECTION
        return f"{verdict}\nReflection:\nToo long.\n\nResponse:\nIn short, {number}." if reflects else verdict

    def _after(self) -> dict[str, ScriptedAnswer]:
        endless = self.kind == "mixed" and self.rng.random() < 0.1  # the customer never says the stop word
        return {
            "agent": self._written(ScriptedCall("respond", {"content": "Is there anything else?"})),
            "user": _as_customer("Go on, please." if endless else "###STOP###", self.user_strategy),
            "check": {"content": "true\nResponse:\nNo, thank you."},
        }

    def _break(self, agent: _Lines, customer: _Lines, checks: _Lines) -> None:
        """Add one answer at which the original raises, or ours ends."""
        if self.user_strategy is UserStrategy.REFLECTION and self.rng.random() < 0.5:
            first = self.rng.randrange(3)
            broken = self.rng.choice(("In short, no.", "Response:\nA.\nResponse:\nB."))
            verdicts = [({"content": verdict}, "") for verdict in (*["true"] * first, "false")]
            checks[: first + 2] = [*verdicts, ({"content": broken}, BROKEN_REFLECTION)]
            return
        breaking = BREAKING_CUSTOMER[self.user_strategy]
        if self.rng.random() < 0.3:
            kind = self.rng.choice(list(breaking))
            customer.insert(self.rng.randrange(len(customer) + 1), ({"content": breaking[kind]}, kind))
            return
        odd = BREAKING_TEXTS if self.by_text else BREAKING_CALLS
        kind = self.rng.choice(list(odd))
        calls = [call for call in self._plan() if call.name != "respond"]
        agent_at = self.rng.randrange(len(agent) + 1)
        call = self.rng.choice(calls) if calls else ScriptedCall("think", {"thought": "Nothing to do."})
        agent.insert(agent_at, (odd[kind](call, self.rng), kind))
