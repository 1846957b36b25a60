"""The simulated customer shows the persona that its system prompt asks for, and no reward depends on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from v1_original import ROOTS, STAND_IN

from tautools.bench import conversation_seed, open_source, run_conversation
from tautools.bench.types import Approach, Domain
from tautools.llm import ModelClient
from tautools.llm.types import Endpoint
from tautools.params import Persona, load_persona
from tautools.params.models import SimulateParams
from tautools.records import Conversation, Limits, ModelConfig, Outcome, Role, Strategy, UserStrategy
from tautools.run.personas.measures import count_persona_words, customer_messages
from tautools.simulate import SimulatedServer
from tautools.simulate.customer import persona_label, with_persona

MOODS = ("frustration", "anxiety", "anger", "confusion")
V1_USERS = [each for each in UserStrategy if each is not UserStrategy.HUMAN]


@asynccontextmanager
async def simulated() -> AsyncIterator[ModelClient]:
    parties = {role: ModelConfig(model="m") for role in (Role.AGENT, Role.USER)}
    async with SimulatedServer(SimulateParams(skill=1, speed=0), model="m") as server:
        endpoint = Endpoint(server.base_url, "m", simulated=True)
        async with ModelClient(lambda _: [endpoint], parties) as client:
            yield client


async def talks(
    domain: Domain, client: ModelClient, persona: Persona | None, *, strategy: Strategy, user: UserStrategy, limit: int
) -> list[Conversation]:
    approach = Approach(strategy, user, persona=persona)
    return await asyncio.gather(
        *(
            run_conversation(
                domain,
                domain.tasks[name],
                approach=approach,
                client=client,
                limits=Limits(),
                trial=0,
                seed=conversation_seed(0, name, 0),
            )
            for name in list(domain.tasks)[:limit]
        )
    )


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("user", V1_USERS)
@pytest.mark.parametrize("mood", MOODS)
@pytest.mark.parametrize("env", ["retail", "airline"])
async def test_every_kind_of_v1s_customer_shows_it(root: Path, env: str, mood: str, user: UserStrategy) -> None:
    domain = open_source("tau-bench", path=str(root)).domain(env)
    persona = load_persona(f"{mood}:strong")
    async with simulated() as client:
        worn = await talks(domain, client, persona, strategy=Strategy.FC, user=user, limit=3)
        plain = await talks(domain, client, None, strategy=Strategy.FC, user=user, limit=3)
    for one, other in zip(worn, plain, strict=True):
        assert one.user_messages[0]["content"] == other.user_messages[0]["content"] + persona.block
        assert one.outcome is Outcome.PASSED
        assert one.messages[0] == other.messages[0], "the agent is not told"
        assert _moodiness(one, mood) > _moodiness(other, mood)


@pytest.mark.parametrize("strategy", [Strategy.FC, Strategy.ACT, Strategy.REACT, Strategy.FEW_SHOT])
async def test_under_every_strategy_of_v1(strategy: Strategy) -> None:
    domain = open_source("tau-bench", path=str(STAND_IN)).domain("retail")
    async with simulated() as client:
        shown = await talks(domain, client, load_persona("anger"), strategy=strategy, user=UserStrategy.LLM, limit=2)
    assert {talk.outcome for talk in shown} == {Outcome.PASSED}


def test_what_it_has_to_say_stays_word_for_word_and_a_stop_word_last() -> None:
    for mood in MOODS:
        for level in ("mild", "moderate", "strong"):
            system = {"role": "system", "content": f"Be a customer.{load_persona(f'{mood}:{level}').block}"}
            said = with_persona([system], "My order is #W123. ###STOP###")
            assert "My order is #W123." in said
            assert said.endswith(" ###STOP###")
            assert with_persona([system], "###TRANSFER###") == "###TRANSFER###"


def test_stronger_moods_show_more_and_an_unknown_one_does_not_show() -> None:
    def words(mood: str, level: str) -> int:
        system = {"role": "system", "content": f"x{load_persona(f'{mood}:{level}').block}"}
        turns: list[dict[str, str]] = [{"role": "assistant", "content": "a"}]
        return sum(count_persona_words(with_persona([system, *turns * turn], "Yes."), mood) for turn in range(6))

    for mood in MOODS:
        counts = [words(mood, level) for level in ("mild", "moderate", "strong")]
        assert 0 < counts[0] < counts[1] < counts[2]
    mine = Persona(name="bored", intensity="", label="bored", words="You are bored.", mood="bored")
    assert with_persona([{"role": "system", "content": f"x{mine.block}"}], "Yes.") == "Yes."


def test_a_simulated_judge_answers_that_question_only() -> None:
    assert persona_label([{"role": "user", "content": "Is the sky blue?"}]) is None


def _moodiness(talk: Conversation, mood: str) -> int:
    return sum(count_persona_words(text, mood) for text in customer_messages(talk))
