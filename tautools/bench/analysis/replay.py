"""Replay a stored conversation, to score it again and to see what it changed; two rewards that need no model.

A replay calls the benchmark's own tools in a fresh environment, so it needs the benchmark and no model. What other
benchmarks would have scored differs in little, and the little decides: whether the state at a limit is scored, where
the required information must stand, what counts as having said it, and whether the reference's actions are required.

Source
------
v1: `Env.calculate_reward` of tau-bench; v2: the evaluators of tau2-bench; inspect: the scorers of `inspect_evals.tau2`.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from tautools.bench.types import Changes, Domain, Observation, ReferenceAction, Reward, Task, run_without_loop
from tautools.records import Outcome, TrajectoryAction


@dataclass(frozen=True, slots=True)
class ReplayStep:
    """One call of a replay."""

    action: TrajectoryAction
    observation: Observation
    wrote: bool
    """Whether it changed the database."""

    @property
    def arguments(self) -> Any:
        """The call's arguments; the text itself when it is no JSON, or no tool was given it."""
        text = self.action.arguments
        try:
            return text if self.observation.flag == "arguments" else json.loads(text or "{}")
        except ValueError:
            return text


@dataclass(frozen=True, slots=True)
class Replay:
    """What a conversation did, done again in a fresh environment."""

    steps: tuple[ReplayStep, ...]
    """Its calls."""
    said: tuple[str, ...]
    """What the agent said to the user."""
    changes: Changes
    """What differs from the database as loaded."""
    reward: Reward
    """The bench's reward for the state reached and the agent's texts."""


def replay(domain: Domain, task: Task, actions: Sequence[TrajectoryAction]) -> Replay:
    """Do again what a conversation did, its actions in order, in a fresh environment of `task`.

    Raises
    ------
    BenchError
        When a tool of the benchmark awaits something, which none does so far.
    """
    env_state = domain.env_state(task)
    steps, now = [], dict(env_state.changes())
    for action in actions:
        if action.call:
            before, observation = now, run_without_loop(env_state.call(action.call, action.arguments, action.by))
            now = dict(env_state.changes())
            steps.append(ReplayStep(action, observation, wrote=now != before))
    said = tuple(action.text for action in actions if not action.call)
    return Replay(tuple(steps), said, now, env_state.reward(said))


def null_baseline(domain: Domain) -> dict[str, float]:
    """Return, by task id, the reward of an agent that calls no tool and says nothing, by the bench's scorer."""
    return {name: domain.env_state(task).reward([]).value for name, task in domain.tasks.items()}


def reference_reward(domain: Domain, task: Task) -> Reward:
    """Return the reward of an agent that makes the reference's calls and says what it must say.

    The calls pass the bench's validation as a model's calls do, so a reference that the bench's own tools refuse shows
    here.
    """
    state, _ = domain.play_reference(task)
    return state.reward(list(task.communicate))


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
    """The result of one conversation under some rules."""

    reward: float
    lost_by: tuple[str, ...] = ()
    """Why it is not 1: `end`, `database`, `information`, `environment`, `actions`, `judge`."""
    awaiting_judge: int = 0
    """Natural-language assertions that these rules ask a judge for and that are not judged."""


def score_by_rules(rules: ScoringRules, domain: Domain, task: Task, done: Replay, outcome: Outcome) -> RulesVerdict:
    """Return the result under `rules` of a conversation that did what `done` has and ended with `outcome`."""
    basis = basis_of(task)
    if rules not in {ScoringRules.V2, ScoringRules.INSPECT} and "DB" in basis:
        basis = {"DB", "COMMUNICATE"}
    info, expected = done.reward.info, domain.expected(task)
    texts = [text.lower().replace(",", "") for text in done.said]
    parts = [
        ("END", "end", rules is ScoringRules.INSPECT or outcome in {Outcome.PASSED, Outcome.FAILED}),
        ("DB", "database", expected is None or dict(expected) == dict(done.changes)),
        ("COMMUNICATE", "information", all(_says(rules, wanted.lower(), texts) for wanted in task.communicate)),
        ("ENV_ASSERTION", "environment", all(bool(each.get("met")) for each in info.get("assertions") or ())),
        # inspect asks for the required actions where its scorer looked for them, which its info says.
        ("ACTION", "actions", _all_made(task, done) if rules is ScoringRules.V2 else not info.get("missing_actions")),
    ]
    lost = tuple(word for part, word, kept in parts if part in basis | {"END"} and not kept)
    awaiting = len(task.assertions) if "NL_ASSERTION" in basis and rules is ScoringRules.V2 else 0
    return RulesVerdict(0.0 if lost else 1.0, lost, awaiting)


def with_judge_verdicts(verdict: RulesVerdict, judged: Sequence[Mapping[str, Any]] | None) -> RulesVerdict:
    """Return a verdict with a judge's answers to the assertions that its rules ask for; None: no judge was asked."""
    if not judged or not verdict.awaiting_judge:
        return verdict
    if all(each["met"] for each in judged):
        return replace(verdict, awaiting_judge=0)
    return RulesVerdict(0.0, (*verdict.lost_by, "judge"))


def basis_of(task: Task) -> set[str]:
    """Return the parts of a task's reward; a source that names none has the database and the information."""
    return set(task.reward_basis) or {"DB", "COMMUNICATE"}


def _says(rules: ScoringRules, info: str, texts: Sequence[str]) -> bool:
    """Whether the agent's texts say a required information."""
    if rules is ScoringRules.INSPECT:
        return info in "\n".join(texts)
    if rules is ScoringRules.EXACT:  # a full stop between digits is part of a number; any other ends a word or sentence
        whole = re.compile(rf"(?<!\w)(?<!\d\.){re.escape(info.replace(',', ''))}(?!\w|\.\d)")
        return any(whole.search(text) for text in texts)
    return any(info in text for text in texts)


def _all_made(task: Task, done: Replay) -> bool:
    """Whether some call stands for each reference action; as in tau2-bench, one call may stand for several."""
    return all(any(_stands_for(step, action) for step in done.steps) for action in task.reference)


def _stands_for(step: ReplayStep, action: ReferenceAction) -> bool:
    given = step.arguments if isinstance(step.arguments, dict) else {"": step.arguments}
    # Where a task does not name what is compared, tau2-bench compares the arguments that the call has.
    names = given.keys() if action.compared is None else action.compared
    wanted, made = ({name: each[name] for name in names if name in each} for each in (action.arguments, given))
    return step.action.call == action.name and wanted == made
