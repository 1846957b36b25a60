"""The metrics under vLLM's names count what happened."""

from __future__ import annotations

import asyncio
import re

import aiohttp

from tautools.params.models import SimulateParams
from tautools.simulate import SimulatedServer
from tautools.simulate.metrics import PrometheusHistogram

HELLO = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def value(text: str, name: str, *labels: str) -> float:
    lines = [
        line for line in text.splitlines() if line.startswith(f"{name}{{") and all(item in line for item in labels)
    ]
    assert len(lines) == 1, f"{name} {labels}: {lines}"
    return float(lines[0].rsplit(" ", 1)[1])


async def test_requests_tokens_and_times_are_counted() -> None:
    async with SimulatedServer(SimulateParams(speed=100), model="m") as server, aiohttp.ClientSession() as session:
        url = f"{server.base_url}/chat/completions"
        usages = []
        for body in (HELLO, {**HELLO, "stream": True, "stream_options": {"include_usage": True}}):
            async with session.post(url, json=body) as answer:
                text = await answer.text()
            usages.append([int(number) for number in re.findall(r'"(?:prompt|completion)_tokens": ?(\d+)', text)])
        async with session.post(url, json={**HELLO, "max_tokens": 2}) as answer:
            await answer.read()
        async with session.post(url, json={**HELLO, "model": "nope"}) as answer:
            await answer.read()
        async with session.get(server.base_url.removesuffix("/v1") + "/metrics") as answer:
            metrics = await answer.text()
    assert metrics.startswith("# SIMULATED")
    assert value(metrics, "tautools_simulated") == 1
    assert usages[0] == usages[1]
    prompt, made = usages[0]
    assert value(metrics, "vllm:prompt_tokens_total") == 3 * prompt
    assert value(metrics, "vllm:prefix_cache_queries_total") == 3 * prompt
    assert value(metrics, "vllm:generation_tokens_total") == 2 * made + 2
    assert value(metrics, "vllm:num_requests_running") == 0
    assert value(metrics, "vllm:num_requests_waiting") == 0
    assert value(metrics, "vllm:kv_cache_usage_perc") == 0
    assert value(metrics, "vllm:request_success_total", 'finished_reason="stop"') == 2
    assert value(metrics, "vllm:request_success_total", 'finished_reason="length"') == 1
    assert value(metrics, "vllm:time_to_first_token_seconds_count") == 3
    assert value(metrics, "vllm:inter_token_latency_seconds_count") == 2 * (made - 1) + 1
    assert value(metrics, "vllm:e2e_request_latency_seconds_count") == 3
    assert value(metrics, "vllm:e2e_request_latency_seconds_bucket", 'le="+Inf"') == 3


async def test_a_running_request_shows_and_one_whose_client_left_is_an_abort() -> None:
    slow = SimulateParams(ttft_ms=1, itl_ms=60_000, jitter=0)
    async with SimulatedServer(slow, model="m") as server, aiohttp.ClientSession() as session:
        metrics_url = server.base_url.removesuffix("/v1") + "/metrics"
        answer = await session.post(f"{server.base_url}/chat/completions", json={**HELLO, "stream": True})
        await answer.content.readline()
        async with session.get(metrics_url) as during:
            text = await during.text()
        assert value(text, "vllm:num_requests_running") == 1
        assert value(text, "vllm:kv_cache_usage_perc") > 0
        answer.close()
        for _ in range(500):
            if server.metrics.running == 0:
                break
            await asyncio.sleep(0.01)
        async with session.get(metrics_url) as after:
            text = await after.text()
    assert value(text, "vllm:num_requests_running") == 0
    assert value(text, "vllm:request_success_total", 'finished_reason="abort"') == 1


def test_a_histogram_counts_a_value_at_a_bound_into_that_bucket() -> None:
    histogram = PrometheusHistogram([1, 2])
    for seen in (0.5, 1, 1.5, 9):
        histogram.observe(seen)
    lines = dict(line.rsplit(" ", 1) for line in histogram.lines("h", 'a="b"'))
    assert lines['h_bucket{a="b",le="1.0"}'] == "2"
    assert lines['h_bucket{a="b",le="2.0"}'] == "3"
    assert lines['h_bucket{a="b",le="+Inf"}'] == "4"
    assert lines['h_sum{a="b"}'] == "12.0"
    assert lines['h_count{a="b"}'] == "4"
