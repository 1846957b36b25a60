"""Conversations in which the customer has tools: whose calls are whose, what bounds them, what is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from inspect_oracle import samples_of
from scripted_client import ScriptedClient, action

from tautools.bench import conversation_seed, open_source, reference_reward, run_conversation
from tautools.bench.types import Approach, Domain
from tautools.records import Conversation, Limits, Outcome, Role, Strategy


@pytest.fixture(scope="module")
def telecom() -> Domain:
    """The telecom env."""
    return open_source().domain("telecom")


async def play(
    telecom: Domain, client: ScriptedClient, task_id: str = "", strategy: Strategy = Strategy.FC, **limits: Any
) -> Conversation:
    """Run one conversation with a scripted client."""
    task = telecom.tasks[task_id or next(iter(telecom.tasks))]
    seed = conversation_seed(0, task.id, 0)
    return await run_conversation(
        telecom, task, approach=Approach(strategy), client=client, limits=Limits(**limits), trial=0, seed=seed
    )


def test_the_tasks_are_the_packages_in_its_order_with_its_prompts(telecom: Domain) -> None:
    samples = samples_of("telecom")
    assert list(telecom.tasks) == list(samples)
    for name, task in telecom.tasks.items():
        assert task.user_system == samples[name].input[0].text
        actions = samples[name].metadata["task"]["evaluation_criteria"]["actions"]
        assert [(each.requestor, each.name, each.arguments) for each in task.reference] == [
            (each["requestor"], each["name"], each["arguments"]) for each in actions
        ]
    assert (len(telecom.tools), len(telecom.user_tools)) == (13, 30)
    assert {"user_tools", "user_guidelines", "policy"} <= set(telecom.prompts)


@pytest.mark.parametrize("strategy", [Strategy.FC, Strategy.ACT, Strategy.REACT])
async def test_each_side_does_its_part_of_the_reference_in_turn_under_every_strategy(
    telecom: Domain, strategy: Strategy
) -> None:
    """Where both have something to do, the agent first tells the customer each time, as it must."""
    task = next(
        task for task in telecom.tasks.values() if {each.requestor for each in task.reference} == {"assistant", "user"}
    )
    agent: list[Any] = []
    user: list[Any] = ["My phone does not work."]
    for each in task.reference:
        arguments = json.dumps(dict(each.arguments))
        if each.requestor == "assistant":
            agent.append([(each.name, arguments)] if strategy is Strategy.FC else action(each.name, **each.arguments))
        else:
            said = f"Please do this: {each.name}"
            agent.append(said if strategy is Strategy.FC else action("respond", content=said))
            user += [[(each.name, arguments)], "I did it."]
    last = "Anything else?"
    agent.append(last if strategy is Strategy.FC else action("respond", content=last))
    client = ScriptedClient(agent, [*user, "###STOP###"])
    played = await play(telecom, client, task.id, strategy)
    assert (played.outcome, played.reward) == (Outcome.PASSED, 1.0), played.reward_info
    assert [(action.by, action.call) for action in played.actions if action.call] == [
        (each.requestor, each.name) for each in task.reference
    ]
    assert all(request.tools == list(telecom.user_tools) for request in client.of(Role.USER))


async def test_the_agent_cannot_use_the_customers_tools_nor_the_customer_the_agents(telecom: Domain) -> None:
    client = ScriptedClient(
        [[("toggle_data", "{}")], "Please help yourself."],
        ["Hi.", [("refuel_data", "{}")], "I cannot.###STOP###"],
    )
    played = await play(telecom, client)
    results = [message["content"] for message in [*played.messages, *played.user_messages] if message["role"] == "tool"]
    assert results == ["Error: Tool toggle_data not found", "Error: Tool refuel_data not found"]


async def test_the_agent_does_not_see_what_the_customer_calls(telecom: Domain) -> None:
    client = ScriptedClient(
        ["Look at your phone."], ["Hi.", [("check_status_bar", "{}")], "It shows bars.", "###STOP###"]
    )
    played = await play(telecom, client)
    assert "check_status_bar" not in json.dumps(played.messages[1:])
    assert "check_status_bar" in json.dumps(played.user_messages)


async def test_a_customer_that_calls_tools_without_end_has_failed_and_not_the_agent(telecom: Domain) -> None:
    client = ScriptedClient(["Look at your phone."], ["Hi.", [("check_status_bar", "{}")]])
    played = await play(telecom, client, max_user_calls=7)
    assert (played.outcome, played.reward) == (Outcome.USER_ERROR, None)
    assert "7 times in a row" in played.error
    assert len(client.of(Role.USER)) == 1 + 7


async def test_the_bound_on_the_customers_calls_starts_anew_when_it_speaks(telecom: Domain) -> None:
    look: list[Any] = [[("check_status_bar", "{}")], [("run_speed_test", "{}")]]
    client = ScriptedClient(["Look at your phone."], ["Hi.", *[*look, "Yes."] * 4, "###STOP###"])
    assert (await play(telecom, client, max_user_calls=3)).outcome is Outcome.FAILED


async def test_a_customers_calls_are_no_step_and_no_error_of_the_agent(telecom: Domain) -> None:
    bad: list[Any] = [[("toggle_data", "{")], [("nothing", "{}")]]
    client = ScriptedClient(["Look at your phone."], ["Hi.", *bad, "No.", "###STOP###"])
    played = await play(telecom, client, max_errors=1, max_steps=2)
    assert played.outcome is Outcome.FAILED
    assert [action.error for action in played.actions if action.by == "user"] == [True, True]


def test_a_reward_tells_each_assertion_and_the_required_actions_that_nobody_made(telecom: Domain) -> None:
    for task in telecom.tasks.values():
        undone, done = telecom.env_state(task).reward([]).info, reference_reward(telecom, task).info
        assert len(undone["assertions"]) == len(task.source_task.evaluation_criteria.env_assertions)
        assert all(each["met"] for each in done["assertions"])
        assert done["missing_actions"] == []
        assert not all(each["met"] for each in undone["assertions"]) or undone["missing_actions"]


def test_what_changed_is_told_of_the_carrier_and_of_the_phone(telecom: Domain) -> None:
    task = next(
        task for task in telecom.tasks.values() if {"refuel_data", "toggle_data"} <= {a.name for a in task.reference}
    )
    before, wanted = telecom.env_state(task).changes(), telecom.expected(task)
    assert wanted is not None
    differs = {place for place in {*before, *wanted} if before.get(place) != wanted.get(place)}
    assert {("lines", "L1002"), ("bills", "B1003"), ("user", "device")} <= differs
    assert json.loads(telecom.as_loaded("lines", "L1002") or "")["data_refueling_gb"] == 0
    assert telecom.as_loaded("lines", "L9999") is None
    assert telecom.as_loaded("nothing", "") is None
