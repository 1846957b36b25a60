"""Rewards equal the package's own scorers' on every task."""

from __future__ import annotations

import copy
import dataclasses
import json

import pytest
from inspect_ai.scorer import Target
from inspect_evals.tau2.common.scorer import score_communicated_info
from inspect_oracle import PackageWorld, base_hash, communicated, expected_hash, full_score, state_of

from tautools.bench import null_baseline, open_source, reference_reward
from tautools.bench.types import Domain

pytestmark = pytest.mark.usefixtures("bearable_package")


@pytest.mark.slow
async def test_the_reference_of_every_task_gets_the_packages_own_observations_and_reward(domain: Domain) -> None:
    for index, task in enumerate(domain.tasks.values()):
        ours, theirs = domain.env_state(task), PackageWorld(domain.ref.env)
        for action in task.reference:
            arguments = json.dumps(dict(action.arguments))
            assert (await ours.call(action.name, arguments)).text == (
                await theirs.call(action.name, arguments)
            ).content, f"task {task.id}, {action.name}"
        said = list(task.communicate)
        matches = theirs.hash() == expected_hash(domain.ref.env, task.id)
        reward = float(matches and await communicated(domain.ref.env, task.id, said))
        assert ours.reward(said).value == reward, f"task {task.id}"
        if index % 10 == 0:  # its parts above are what takes the time; that they make the whole is shown on some
            assert await full_score(theirs, task.id, said) == reward
        assert reference_reward(domain, task).value == ours.reward(said).value


@pytest.mark.parametrize(("env", "passing", "tasks"), [("airline", 19, 50), ("retail", 7, 114)])
async def test_the_null_baseline_is_the_packages_verdict_on_silence(env: str, passing: int, tasks: int) -> None:
    floor = null_baseline(open_source().domain(env))
    theirs = {
        name: float(expected_hash(env, name) == base_hash(env) and await communicated(env, name, [])) for name in floor
    }
    assert floor == theirs
    assert (sum(floor.values()), len(floor)) == (passing, tasks)


def test_the_package_accepts_the_reference_of_every_task(domain: Domain) -> None:
    refused = [name for name, task in domain.tasks.items() if reference_reward(domain, task).value < 1]
    assert refused == []


@pytest.mark.parametrize(
    ("said", "passes"),
    [
        (["The total is $1,093.34."], True),
        (["THE TOTAL IS 1093.34"], True),
        (["first this", "10,93.3,4"], True),
        (["109", "3.34"], False),
        (["The total is 1,093."], False),
        ([], False),
    ],
)
async def test_what_must_be_said_is_sought_without_commas_and_not_across_messages(
    said: list[str], passes: bool
) -> None:
    domain = open_source().domain("retail")
    task = next(task for task in domain.tasks.values() if task.communicate == ("1093.34",))
    assert domain.env_state(task).reward(said).info["communicate"] == passes
    assert await communicated("retail", task.id, said) == passes


async def test_the_opening_message_to_the_user_counts_as_heard_as_in_the_package() -> None:
    """The package's scorer takes every user message of the user's side for the agent's words."""
    domain = open_source().domain("retail")
    task = dataclasses.replace(domain.tasks["0"], communicate=("Begin the interaction",))
    state = copy.deepcopy(state_of("retail", "0", []))
    state.metadata["task"]["evaluation_criteria"]["communicate_info"] = ["Begin the interaction"]
    assert (await score_communicated_info()(state, Target(""))).value == "C"
    assert domain.env_state(task).reward([]).info["communicate"]


def test_a_reward_names_the_entities_that_differ() -> None:
    domain = open_source().domain("retail")
    task = next(task for task in domain.tasks.values() if any("cancel" in action.name for action in task.reference))
    info = domain.env_state(task).reward(list(task.communicate)).info
    assert info["db"] is False
    assert any(place.startswith("orders/#W") for place in info["different"])
