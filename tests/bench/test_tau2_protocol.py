"""tau2-bench's own protocol in our loop: who opens, what is counted, what ends a conversation. On the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from scripted_client import ScriptedClient
from stand_in import stand_in

from tautools.bench import run_conversation
from tautools.bench.sources.tau2_bench import Tau2Bench
from tautools.bench.types import Approach
from tautools.records import Conversation, Limits, Outcome, Role, Strategy

FIND = ("find_book", '{"title": "Moby Dick"}')
LEND = ("lend_book", '{"book_id": "b1", "visitor": "Ann"}')
WRONG = ("find_book", '{"title": "Ulysses"}')


@pytest.fixture(scope="module")
def source() -> Iterator[Tau2Bench]:
    """The stand-in: 20 messages, 3 errors."""
    found = stand_in()
    yield found
    found.process.close()


@pytest.fixture
def play(source: Tau2Bench) -> Any:
    """Run a conversation of a task through a scripted client."""

    async def played(client: ScriptedClient, task: str = "lend", env: str = "library", **limits: Any) -> Conversation:
        domain = source.domain(env)
        return await run_conversation(
            domain,
            domain.tasks[task],
            approach=Approach(Strategy.FC),
            client=client,
            limits=Limits(**limits),
            trial=0,
            seed=1,
        )

    return played


async def test_the_agent_opens_with_the_packages_greeting(play: Any) -> None:
    client = ScriptedClient([[FIND], [LEND], "Here you are."], ["I want Moby Dick.", "Thanks. ###STOP###"])
    played = await play(client)
    assert (played.outcome, played.reward) == (Outcome.PASSED, 1.0)
    greeting = "Welcome to the library."
    assert client.of(Role.USER)[0].messages[1:] == [{"role": "user", "content": greeting}]
    assert client.of(Role.AGENT)[0].messages[1:] == [
        {"role": "assistant", "content": greeting},
        {"role": "user", "content": "I want Moby Dick."},
    ]
    assert [request.tag.ref.source for request in client.requests] == ["tau2-bench"] * 5


async def test_every_message_is_a_step_and_the_results_of_one_answer_are_one(play: Any) -> None:
    # User, agent, user, agent, …: the tenth answer of the agent is message 20.
    talk = ScriptedClient(["And now?"], ["Go on."])
    played = await play(talk)
    assert (played.outcome, played.reward) == (Outcome.STEP_LIMIT, 0.0)
    assert len(talk.requests) == 20
    assert "20 messages" in played.error
    # User, then call and results in turn: 1 + 2 * 10 = 21 is looked at after the tenth results.
    calls = ScriptedClient([[FIND, FIND]], ["Go on."])
    assert (await play(calls)).outcome is Outcome.STEP_LIMIT
    assert len(calls.of(Role.AGENT)) == 10


async def test_a_stop_with_the_last_message_comes_too_late(play: Any) -> None:
    client = ScriptedClient(["And now?"], ["Go on."] * 2 + ["###STOP###"])
    assert (await play(client, "nothing", max_steps=5)).outcome is Outcome.STEP_LIMIT
    again = ScriptedClient(["And now?"], ["Go on."] * 2 + ["###STOP###"])
    assert (await play(again, "nothing", max_steps=6)).outcome is Outcome.PASSED


async def test_refused_calls_are_errors_and_too_many_end_it(play: Any) -> None:
    client = ScriptedClient([[WRONG], [FIND], [WRONG, ("no_such_tool", "{}")], "Sorry."])
    played = await play(client)
    assert (played.outcome, played.reward, len(client.of(Role.AGENT))) == (Outcome.AGENT_ERROR, 0.0, 3)
    assert "3 calls were refused" in played.error
    two = ScriptedClient([[WRONG], [WRONG], "Sorry."])
    assert (await play(two, "nothing")).outcome is Outcome.PASSED
    fewer = ScriptedClient([[WRONG], [WRONG], "Sorry."])
    assert (await play(fewer, "nothing", max_errors=2)).outcome is Outcome.AGENT_ERROR


async def test_calls_of_the_customer_count_too(play: Any) -> None:
    enter: Any = [("enter", '{"name": "Ann"}')]
    client = ScriptedClient(["Come in.", "Bye."], ["Hello.", enter, "I am in.", "###STOP###"])
    played = await play(client, "enter", "visit")
    assert (played.outcome, played.reward_info["assertions"][0]["met"]) == (Outcome.PASSED, True)
    assert [tool["function"]["name"] for tool in client.of(Role.USER)[1].tools or ()] == ["enter"]
    assert not any("You stand at the desk." in str(message) for message in played.messages)
    lost: Any = [("look", "{}")]
    wrong = ScriptedClient(["Come in."], ["Hello.", lost])
    assert (await play(wrong, "enter", "visit")).outcome is Outcome.AGENT_ERROR
    assert len(wrong.of(Role.USER)) == 4


async def test_the_rounds_limit_of_the_run_holds_too(play: Any) -> None:
    client = ScriptedClient(["And now?"], ["Go on."])
    assert (await play(client, max_rounds=3)).outcome is Outcome.STEP_LIMIT
    assert len(client.of(Role.AGENT)) == 3
