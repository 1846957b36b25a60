"""How far a start has come, from log lines of a real vLLM."""

from __future__ import annotations

import pytest

from tautools.servers.vllm.log import read_startup_stage

VLLM = [
    "(APIServer pid=1) INFO 11-21 02:00:00 [utils.py:302] vLLM API server version 0.32.0",
    "(EngineCore pid=9) INFO 11-21 02:00:01 [core.py:93] Initializing a V1 LLM engine (v0.32.0) with config: x",
    "Loading safetensors checkpoint shards:   0% Completed | 0/4 [00:00<?, ?it/s]",
    "Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:00<?, ?it/s]",
    "(EngineCore pid=9) INFO 11-21 02:00:03 [default_loader.py:308] Loading weights took 1.2 seconds",
    "(EngineCore pid=9) INFO 11-21 02:00:04 [kv_cache_utils.py:1215] GPU KV cache size: 131,072 tokens",
    "[Warmup][Prompt][1/10] batch_size:1 query_len:128 num_blocks:0 free_mem:20 GiB",
    "[Warmup][Prompt][10/10] batch_size:1 query_len:1024 num_blocks:0 free_mem:20 GiB",
    "[Warmup][Decode][5/10] batch_size:1 query_len:1 num_blocks:128 free_mem:20 GiB",
    "(APIServer pid=1) INFO 11-21 02:00:09 [api_server.py:1] Starting vLLM server on http://127.0.0.1:8007",
    "INFO:     Application startup complete.",
]


def test_the_share_never_falls_while_the_log_grows() -> None:
    shares = [read_startup_stage(VLLM[:count]).percent for count in range(len(VLLM) + 1)]

    assert shares == sorted(shares)
    assert len(set(shares)) == len(shares)


@pytest.mark.parametrize(
    ("lines", "name", "percent"),
    [
        ([], "starting the process", 1),
        (VLLM[:4], "loading weights", 31),
        (VLLM[:7], "warming up prompts", 64),
        (VLLM[:9], "warming up decoding", 85),
        (VLLM, "answering soon", 99),
    ],
)
def test_the_stage_is_named(lines: list[str], name: str, percent: int) -> None:
    stage = read_startup_stage(lines)

    assert (stage.name, stage.percent) == (name, percent)


def test_a_bar_that_is_redrawn_counts_by_its_last_state() -> None:
    line = (
        "Loading safetensors checkpoint shards:  25% Completed\rLoading safetensors checkpoint shards:  75% Completed"
    )

    assert read_startup_stage([line]).percent == 40


def test_the_order_of_the_files_does_not_matter() -> None:
    assert read_startup_stage(reversed(VLLM)) == read_startup_stage(VLLM)
