"""v1 played by the simulated server: skill 1 solves every task its scorer lets be solved, skill 0 does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from v1_original import ROOTS

from tautools.bench import conversation_seed, null_baseline, open_source, reference_reward, run_conversation
from tautools.bench.types import Approach, Domain, Expert
from tautools.llm import ModelClient
from tautools.llm.types import Endpoint
from tautools.params.models import SimulateParams
from tautools.records import Conversation, Limits, ModelConfig, Outcome, Strategy, UserStrategy
from tautools.simulate import SimulatedServer

PLACES = [("retail", "test"), ("airline", "test"), ("retail", "dev"), ("retail", "train")]
APPROACHES = [Approach(each, experts=(Expert("quick"),) if each is Strategy.EXPERTS else ()) for each in Strategy]
USERS = [UserStrategy.REACT, UserStrategy.VERIFY, UserStrategy.REFLECTION]
AT_ONCE = 16


@asynccontextmanager
async def simulated(skill: float) -> AsyncIterator[ModelClient]:
    """A client of a simulated server that plays both roles and answers at once."""
    parties = {part: ModelConfig(model="m") for part in ("agent", "user", "expert:quick")}
    async with SimulatedServer(SimulateParams(skill=skill, speed=0), model="m") as server:
        endpoint = Endpoint(server.base_url, "m", simulated=True)
        async with ModelClient(lambda _: [endpoint], parties) as client:
            yield client


async def talk_all(domain: Domain, approach: Approach, client: ModelClient) -> list[Conversation]:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Conversation:
        async with free:
            task, seed = domain.tasks[name], conversation_seed(0, name, 0)
            return await run_conversation(
                domain, task, approach=approach, client=client, limits=Limits(), trial=0, seed=seed
            )

    return await asyncio.gather(*map(one, domain.tasks))


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("place", PLACES, ids="-".join)
@pytest.mark.parametrize("approach", APPROACHES, ids=lambda each: each.strategy.value)
async def test_skill_one_passes_every_task_and_skill_zero_what_doing_nothing_passes(
    root: Path, place: tuple[str, str], approach: Approach
) -> None:
    domain = open_source("tau-bench", path=str(root)).domain(*place)
    assert all(reference_reward(domain, task).value == 1 for task in domain.tasks.values())
    async with simulated(1) as client:
        assert {talk.outcome for talk in await talk_all(domain, approach, client)} == {Outcome.PASSED}
    async with simulated(0) as client:
        talks = await talk_all(domain, approach, client)
    assert {talk.task_id: talk.reward for talk in talks} == null_baseline(domain)
    assert {talk.outcome for talk in talks} <= {Outcome.PASSED, Outcome.FAILED}


@pytest.mark.parametrize("root", ROOTS)
@pytest.mark.parametrize("env", ["retail", "airline"])
@pytest.mark.parametrize("user_strategy", USERS)
async def test_skill_one_passes_with_every_kind_of_customer(root: Path, env: str, user_strategy: UserStrategy) -> None:
    domain = open_source("tau-bench", path=str(root)).domain(env)
    async with simulated(1) as client:
        talks = await talk_all(domain, Approach(Strategy.FC, user_strategy), client)
    assert {talk.outcome for talk in talks} == {Outcome.PASSED}
    assert len(talks) == len(domain.tasks)
