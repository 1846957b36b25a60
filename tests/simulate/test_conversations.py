"""Whole conversations of real tasks over HTTP, scored by the benchmark: what skill means."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from math import sqrt
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from tautools.bench import conversation_seed, null_baseline, open_source, reference_reward, run_conversation
from tautools.bench.sources.tau2 import STRATEGIES
from tautools.bench.types import Approach, Expert
from tautools.errors import ParamsError
from tautools.llm import ModelClient
from tautools.llm.types import Endpoint
from tautools.params.models import SimulateParams
from tautools.records import CallRecord, Conversation, Limits, ModelConfig, Outcome, Role, Strategy
from tautools.simulate import SimulatedServer, expected_pass_hat_k, pass_probability
from tautools.simulate.responder import is_solved

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from tautools.bench.types import Domain

ENVS = ("retail", "airline", "telecom")
AT_ONCE = 32
REFERENCES_THAT_FAIL: dict[str, list[str]] = {"retail": [], "airline": [], "telecom": []}
"""Tasks whose own reference actions the benchmark's scorer does not accept; docs/simulated.md says why."""


EXPERTS = (Expert("quick"), Expert("strong", "likes hard cases"))


class Table:
    """A simulated server and a client of it, for both roles."""

    def __init__(self, client: ModelClient, server: SimulatedServer, calls: list[CallRecord]) -> None:
        self.client = client
        self.server = server
        self.calls = calls

    async def talk(self, domain: Domain, task_id: str, strategy: Strategy, trial: int = 0) -> Conversation:
        return await run_conversation(
            domain,
            domain.tasks[task_id],
            approach=Approach(strategy, experts=EXPERTS if strategy is Strategy.EXPERTS else ()),
            client=self.client,
            limits=Limits(),
            trial=trial,
            seed=conversation_seed(0, task_id, trial),
        )

    async def talk_all(
        self, domain: Domain, strategy: Strategy, trials: Iterable[int] = (0,), ids: Iterable[str] | None = None
    ) -> list[Conversation]:
        free = asyncio.Semaphore(AT_ONCE)

        async def one(task_id: str, trial: int) -> Conversation:
            async with free:
                return await self.talk(domain, task_id, strategy, trial)

        planned = [(task_id, trial) for task_id in ids or domain.tasks for trial in trials]
        return await asyncio.gather(*(one(*item) for item in planned))


@asynccontextmanager
async def table(skill: float, *, names_tasks: bool = True) -> AsyncIterator[Table]:
    """Serve a simulated model at once; `names_tasks` False leaves the request field out, as to a real server."""
    calls: list[CallRecord] = []
    parties = {part: ModelConfig(model="m") for part in ("agent", "user", *(f"expert:{each.name}" for each in EXPERTS))}
    async with SimulatedServer(SimulateParams(skill=skill, speed=0), model="m", key="k") as server:
        endpoint = Endpoint(server.base_url, "m", key="k", simulated=names_tasks)
        async with ModelClient(lambda _role: [endpoint], parties, on_call=calls.append) as client:
            yield Table(client, server, calls)


@pytest.mark.parametrize("env", ENVS)
def test_the_tasks_whose_own_reference_fails_are_the_listed_ones(env: str) -> None:
    domain = open_source().domain(env)
    failing = [name for name, task in domain.tasks.items() if reference_reward(domain, task).value < 1]
    assert failing == REFERENCES_THAT_FAIL[env]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("env", ENVS)
async def test_skill_one_passes_every_task_whose_reference_passes(env: str, strategy: Strategy) -> None:
    domain = open_source().domain(env)
    async with table(1) as seated:
        talks = await seated.talk_all(domain, strategy)
    failed = [talk.task_id for talk in talks if talk.reward != 1.0]
    assert len(talks) == len(domain.tasks)
    assert failed == REFERENCES_THAT_FAIL[env]
    assert all(talk.simulated for talk in talks)
    assert all(call.simulated for call in seated.calls)


