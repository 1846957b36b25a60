"""Which seed a request carries, over real HTTP, and what it does to answers."""

from __future__ import annotations

import random
from typing import Any

import pytest
from repeats import repeats
from scripted_server import Request, Say, ScriptedServer

from tautools.bench import open_source, run_conversation
from tautools.bench.types import Approach
from tautools.llm import ModelClient, Retry
from tautools.llm.request import request_seed
from tautools.llm.types import CallTag, Endpoint
from tautools.records import Conversation, Limits, ModelConfig, Role, Sampling, SeedRule, Strategy

WORDS = ("yes", "no", "please", "thanks", "order", "later", "today", "where", "again", "never")
QUICK = Retry(attempts=3, first_wait_s=0.0, most_wait_s=0.0)


def sampled(request: Request) -> Say:
    """Draw an answer as a sampler does: each word from a distribution that the prompt only shifts, by the seed's noise.

    An agent says three words and the customer one more, so that neither takes the other's noise for its own.
    """
    noise = random.Random(request.body.get("seed"))
    length = len(request.body["messages"])
    weights = [8 + (length * (at + 1)) % 3 for at in range(len(WORDS))]
    return Say(" ".join(noise.choices(WORDS, weights, k=3 if request.body.get("tools") else 4)))


async def played(rule: SeedRule, **how: Any) -> tuple[list[Conversation], list[Request]]:
    """Play six conversations of twelve rounds with a model that samples, and return them with what was asked."""
    domain = open_source("tau2").domain("retail", None)
    parties = dict.fromkeys((Role.AGENT, Role.USER), ModelConfig(model="scripted"))
    limits, approach = Limits(max_rounds=12), Approach(Strategy.FC)
    async with ScriptedServer(sampled) as server:
        async with ModelClient(lambda _: [Endpoint(server.base_url, "scripted")], parties) as client:
            talks = [
                await run_conversation(
                    domain, task, approach=approach, client=client, limits=limits, trial=0, seed=7 + n,
                    seed_rule=rule, **how,
                )
                for n, task in enumerate(list(domain.tasks.values())[:6])
            ]  # fmt: skip
        return talks, list(server.requests)


async def test_by_default_no_two_requests_of_a_conversation_have_one_seed_and_no_answer_is_drawn_twice() -> None:
    talks, requests = await played(SeedRule.REQUEST)
    seeds = [request.body["seed"] for request in requests]
    assert len(set(seeds)) == len(seeds) == 6 * 24
    assert all(0 <= seed < 2**31 for seed in seeds)
    same, of = repeats(talks)
    assert of == 6 * 22
    assert same <= 0.03 * of

    again, _ = await played(SeedRule.REQUEST)
    assert [talk.messages for talk in again] == [talk.messages for talk in talks], "and it can be done again"


async def test_one_seed_for_all_turns_repeats_answers_as_in_the_original_that_sends_it() -> None:
    talks, requests = await played(SeedRule.CONVERSATION)
    assert {request.body["seed"] for request in requests} == {talk.seed for talk in talks}
    same, of = repeats(talks)
    assert same >= 0.4 * of


async def test_without_a_seed_none_is_sent() -> None:
    _, requests = await played(SeedRule.NONE)
    assert not any("seed" in request.body for request in requests)


async def test_a_conversation_that_could_not_be_used_is_drawn_anew() -> None:
    first, asked = await played(SeedRule.REQUEST)
    second, again = await played(SeedRule.REQUEST, repeat=1)
    assert {each.body["seed"] for each in asked}.isdisjoint(each.body["seed"] for each in again)
    assert [talk.seed for talk in first] == [talk.seed for talk in second], "it is the same conversation"
    same, _ = await played(SeedRule.CONVERSATION, repeat=1)
    assert [talk.seed for talk in same] == [talk.seed for talk in first]


@pytest.mark.parametrize(
    ("fault", "drawn"),
    [
        (Say(status=503, body="{}"), False),
        (Say(status=429, body="{}"), False),
        (Say(status=500, body='{"error": "the tool parser cannot read this"}'), True),
        (Say("Hello there.", cut_after=2), True),
        (Say("Hello there.", error_after=2), True),
        (Say(raw=b"HTTP/1.1 200 OK\r\n\r\nwhat is this"), True),
    ],
)
async def test_a_retry_has_another_seed_where_the_model_may_have_drawn(
    open_client: Any, fault: Say, drawn: bool
) -> None:
    answers = [fault, "Well."]
    async with ScriptedServer(answers) as server, open_client(server, retry=QUICK) as opened:
        await opened.ask(seed=5, seed_rule=SeedRule.REQUEST)
        first, second = (request.body["seed"] for request in server.requests)
    assert (first != second) is drawn
    assert [record.seed for record in opened.records] == [first, second], "what was sent is on record"

    async with ScriptedServer(answers) as server, open_client(server, retry=QUICK) as opened:
        await opened.ask(seed=5)
        assert [request.body["seed"] for request in server.requests] == [5, 5]


async def test_the_record_has_what_was_sent(open_client: Any) -> None:
    config = ModelConfig(model="scripted", sampling=Sampling(extra_body={"seed": 11}))
    async with ScriptedServer() as server, open_client(server, config=config) as opened:
        await opened.ask(seed=5, seed_rule=SeedRule.NONE)
    assert (server.requests[0].body["seed"], opened.records[0].seed) == (11, 11)


def test_a_seed_differs_by_whatever_makes_a_request_another_one_and_never_changes() -> None:
    base = {"role": Role.AGENT, "seed": 204255608, "seed_rule": SeedRule.REQUEST}
    others: list[dict[str, Any]] = [
        {}, {"step": 1}, {"role": Role.USER},
        {"role": Role.EXPERT, "expert": "a"}, {"role": Role.EXPERT, "expert": "b"},
        {"purpose": "verify"}, {"repeat": 1}, {"seed": 204255609},
    ]  # fmt: skip
    assert len({request_seed(CallTag(**{**base, **other})) for other in others}) == len(others)
    same = [request_seed(CallTag(**{**base, **other})) for other in ({}, {"turn": 3}, {"strategy": "act"})]
    assert len(set(same)) == 1
    assert request_seed(CallTag(**base)) == 826803063  # never changes: recorded runs follow from it
