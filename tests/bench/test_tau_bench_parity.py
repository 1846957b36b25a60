"""v1: for the same scripted answers, our loop sends what tau-bench's own agents and users send, and scores the same."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from scripted_client import ScriptedClient
from v1_original import ROOTS, STAND_IN, Line, Original, Solved, plain

from tautools.bench import open_source, run_conversation
from tautools.bench.sources.tau_bench_participants import few_shot_displays
from tautools.bench.types import Approach, Domain, Task
from tautools.records import Limits, Outcome, Strategy, UserStrategy

MODELS = [each for each in UserStrategy if each is not UserStrategy.HUMAN]


def theirs(original: Original, domain: Any, task: Task, approach: Approach, lines: tuple[Any, Any]) -> Solved:
    """Let the original play; its displays are drawn as ours are."""

    def agent(env: Any) -> Any:
        if approach.strategy is Strategy.FC:
            return original.caller(env)
        if approach.strategy is Strategy.FEW_SHOT:
            module = original.package.module("tau_bench.agents.few_shot_agent")
            module.random = random.Random(7)
            return original.shown(env, few_shot_displays(domain.checkout, domain.ref.env, approach))
        return original.writer(env, thinks=approach.strategy is Strategy.REACT)

    return original.solve((domain.ref.env, domain.ref.split, int(task.id)), agent, approach.user_strategy.value, lines)


async def ours(domain: Domain, task: Task, approach: Approach, lines: tuple[Any, Any]) -> tuple[list[Any], Any]:
    client = ScriptedClient(*lines)
    played = await run_conversation(
        domain, task, approach=approach, client=client, limits=Limits(max_errors=99), trial=0, seed=7
    )
    sent = [
        {
            "role": request.tag.role.value,
            "messages": list(map(plain, request.messages)),
            "tools": request.tools,
        }
        for request in client.requests
    ]
    return sent, played


def script(domain: Domain, task: Task, approach: Approach, chance: random.Random) -> tuple[list[Line], list[Line]]:
    """Return lines of both sides: right and wrong actions, words, unreadable ones, drafts and verdicts."""
    acts = [(action.name, json.dumps(dict(action.arguments))) for action in task.reference]
    names = [tool["function"]["name"] for tool in domain.tools]
    wrong = [(chance.choice(names), json.dumps({"order_id": "#T100", "data": 2})), ("no_tool", "{}")]
    words = ["It is 1,200, sir.", "Good day.", *task.communicate]
    steps: list[Any] = [*acts, *chance.sample(wrong, chance.randint(0, 2)), *chance.sample(words, chance.randint(1, 2))]
    if chance.random() < 0.5:
        chance.shuffle(steps)
    agent = [_written(step, approach.strategy, chance) for step in steps]
    user = [line for _ in range(chance.randint(2, 6)) for line in _turn(approach.user_strategy, chance)]
    return [*agent, "Anything else?"], [*user, "true ###STOP###"]


def _turn(strategy: UserStrategy, chance: random.Random) -> list[str]:
    """Return what a customer's model says in one turn; one in eight is not what its strategy wants."""
    words = chance.choice(["Hello, it is about my order.", "Thought: hm\n\nUser Response:\nPlease do.", "Yes. é"])
    better = ["FALSE.", "Reflection:\nLong.\n\nResponse:\nDo it.", "I say: do it.", chance.choice(["true", "False"])]
    said = {
        UserStrategy.REACT: [chance.choice(["Thought: a\n\nUser Response:\nPlease.", "User Response: yes"])],
        UserStrategy.VERIFY: [words, "false", *([words, "false"] * chance.randint(0, 3)), words, "It is true."],
        UserStrategy.REFLECTION: [words, *chance.choice([["true"], better])],
    }.get(strategy, [words])
    return [words] if chance.random() < 1 / 8 else said


def _written(step: Any, strategy: Strategy, chance: random.Random) -> Line:
    if strategy in {Strategy.FC, Strategy.FEW_SHOT}:
        return step if isinstance(step, str) else [step, *([("calculate", "{}")] if chance.random() < 0.3 else [])]
    if isinstance(step, str):
        respond = f"Action:\n{json.dumps({'name': 'respond', 'arguments': {'content': step}})}"
        return chance.choice([step, respond, f"Thought:\nhm\nAction:\nrespond({step})", f"Action: a\nAction: {step}"])
    name, arguments = step
    return f"Thought:\nI go.\nAction:\n{json.dumps({'name': name, 'arguments': json.loads(arguments)})}"


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("env", ["retail", "airline"])
@pytest.mark.parametrize("strategy", [Strategy.FC, Strategy.ACT, Strategy.REACT, Strategy.FEW_SHOT])
@pytest.mark.parametrize("user_strategy", MODELS)
async def test_requests_and_rewards_are_those_of_the_original(
    root: Path, env: str, strategy: Strategy, user_strategy: UserStrategy
) -> None:
    domain = open_source("tau-bench", path=str(root)).domain(env)
    approach = Approach(strategy, user_strategy)
    ended: list[float | None] = []
    for seed in range(12 if root == STAND_IN else 5):
        chance = random.Random(seed)
        task = domain.tasks[str(chance.randrange(len(domain.tasks)))]
        lines = script(domain, task, approach, chance)
        # A new one each time: what the original's reference does changes the arguments of its own tasks.
        expected = theirs(Original(root), domain, task, approach, lines)
        sent, played = await ours(domain, task, approach, lines)
        _compare(sent[: len(expected.requests)] if expected.error else sent, expected.requests)
        if expected.reward is not None:
            assert played.reward == expected.reward, (played.reward_info, played.error)
            assert (played.outcome is Outcome.STEP_LIMIT) <= (expected.reward == 0)
        ended.append(expected.reward)
    assert sum(each is not None for each in ended) >= (2 if root == STAND_IN else 1)


def _compare(sent: Sequence[Any], expected: Sequence[Any]) -> None:
    for place, (mine, other) in enumerate(zip(sent, expected, strict=False)):
        assert mine == other, place
    assert len(sent) == len(expected)