async def test_agent_and_experts_share_the_moves_of_a_conversation() -> None:
    domain = open_source().domain("retail")
    async with table(1) as seated:
        talks = await seated.talk_all(domain, Strategy.EXPERTS, ids=list(domain.tasks)[:10])
    asked = [call for call in seated.calls if call.role is Role.EXPERT]
    assert {call.expert for call in asked} == {"quick", "strong"}
    moves = [message for talk in talks for message in talk.messages if message["role"] == "assistant"]
    assert sum("expert" in message for message in moves) == len(asked)
    assert 0 < len(asked) < len(moves), "the agent moves itself too"
    assert all("call_expert" not in str(message.get("tool_calls")) for message in moves)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("env", ENVS)
async def test_skill_zero_scores_what_doing_nothing_scores_task_by_task(env: str, strategy: Strategy) -> None:
    domain = open_source().domain(env)
    async with table(0) as seated:
        talks = await seated.talk_all(domain, strategy)
    assert {talk.task_id: talk.reward for talk in talks} == null_baseline(domain)
    assert {talk.outcome for talk in talks} <= {Outcome.PASSED, Outcome.FAILED}


@pytest.mark.parametrize("env", ENVS)
async def test_without_the_request_field_a_skilled_server_answers_as_skill_zero(env: str) -> None:
    domain = open_source().domain(env)
    async with table(1, names_tasks=False) as seated:
        talks = await seated.talk_all(domain, Strategy.FC)
    assert {talk.task_id: talk.reward for talk in talks} == null_baseline(domain)
    assert all(talk.simulated for talk in talks), "the fingerprint still says so"


async def test_the_same_conversation_twice_is_the_same_word_for_word() -> None:
    domain = open_source().domain("retail")
    ids = list(domain.tasks)[:12]
    runs = []
    for _ in range(2):
        async with table(0.5) as seated:
            runs.append(await seated.talk_all(domain, Strategy.FC, trials=range(3), ids=ids))
    assert [talk.messages for talk in runs[0]] == [talk.messages for talk in runs[1]]
    assert [talk.reward for talk in runs[0]] == [talk.reward for talk in runs[1]]
    by_task = {name: {talk.reward for talk in runs[0] if talk.task_id == name} for name in ids}
    assert {0.0, 1.0} in by_task.values(), "trials of one task differ"


async def test_strategies_have_draws_of_their_own() -> None:
    domain = open_source().domain("retail")
    async with table(0.5) as seated:
        rewards = [
            [talk.reward for talk in await seated.talk_all(domain, each)] for each in (Strategy.FC, Strategy.ACT)
        ]
    assert rewards[0] != rewards[1]


async def test_measured_pass_figures_meet_their_expectation() -> None:
    skill, trials = 0.6, 6
    domain = open_source().domain("airline")
    chances = pass_probability(domain, skill)
    async with table(skill) as seated:
        talks = await seated.talk_all(domain, Strategy.FC, trials=range(trials))
    passed = {name: sum(talk.reward or 0 for talk in talks if talk.task_id == name) for name in domain.tasks}
    for name, chance in chances.items():
        assert chance < 1 or passed[name] == trials
    deviation = sqrt(sum(trials * chance * (1 - chance) for chance in chances.values()))
    assert abs(sum(passed.values()) - trials * sum(chances.values())) < 3 * deviation
    # The unbiased estimate of pass^2 per task: pairs of passed trials among all pairs.
    pairs = [count * (count - 1) / (trials * (trials - 1)) for count in passed.values()]
    assert abs(sum(pairs) / len(pairs) - expected_pass_hat_k(domain, skill, 2)) < 0.08


