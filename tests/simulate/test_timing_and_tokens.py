"""Times and tokens: seeded, in the proportions that the parameters say."""

from __future__ import annotations

import json
import statistics
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tautools.params.models import SimulateParams
from tautools.simulate import SimulatedServer
from tautools.simulate.requests import read_request
from tautools.simulate.tokens import BLOCK_TOKENS, PrefixCache, due_times, prompt_parts, split_tokens


def gaps_ms(due: list[float]) -> list[float]:
    return [1000 * (later - former) for former, later in pairwise(due)]


def test_the_median_gap_and_the_first_token_are_as_asked() -> None:
    params = SimulateParams(ttft_ms=100, itl_ms=10, jitter=0.3)
    due = [due_times(params, tokens=200, uncached_tokens=0, seed=str(seed)) for seed in range(200)]
    assert abs(statistics.median(gaps_ms(due[0])) - 10) < 1.5
    assert abs(statistics.median(1000 * times[0] for times in due) - 100) < 10


def test_each_thousand_uncached_prompt_tokens_delay_the_first_token() -> None:
    params = SimulateParams(ttft_ms=100, prefill_ms_per_1k_tokens=20, jitter=0)
    assert due_times(params, tokens=1, uncached_tokens=0, seed="a") == [0.1]
    assert due_times(params, tokens=1, uncached_tokens=5000, seed="a") == [0.2]


def test_speed_divides_all_times_and_zero_answers_at_once() -> None:
    usual = due_times(SimulateParams(), tokens=5, uncached_tokens=100, seed="a")
    fast = due_times(SimulateParams(speed=10), tokens=5, uncached_tokens=100, seed="a")
    assert all(abs(slow - 10 * quick) < 1e-9 for slow, quick in zip(usual, fast, strict=True))
    assert due_times(SimulateParams(speed=0), tokens=5, uncached_tokens=100, seed="a") == [0.0] * 5


def test_the_same_seed_gives_the_same_times_and_another_seed_others() -> None:
    one, same, other = (due_times(SimulateParams(), tokens=9, uncached_tokens=9, seed=seed) for seed in "aab")
    assert one == same
    assert one != other


@given(st.text())
def test_pieces_join_to_the_text(text: str) -> None:
    cut = split_tokens(text)
    assert "".join(cut) == text
    assert all(3 <= len(piece) <= 5 for piece in cut[:-1])


def test_a_conversation_finds_its_own_past_in_whole_blocks() -> None:
    cache = PrefixCache(1_000_000)
    history = [{"role": "system", "content": "p" * 4000}, {"role": "user", "content": "u" * 400}]
    first, none = cache.admit(prompt_parts(history, []))
    longer = [*history, {"role": "assistant", "content": "a" * 400}]
    total, cached = cache.admit(prompt_parts(longer, []))
    assert none == 0
    assert total > first
    assert cached % BLOCK_TOKENS == 0
    assert first - BLOCK_TOKENS < cached <= first


def test_a_prompt_that_differs_at_its_start_shares_nothing() -> None:
    cache = PrefixCache(1_000_000)
    tail = [{"role": "user", "content": "u" * 4000}]
    cache.admit(prompt_parts([{"role": "system", "content": "one"}, *tail], []))
    _, cached = cache.admit(prompt_parts([{"role": "system", "content": "two"}, *tail], []))
    assert cached == 0


def test_the_oldest_prefixes_are_forgotten_when_the_cache_is_full() -> None:
    cache = PrefixCache(1000)
    prompts = [[{"role": "user", "content": str(number) * 2000}] for number in range(3)]
    for prompt in prompts:
        cache.admit(prompt_parts(prompt, []))
    assert cache.admit(prompt_parts(prompts[2], []))[1] > 0
    assert cache.admit(prompt_parts(prompts[0], []))[1] == 0


def test_a_part_is_found_only_behind_the_same_past() -> None:
    cache = PrefixCache(1_000_000)
    head, other, tail = ({"role": "user", "content": letter * 4000} for letter in "hot")
    cache.admit(prompt_parts([head, tail], []))
    cache.admit(prompt_parts([other], []))
    alone, _ = cache.admit(prompt_parts([other], []))
    _, cached = cache.admit(prompt_parts([other, tail], []))
    assert 0 < cached <= alone


async def test_a_requests_seed_is_the_noise_of_its_times() -> None:
    server = SimulatedServer(SimulateParams(), model="m")

    async def due(seed: int | None, text: str = "Say hello.") -> list[float]:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "seed": seed}
        return list((await server._answer(read_request(json.dumps(body).encode()))).due)

    first = await due(7)
    assert await due(7) == first
    assert await due(8) != first
    assert await due(7, "Say goodbye.") != first
    assert await due(None) == await due(None)
