"""`/metrics` is read by today's names, else by older ones, and counters become rates over two samples."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tautools.servers.metrics import Sample, parse_metrics, server_load

_TODAY = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 3.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 1.0
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="Qwen/Qwen3-8B"} 0.75
vllm:prefix_cache_queries_total{engine="0"} 1000.0
vllm:prefix_cache_queries_created{engine="0"} 1.7635e+09
vllm:prefix_cache_hits_total{engine="0"} 400.0
vllm:prompt_tokens_total{engine="0"} 1000.0
vllm:generation_tokens_total{engine="0"} 50.0
vllm:request_success_total{engine="0",finished_reason="stop"} 4.0
vllm:request_success_total{engine="0",finished_reason="length"} 1.0
vllm:num_preemptions_total{engine="0"} 7.0
vllm:time_to_first_token_seconds_bucket{le="0.001"} 0.0
"""

_OLD = """vllm:num_requests_running{model_name="m"} 1.0
vllm:num_requests_waiting{model_name="m"} 0.0
vllm:gpu_cache_usage_perc{model_name="m"} 0.5
vllm:gpu_prefix_cache_hit_rate{model_name="m"} 0.125
vllm:avg_prompt_throughput_toks_per_s{model_name="m"} 80.0
vllm:avg_generation_throughput_toks_per_s{model_name="m"} 20.0
"""


def test_todays_names_are_added_up_over_engines_and_the_fullest_cache_is_reported() -> None:
    shown = server_load(parse_metrics(_TODAY, at=1.0))

    assert (shown.running, shown.waiting, shown.kv_usage) == (4, 2, 0.75)
    assert shown.prefix_hit_rate == pytest.approx(0.4)
    assert shown.preempted == 7
    assert shown.output_tokens_s is None  # one sample of a server at work says nothing of its speed
    assert parse_metrics(_TODAY, at=1.0).finished == 5


def test_names_of_old_versions_are_the_fall_back() -> None:
    shown = server_load(parse_metrics(_OLD, at=1.0))

    assert (shown.kv_usage, shown.prefix_hit_rate) == (0.5, 0.125)
    assert (shown.prompt_tokens_s, shown.output_tokens_s) == (80.0, 20.0)


def test_two_samples_make_rates_and_the_hit_rate_is_that_between_them() -> None:
    former = parse_metrics(_TODAY, at=10.0)
    later = _TODAY.replace('generation_tokens_total{engine="0"} 50', 'generation_tokens_total{engine="0"} 250')
    later = later.replace('queries_total{engine="0"} 1000', 'queries_total{engine="0"} 1100')
    later = later.replace('hits_total{engine="0"} 400', 'hits_total{engine="0"} 490')

    shown = server_load(parse_metrics(later, at=12.0), former)

    assert shown.output_tokens_s == pytest.approx(100.0)
    assert shown.prompt_tokens_s == 0.0
    assert shown.prefix_hit_rate == pytest.approx(0.9)


def test_a_counter_that_went_backwards_has_no_rate() -> None:
    former, now = Sample(1.0, output_tokens=100.0), Sample(2.0, output_tokens=5.0)

    assert server_load(now, former).output_tokens_s is None


def test_a_page_of_something_else_says_nothing() -> None:
    assert not parse_metrics("<html>vllm: no</html>\nup 1\n", at=0.0).is_vllm


@given(st.text())
def test_no_text_makes_the_reader_fail_and_shares_stay_shares(text: str) -> None:
    shown = server_load(parse_metrics(text, at=0.0), Sample(-1.0, prefix_queries=0.0, prefix_hits=0.0))

    assert shown.prefix_hit_rate is None or 0 <= shown.prefix_hit_rate <= 1


@given(st.sampled_from(["NaN", "+Inf", "-Inf", "1e999", "x", "", "0x1"]))
def test_a_value_that_is_no_finite_number_is_left_out(value: str) -> None:
    assert parse_metrics(f"vllm:num_requests_running {value}\n", at=0.0).running is None