async def test_each_conversation_passes_if_and_only_if_its_draw_says_so() -> None:
    domain = open_source().domain("retail")
    baseline = null_baseline(domain)
    async with table(0.6) as seated:
        talks = await seated.talk_all(domain, Strategy.REACT)
    for talk in talks:
        conversation = f"tau2/retail/{domain.ref.split}/{talk.task_id}/{talk.trial}/react/{talk.seed}"
        assert talk.reward == (1.0 if is_solved(0.6, 0, conversation) else baseline[talk.task_id])


async def test_metrics_agree_with_the_calls_that_were_made() -> None:
    domain = open_source().domain("airline")
    async with table(1) as seated:
        await seated.talk_all(domain, Strategy.FC, ids=list(domain.tasks)[:5])
        metrics = seated.server.metrics
        calls = seated.calls
    assert metrics.finished["stop"] == len(calls)
    assert metrics.prompt_tokens == sum(call.prompt_tokens or 0 for call in calls)
    assert metrics.cached_tokens == sum(call.cached_tokens or 0 for call in calls)
    assert metrics.generation_tokens == sum(call.output_tokens or 0 for call in calls)
    assert metrics.cached_tokens > metrics.prompt_tokens / 2, "conversations find their own past in the cache"


def test_the_expectation_is_between_the_null_baseline_and_the_reference_and_falls_with_k() -> None:
    domain = open_source().domain("retail")
    baseline = sum(null_baseline(domain).values()) / len(domain.tasks)
    assert expected_pass_hat_k(domain, 0, 3) == pytest.approx(baseline)
    assert expected_pass_hat_k(domain, 1, 3) == 1
    assert expected_pass_hat_k(domain, 0.6, 1) == pytest.approx(0.6 + 0.4 * baseline)
    assert expected_pass_hat_k(domain, 0.6, 3) == pytest.approx(baseline + (1 - baseline) * 0.6**3)


@pytest.mark.parametrize(("skill", "k"), [(1.5, 1), (-0.1, 1), (0.5, 0)])
def test_an_expectation_of_nonsense_is_refused(skill: float, k: int) -> None:
    with pytest.raises(ParamsError, match="Give a"):
        expected_pass_hat_k(open_source().domain("airline"), skill, k)


async def post(server: SimulatedServer, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    url = f"{server.base_url}/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"task_id": "9999"}, "there is no task '9999' in retail"),
        ({"env": "retial"}, "retial"),
        ({"split": "nope"}, "nope"),
        ({"bench": "tau9"}, "tau9"),
        ({"source": "inspect_evals"}, "no source 'inspect_evals'"),
        ({"source": "inspect-evals", "path": "/somewhere"}, "takes no path"),
    ],
)
async def test_a_field_that_names_no_task_is_refused_and_says_what_is_wrong(wrong: dict[str, str], told: str) -> None:
    right = {"bench": "tau2", "env": "retail", "split": "base", "task_id": "0", "trial": 0, "role": "agent"}
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi!"}], "tautools_task": {**right, **wrong}}
    async with SimulatedServer(model="m") as server:
        status, refusal = await post(server, body)
    assert (status, refusal["error"]["param"]) == (400, "tautools_task")
    assert told in refusal["error"]["message"]


async def test_a_field_for_a_task_is_obeyed_whoever_sends_it() -> None:
    field = {
        "bench": "tau2",
        "env": "airline",
        "task_id": "7",
        "trial": 0,
        "role": "agent",
        "strategy": "fc",
        "seed": 1,
    }
    messages = [
        {"role": "user", "content": "Hi! I want to cancel two reservations."},
        {"role": "assistant", "content": "May I have your user id?"},
        {"role": "user", "content": "daiki_muller_1116"},
    ]
    body = {"model": "m", "messages": messages, "tautools_task": field}
    async with SimulatedServer(SimulateParams(speed=0), model="m") as server:
        _, answer = await post(server, body)
    function = answer["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (function["name"], function["arguments"]) == ("get_reservation_details", '{"reservation_id": "XEHM4B"}')
