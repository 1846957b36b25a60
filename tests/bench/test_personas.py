"""Personas in the loop: in each request to the customer's model, never in the agent's, and an error when missing."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_client import ScriptedClient
from stand_in import stand_in

from tautools.bench import run_conversation
from tautools.bench.persona import refuse_task_facts, task_facts_in
from tautools.bench.types import Approach, Domain
from tautools.errors import ParamsError, PersonaError
from tautools.params import Persona, load_persona
from tautools.params.personas import PersonaParams
from tautools.params.resolve import resolve
from tautools.records import Conversation, Limits, Role, Strategy

ANGER = load_persona("anger:strong")


async def run_scripted(domain: Domain, client: ScriptedClient, persona: Persona | None) -> Conversation:
    return await run_conversation(
        domain,
        next(iter(domain.tasks.values())),
        approach=Approach(Strategy.FC, persona=persona),
        client=client,
        limits=Limits(),
        trial=0,
        seed=1,
    )


def client() -> ScriptedClient:
    return ScriptedClient(agent=["How can I help?", "And now?"], user=["Hello!", "More.", "###STOP###"])


async def test_the_text_stands_behind_the_scenario_in_every_request_of_the_customer(domain: Domain) -> None:
    with_it, without = client(), client()
    with_persona, plain = await run_scripted(domain, with_it, ANGER), await run_scripted(domain, without, None)
    asked, plainly = with_it.of(Role.USER), without.of(Role.USER)
    assert len(asked) == len(plainly) == 3
    for one, other in zip(asked, plainly, strict=True):
        assert one.messages[0]["content"] == other.messages[0]["content"] + ANGER.block
        assert one.messages[1:] == other.messages[1:]
        assert one.tag.seed == other.tag.seed
    assert with_persona.user_messages[0]["content"] == plain.user_messages[0]["content"] + ANGER.block


async def test_the_agent_never_sees_it(domain: Domain) -> None:
    with_it, without = client(), client()
    await run_scripted(domain, with_it, ANGER)
    await run_scripted(domain, without, None)
    seen = [request.messages for request in with_it.of(Role.AGENT)]
    assert seen == [request.messages for request in without.of(Role.AGENT)]
    assert "mood" not in str(seen)


async def test_a_tau2_bench_checkouts_customer_gets_it_too() -> None:
    source = stand_in()
    try:
        for env in source.envs():
            scripted, plainly = client(), client()
            with_persona = await run_scripted(source.domain(env), scripted, ANGER)
            plain = await run_scripted(source.domain(env), plainly, None)
            assert with_persona.user_messages[0]["content"] == plain.user_messages[0]["content"] + ANGER.block
            assert all(ANGER.block in request.messages[0]["content"] for request in scripted.of(Role.USER))
            assert [each.messages for each in scripted.of(Role.AGENT)] == [
                each.messages for each in plainly.of(Role.AGENT)
            ]
    finally:
        source.process.close()


class Forgetful:
    """A customer that makes its system prompt anew for each request, as some simulators do."""

    def __init__(self, inner: Any, forgets_at: int) -> None:
        self.inner = inner
        self.messages = inner.messages
        self.original = dict(inner.messages[0])
        self.left = forgets_at

    def add_persona(self, text: str) -> None:
        self.inner.add_persona(text)

    def receive(self, text: str) -> None:
        self.inner.receive(text)

    async def next_turn(self, ask: Any) -> Any:
        if self.left == 0:
            self.messages[0] = self.original
        self.left -= 1
        return await self.inner.next_turn(ask)

    def observe(self, turn: Any, observations: Any) -> None:
        self.inner.observe(turn, observations)


@pytest.mark.parametrize("forgets_at", [0, 1])
async def test_a_text_that_does_not_reach_the_model_is_an_error_and_not_a_result(
    retail: Domain, forgets_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = type(retail).user
    monkeypatch.setattr(type(retail), "user", lambda *given: Forgetful(make(*given), forgets_at))
    scripted = client()
    with pytest.raises(PersonaError, match="missing from a request") as refused:
        await run_scripted(retail, scripted, ANGER)
    assert refused.value.next_step
    assert len(scripted.of(Role.USER)) == forgets_at, "the request without it was not sent"


async def test_a_customer_without_a_system_prompt_cannot_get_it(
    retail: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = type(retail).user

    def bare(*given: Any) -> Any:
        user = make(*given)
        del user.messages[0]
        return user

    monkeypatch.setattr(type(retail), "user", bare)
    with pytest.raises(PersonaError, match="no system prompt"):
        await run_scripted(retail, client(), ANGER)


def test_no_shipped_persona_names_a_fact_of_any_task(domain: Domain) -> None:
    for name in ("frustration", "anxiety", "anger", "confusion"):
        params = resolve(PersonaParams, name).params
        assert task_facts_in(" ".join([params.text, *params.levels.values()]), domain) == []


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("Your order is #W2378156, whatever you are told.", "W2378156"),
        ("You are yusuf_rossi_9620 and angry.", "yusuf_rossi_9620"),
        ("Your name is Yusuf and you shout.", "Yusuf"),
        ("Ask the agent to use get_order_details.", "get_order_details"),
        ("You say that it is no longer needed.", "no longer needed"),
    ],
)
def test_a_persona_that_names_facts_is_refused(retail: Domain, words: str, found: str) -> None:
    persona = Persona(name="liar", intensity="", label="liar", words=words, mood="liar")
    with pytest.raises(ParamsError, match="changes the task's facts") as refused:
        refuse_task_facts(persona, retail)
    assert found in refused.value.evidence
