"""The judge of natural-language assertions: what it is shown, what is taken from it, and when it is asked at all."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from scripted_client import ScriptedClient

from tautools.bench import ask_judge, judge_texts, needs_judge, run_conversation, with_verdicts
from tautools.bench.judge import REPAIRS
from tautools.bench.types import Approach, Domain, Task
from tautools.errors import CallFault, ModelCallError
from tautools.records import Conversation, Limits, Outcome, Role, Strategy


@pytest.fixture
def task(retail: Domain) -> Task:
    return dataclasses.replace(retail.tasks["0"], assertions=("The order was shown.", "The agent was\npolite."))


async def run_scripted(domain: Domain, task: Task) -> Conversation:
    client = ScriptedClient([[("get_order_details", '{"order_id": "#W2378156"}')], "Here it is."])
    return await run_conversation(
        domain, task, approach=Approach(Strategy.FC), client=client, limits=Limits(), trial=3, seed=9, setting_id="abc"
    )


def says(*met: object) -> str:
    return json.dumps({"verdicts": [{"number": at, "met": each, "reason": "so"} for at, each in enumerate(met, 1)]})


async def verdicts(domain: Domain, task: Task, *answers: str) -> tuple[list[bool], ScriptedClient]:
    client = ScriptedClient([], judge=list(answers))
    found = await ask_judge(domain, task, await run_scripted(domain, task), client)
    assert [each.assertion for each in found] == list(task.assertions)
    return [each.met for each in found], client


async def test_the_judge_sees_the_conversation_and_the_numbered_statements(retail: Domain, task: Task) -> None:
    _, client = await verdicts(retail, task, says(True, True))
    (request,) = client.of(Role.JUDGE)
    system, asked = request.messages
    assert system["role"] == "system"
    assert 'Agent calls get_order_details({"order_id": "#W2378156"})' in asked["content"]
    assert "\nTool: {" in asked["content"]
    assert "\nAgent: Here it is.\nCustomer: ###STOP###" in asked["content"]
    assert asked["content"].endswith("Statements:\n1. The order was shown.\n2. The agent was polite.")
    assert retail.policy not in asked["content"]
    assert request.tools is None
    tag = request.tag
    assert (tag.part, tag.task_id, tag.trial, tag.purpose, tag.seed) == ("judge", "0", 3, "verdict", 9)


@pytest.mark.parametrize(
    "answer",
    [
        says(True, False),
        f"```json\n{says(True, False)}\n```",
        f"I have read it all.\n{says(True, False)}\nThat is all.",
        '{"verdicts": [{"number": 2, "met": false}, {"number": 1, "met": true, "reason": null}]}',
    ],
)
async def test_a_verdict_is_read_whatever_stands_around_it(retail: Domain, task: Task, answer: str) -> None:
    assert (await verdicts(retail, task, answer))[0] == [True, False]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("Both hold.", "there is no JSON object"),
        ('{"verdicts": [', "no JSON object"),
        ("{verdicts}", "it is not JSON"),
        ('{"verdict": true}', "not the form"),
        ('{"verdicts": [true, false]}', "not the form"),
        ('{"verdicts": null}', "not the form"),
        (says(True), "one verdict for each of the numbers 1, 2"),
        (says(True, True, True), "one verdict for each"),
        ('{"verdicts": [{"number": 1, "met": true}, {"number": 1, "met": true}]}', "one verdict for each"),
        (says("yes", True), "`met` must be true or false"),
        (says(1, 0), "`met` must be true or false"),
        (says(None, True), "`met` must be true or false"),
    ],
)
async def test_an_answer_that_is_no_verdict_is_asked_for_again(retail: Domain, task: Task, bad: str, told: str) -> None:
    met, client = await verdicts(retail, task, bad, says(False, True))
    assert met == [False, True]
    again = client.of(Role.JUDGE)[1]
    assert again.messages[-2] == {"role": "assistant", "content": bad}
    assert told in again.messages[-1]["content"]
    assert again.tag.purpose == "repair"


async def test_a_judge_that_never_gives_a_verdict_is_a_fault_and_no_score(retail: Domain, task: Task) -> None:
    client = ScriptedClient([], judge=["It depends."])
    with pytest.raises(ModelCallError, match="no verdict that can be read in 3 answers") as caught:
        await ask_judge(retail, task, await run_scripted(retail, task), client)
    assert caught.value.fault is CallFault.MALFORMED
    assert len(client.of(Role.JUDGE)) == 1 + REPAIRS


async def test_one_unmet_assertion_fails_what_the_benchmark_passes_and_nothing_passes_what_it_fails(
    retail: Domain, task: Task
) -> None:
    done = (await run_scripted(retail, task)).model_copy(update={"outcome": Outcome.PASSED, "reward": 1.0})

    async def judged(conversation: Conversation, *met: bool) -> tuple[Outcome, float | None, Any]:
        client = ScriptedClient([], judge=[says(*met)])
        found = with_verdicts(conversation, await ask_judge(retail, task, conversation, client))
        return found.outcome, found.reward, found.reward_info["reward_without_judge"]

    assert await judged(done, True, True) == (Outcome.PASSED, 1.0, 1.0)
    assert await judged(done, True, False) == (Outcome.FAILED, 0.0, 1.0)
    failed = done.model_copy(update={"outcome": Outcome.FAILED, "reward": 0.0})
    assert await judged(failed, True, True) == (Outcome.FAILED, 0.0, 0.0)


def test_only_what_the_benchmark_ended_and_what_asserts_something_is_judged(retail: Domain, task: Task) -> None:
    asked = [outcome for outcome in Outcome if needs_judge(task, outcome)]
    assert asked == [Outcome.PASSED, Outcome.FAILED]
    assert not needs_judge(dataclasses.replace(task, assertions=()), Outcome.PASSED)


def test_tasks_carry_the_packages_assertions_and_their_texts_are_hashed(domain: Domain) -> None:
    asserting = sum(bool(task.assertions) for task in domain.tasks.values())
    assert (asserting, len(domain.tasks)) == {"airline": (50, 50), "retail": (8, 114)}[domain.ref.env]
    assert {name.partition("-")[0] for name in judge_texts(domain)} == {"judge", "assertions"}
