"""Shapes that were not warmed up: counted from a Gaudi server's log, and buckets that would hold them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from command_line import called

from tautools.records import ServerRecord
from tautools.servers import Registry
from tautools.servers.vllm.log import proposed_buckets, read_cold_shapes

if TYPE_CHECKING:
    from pathlib import Path

LOG = [
    "WARNING 11-21 02:00:00 [hpu_model_runner.py:3643] Configuration: ('prompt', 1, 1152, 9) was not warmed-up!",
    "WARNING 11-21 02:00:01 [hpu_model_runner.py:3643] Configuration: ('prompt', 1, 1152, 9) was not warmed-up!",
    "WARNING 11-21 02:00:02 [hpu_model_runner.py:3643] Configuration: ('prompt', 1, 300, 0) was not warmed-up!",
    "WARNING 11-21 02:00:03 [hpu_model_runner.py:3643] Configuration: ('decode', 12, 1, 700) was not warmed-up!",
    "INFO 11-21 02:00:04 Application startup complete.",
]
WANTED = {
    "VLLM_DECODE_BLOCK_BUCKET_MAX": "1024",
    "VLLM_DECODE_BS_BUCKET_MAX": "16",
    "VLLM_PROMPT_BS_BUCKET_MAX": "1",
    "VLLM_PROMPT_CTX_BUCKET_MAX": "16",
    "VLLM_PROMPT_QUERY_BUCKET_MAX": "2048",
}


def test_shapes_are_counted_and_buckets_reach_as_far() -> None:
    cold = read_cold_shapes(LOG)

    assert cold.total() == 4
    assert cold["PROMPT", 1, 1152, 9] == 2
    assert proposed_buckets(cold) == WANTED


def test_a_log_without_any_says_nothing() -> None:
    assert read_cold_shapes(["all is well"]).total() == 0
    assert proposed_buckets(read_cold_shapes([])) == {}


def test_the_command_shows_them(tmp_path: Path) -> None:
    log = tmp_path / "s.err"
    log.write_text("\n".join(LOG) + "\n")
    registry = Registry(tmp_path)
    registry.add(ServerRecord(name="s", model="m", base_url="http://127.0.0.1:9/v1", log_err=str(log)))
    registry.add(ServerRecord(name="calm", model="m", base_url="http://127.0.0.1:9/v1"))
    place = ("--workspace", str(tmp_path))

    shown = called("server", "diagnose", "s", *place)
    data = json.loads(called("server", "diagnose", "s", "--json", *place).out)["cold_shapes"]

    assert "4 requests met 3 shapes that were not warmed up" in shown.out
    assert 'VLLM_PROMPT_QUERY_BUCKET_MAX: "2048"' in shown.out
    assert (data["count"], data["proposed"]) == (4, WANTED)
    assert "requests met" not in called("server", "diagnose", "calm", *place).out
    assert called("server", "diagnose", "nobody", *place).code == 2
