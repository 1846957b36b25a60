"""The simulated customer answers from the scenario in its own system prompt."""

from __future__ import annotations

import pytest

from tautools.bench import open_source
from tautools.simulate.customer import customer_text, first_person

SCENARIO = """# User Simulation Guidelines
<scenario>
Instructions:
\tDomain: retail
\tReason for call:
\t\tYou want to return the lamp. It broke when your cat told you that it wanted light. You also want a new one.
\tKnown info:
\t\tYou are Ann Lee, and you live in zip 12345.
\tTask instructions:
\t\tYou are terse.
</scenario>
"""


def talk(*turns: str) -> list[dict[str, str]]:
    """Return the messages as the customer's model sees them; the agent's words and its own in turn."""
    roles = ["user", "assistant"] * len(turns)
    said = [{"role": role, "content": text} for role, text in zip(roles, ["Begin.", *turns], strict=False)]
    return [{"role": "system", "content": SCENARIO}, *said]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("You want to go.", "I want to go."),
        ("You are Ann and your cat is ill.", "I am Ann and my cat is ill."),
        ("The agent told you that you can.", "The agent told me that I can."),
        ("You've lost it yourself. you're sad.", "I've lost it myself. I'm sad."),
        ("You name is Bob.", "My name is Bob."),
    ],
)
def test_what_a_scenario_tells_is_said_in_the_first_person(told: str, said: str) -> None:
    assert first_person(told) == said


def test_the_customer_opens_with_the_matter_and_keeps_the_rest_for_later() -> None:
    assert customer_text(talk()) == (
        "Hi! I want to return the lamp. It broke when my cat told me that it wanted light."
    )


@pytest.mark.parametrize(
    ("agent", "answer"),
    [
        ("May I have your name and zip code?", "I am Ann Lee, and I live in zip 12345."),
        ("I can return the lamp. Do you confirm (yes/no)?", "Yes, please go ahead."),
        ("One moment.", "All right, thank you. Please go on."),
    ],
)
def test_questions_are_answered_from_what_the_scenario_knows(agent: str, answer: str) -> None:
    assert customer_text(talk("Hi!", agent)) == answer


@pytest.mark.parametrize(
    "agent",
    ["Done. Is there anything else I can help you with?", "I am sorry, I am unable to do that.", "Goodbye!"],
)
def test_the_customer_ends_the_talk_when_the_agent_has_finished_or_given_up(agent: str) -> None:
    assert customer_text(talk("Hi!", agent)).endswith("###STOP###")


def test_the_customer_notes_a_transfer() -> None:
    assert customer_text(talk("Hi!", "YOU ARE BEING TRANSFERRED TO A HUMAN AGENT.")) == "###TRANSFER###"


def test_the_customers_patience_ends() -> None:
    assert "###STOP###" in customer_text(talk(*["Hm.", "One moment."] * 40))
    assert "###STOP###" not in customer_text(talk(*["Hm.", "One moment."] * 3))


@pytest.mark.parametrize("env", ["retail", "airline"])
def test_every_scenario_of_the_benchmark_gives_a_first_message_and_an_answer_about_oneself(env: str) -> None:
    for task in open_source().domain(env).tasks.values():
        system = {"role": "system", "content": task.user_system}
        first = customer_text([system, {"role": "user", "content": "Begin."}])
        assert first.startswith("Hi! ")
        assert "you want" not in first.lower()
        asked = [{"role": "assistant", "content": first}, {"role": "user", "content": "Who are you?"}]
        answer = customer_text([system, {"role": "user", "content": "Begin."}, *asked])
        assert answer != "Yes, that would be good."
