"""What the agent asks the customer to do is what the customer calls; it calls nothing that it was not asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tautools.bench import open_source
from tautools.bench.types import Domain, ReferenceAction
from tautools.simulate.customer import ask_customer, customer_answer, requested_call
from tautools.simulate.reply import Step
from tautools.simulate.responder import give_up_steps, solving_steps


@pytest.fixture(scope="module")
def telecom() -> Domain:
    """The telecom env."""
    return open_source().domain("telecom")


def heard(words: str, tools: Any) -> Any:
    """Return the customer's answer to words of the agent in the middle of a talk."""
    talk = [{"role": "user", "content": "Begin."}, {"role": "assistant", "content": "Hi!"}]
    return customer_answer([*talk, {"role": "user", "content": words}], tools)


def test_every_action_of_a_customer_that_a_reference_has_is_understood(telecom: Domain) -> None:
    actions = {json.dumps([a.name, a.arguments]): a for t in telecom.tasks.values() for a in t.reference}
    for action in actions.values():
        if action.requestor == "user":
            answer = heard(ask_customer(action), telecom.user_tools)
            assert (answer.tool, answer.arguments) == (action.name, dict(action.arguments))


def test_every_tool_without_arguments_is_understood(telecom: Domain) -> None:
    for tool in telecom.user_tools:
        function = tool["function"]
        if not function["parameters"]["properties"]:
            assert requested_call(
                ask_customer(ReferenceAction(function["name"], {}, "user")), telecom.user_tools
            ) == Step(tool=function["name"])


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("Please turn off airplane mode.", "toggle_airplane_mode"),
        ("Could you turn your mobile data_saver mode on? No: Turn Data Saver Mode on!", "toggle_data_saver_mode"),
        ("Please check the status bar and tell me.", "check_status_bar"),
        ("Use `reboot_device` now.", "reboot_device"),
        ("First run a speed test, then reboot the device.", "run_speed_test"),
    ],
)
def test_other_words_for_a_tool_are_understood_too(telecom: Domain, words: str, name: str) -> None:
    assert heard(words, telecom.user_tools).tool == name


@pytest.mark.parametrize("words", ["Please grant app permission.", "How are you?", "Is your bill paid?", ""])
def test_nothing_is_called_that_was_not_asked_for_or_lacks_what_it_needs(telecom: Domain, words: str) -> None:
    answer = heard(words, telecom.user_tools)
    assert answer.tool == ""
    assert answer.text


def test_a_customer_without_tools_only_talks(telecom: Domain) -> None:
    assert heard("Please turn off airplane mode.", []).tool == ""


def test_the_result_of_a_call_is_reported_and_ends_nothing() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": {"name": "toggle_data"}}]}
    for gave, told in [("Data is\nON. " + "x" * 500, "It says: Data is ON."), ("Error: no", "did not work: Error: no")]:
        answer = customer_answer([call, {"role": "tool", "content": gave}], [])
        assert told in answer.text
        assert "###" not in answer.text
        assert len(answer.text) < 300


def test_only_what_asks_for_an_action_of_the_customers_makes_it_act(telecom: Domain) -> None:
    names = {tool["function"]["name"] for tool in telecom.tools}
    for task in telecom.tasks.values():
        own = [action for action in task.reference if action.requestor == "user"]
        steps = solving_steps(task, names)
        said = [step.text for step in steps if step.text]
        assert [found.tool for words in said if (found := requested_call(words, telecom.user_tools))] == [
            action.name for action in own
        ]
        for style in range(12):
            words = [step.text for step in give_up_steps(task, names, style) if step.text]
            assert not any(requested_call(each, telecom.user_tools) for each in words)
