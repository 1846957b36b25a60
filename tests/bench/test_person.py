"""A person plays the customer of v1: what is asked, what is kept, and what becomes of a conversation left open."""

from __future__ import annotations

import threading

import pytest
from scripted_client import ScriptedClient
from v1_original import STAND_IN

from tautools.bench import open_source, run_conversation
from tautools.bench.types import Approach
from tautools.bench.users import PersonCustomer, PersonQuestion, ask_person_with
from tautools.errors import HumanUnavailableError
from tautools.records import Conversation, Limits, Outcome, Role, Strategy, UserStrategy


async def run_scripted(client: ScriptedClient) -> Conversation:
    domain = open_source("tau-bench", path=str(STAND_IN)).domain("retail")
    approach = Approach(Strategy.FC, UserStrategy.HUMAN)
    return await run_conversation(
        domain, domain.tasks["0"], approach=approach, client=client, limits=Limits(), trial=0, seed=0
    )


async def test_a_person_is_shown_its_part_and_the_agents_words_and_no_model_plays_it() -> None:
    asked: list[PersonQuestion] = []
    lines = iter(["Cancel it.", "", "  ", "yes", "###STOP###"])

    def answer(question: PersonQuestion, gone: threading.Event) -> str:
        assert not gone.is_set()
        asked.append(question)
        return next(lines)

    client = ScriptedClient(["Which?", [("cancel_pending_order", '{"order_id": "#T100"}')], "Done."])
    with ask_person_with(answer):
        done = await run_scripted(client)
    assert (done.outcome, client.of(Role.USER)) == (Outcome.PASSED, [])
    assert asked[0].instruction.startswith("Your name is Ada Moss")
    assert [each.heard for each in asked] == [None, "Which?", "Which?", "Which?", "Done."]
    assert [message["role"] for message in done.user_messages] == ["system", *["assistant", "user"] * 2, "assistant"]
    assert done.user_messages[1]["content"] == "Cancel it."


@pytest.mark.parametrize("leaves", [EOFError(), KeyboardInterrupt(), OSError("no terminal")])
async def test_a_person_who_leaves_leaves_no_conversation(leaves: BaseException) -> None:
    def answer(_question: PersonQuestion, _gone: threading.Event) -> str:
        raise leaves

    with ask_person_with(answer), pytest.raises(HumanUnavailableError, match="Nobody answers as the customer"):
        await run_scripted(ScriptedClient(["Which?"]))


def test_a_persona_is_shown_to_the_person() -> None:
    customer = PersonCustomer("0", "You want tea.", "###STOP###")
    customer.add_persona(" You are in a hurry.")
    assert customer.messages == [{"role": "system", "content": "You want tea. You are in a hurry."}]


async def test_a_conversation_that_is_given_up_tells_the_one_who_asks() -> None:
    import asyncio

    asked_once = threading.Event()
    asked = threading.Event()

    def answer(_question: PersonQuestion, gone: threading.Event) -> str:
        asked.set()
        if gone.wait(30):
            asked_once.set()
        return ""

    with ask_person_with(answer):
        running = asyncio.ensure_future(run_scripted(ScriptedClient(["Which?"])))
        await asyncio.to_thread(asked.wait, 30)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await asyncio.to_thread(asked_once.wait, 30)
