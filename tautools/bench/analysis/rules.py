"""One conversation under several benchmarks' rules: what each of them would have scored.

The rules differ in little, and the little decides: whether the state at a limit is scored, where the required
information must stand, what counts as having said it, and whether the reference's actions are required.

Source
------
v1: `Env.calculate_reward` of tau-bench; v2: the evaluators of tau2-bench; inspect: the scorers of `inspect_evals.tau2`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tautools.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tautools.bench.analysis.replay import Replay
    from tautools.bench.types import Changes, Domain, ReferenceAction, Task


class ScoringRules(StrEnum):
    """Whose rules."""

    V1 = "v1"
    """tau-bench: the database, and each required information as a part of one answer; at a limit or a fault 0. A task
    that does not score the database (telecom, which tau-bench has not) keeps the parts that it names."""
    V2 = "v2"
    """tau2-bench: the parts that the task's reward basis names; 0 unless the user or the agent ended it."""
    INSPECT = "inspect"
    """inspect's tau2: as v2, on the state reached, however it ended."""
    EXACT = "exact"
    """As v1, but the information must stand as a whole word or number: "10" is not said by "100"."""


@dataclass(frozen=True, slots=True)
class RulesVerdict:
    """What some rules say of one conversation."""

    reward: float
    lost_by: tuple[str, ...] = ()
    """Why it is not 1: `end`, `database`, `information`, `environment`, `actions`, `judge`."""
    awaiting_judge: int = 0
    """Natural-language assertions that these rules ask a judge for and that nobody judged."""


def score_by_rules(rules: ScoringRules, domain: Domain, task: Task, done: Replay, outcome: Outcome) -> RulesVerdict:
    """Return what `rules` say of a conversation.

    Parameters
    ----------
    rules : Rules
        Whose rules.
    domain, task
        The env and the task of the conversation.
    done : Replayed
        What it did.
    outcome : Outcome
        How it ended.
    """
    parts = {
        "end": rules is ScoringRules.INSPECT or outcome in {Outcome.PASSED, Outcome.FAILED},
        "database": _same_database(domain.expected(task), done.changes),
        "information": _all_said(_SAYS[rules], task.communicate, done.said),
    }
    basis = basis_of(task)
    if rules not in {ScoringRules.V2, ScoringRules.INSPECT} and "DB" in basis:
        basis = {"DB", "COMMUNICATE"}
    parts["environment"] = all(bool(each.get("met")) for each in _assertions(done.reward.info))
    # inspect asks for the required actions where its scorer looked for them, which it tells.
    made = _all_made(task.reference, done) if rules is ScoringRules.V2 else not done.reward.info.get("missing_actions")
    parts["actions"] = made
    asked = {"end"} | {_PARTS[name] for name in basis if name in _PARTS}
    lost = tuple(name for name, kept in parts.items() if name in asked and not kept)
    awaiting_judge = len(task.assertions) if "NL_ASSERTION" in basis and rules is ScoringRules.V2 else 0
    return RulesVerdict(0.0 if lost else 1.0, lost, awaiting_judge)


def with_judge_verdicts(verdict: RulesVerdict, judged: Sequence[Mapping[str, Any]] | None) -> RulesVerdict:
    """Return a verdict with what a judge said of the assertions that its rules ask for; None: nobody was asked."""
    if not judged or not verdict.awaiting_judge:
        return verdict
    if all(each["met"] for each in judged):
        return replace(verdict, awaiting_judge=0)
    return RulesVerdict(0.0, (*verdict.lost_by, "judge"))


_PARTS = {"DB": "database", "COMMUNICATE": "information", "ENV_ASSERTION": "environment", "ACTION": "actions"}


def basis_of(task: Task) -> set[str]:
    """Return what a task's reward is made of; a source without the notion has the database and the information."""
    criteria = getattr(task.source_task, "evaluation_criteria", None)
    named = getattr(criteria, "reward_basis", None)
    return {str(getattr(each, "value", each)) for each in named} if named else {"DB", "COMMUNICATE"}


def _assertions(info: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = info.get("assertions") or ()
    return found


def _same_database(expected: Changes | None, actual: Changes) -> bool:
    return expected is None or dict(expected) == dict(actual)


def _all_said(says: Callable[[str, Sequence[str]], bool], wanted: Sequence[str], answers: Sequence[str]) -> bool:
    heard = [answer.lower().replace(",", "") for answer in answers]
    return all(says(info.lower(), heard) for info in wanted)


def _in_one_answer(info: str, heard: Sequence[str]) -> bool:
    return any(info in answer for answer in heard)


def _in_all_answers(info: str, heard: Sequence[str]) -> bool:
    return info in "\n".join(heard)


def _as_a_whole(info: str, heard: Sequence[str]) -> bool:
    # A full stop between digits is part of a number; any other ends a word or a sentence.
    whole = re.compile(rf"(?<!\w)(?<!\d\.){re.escape(info.replace(',', ''))}(?!\w|\.\d)")
    return any(whole.search(answer) for answer in heard)


_SAYS = {
    ScoringRules.V1: _in_one_answer,
    ScoringRules.V2: _in_one_answer,
    ScoringRules.INSPECT: _in_all_answers,
    ScoringRules.EXACT: _as_a_whole,
}


def _all_made(reference: Sequence[ReferenceAction], done: Replay) -> bool:
    """Whether some call stands for each reference action; as in tau2-bench, one call may stand for several."""
    calls = [(step.deed.call, _arguments(step.deed.arguments)) for step in done.steps]
    return all(
        any(name == action.name and _arguments_match(action, given) for name, given in calls) for action in reference
    )


def _arguments_match(action: ReferenceAction, given: Mapping[str, Any]) -> bool:
    # Where a task does not name what is compared, tau2-bench compares the arguments that the call has.
    names = given.keys() if action.compared is None else action.compared
    wanted, made = ({name: each[name] for name in names if name in each} for each in (action.arguments, given))
    return wanted == made


def _arguments(text: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {"": text}
    return value if isinstance(value, dict) else {"": value}
