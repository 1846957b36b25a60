"""What former starts tell of one that is under way."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from serving import fake_vllm, simulated

from tautools.records import ServerRecord
from tautools.servers import Registry, State, launch
from tautools.servers.state import record_start, remaining_start

if TYPE_CHECKING:
    from pathlib import Path


def record(began_s_ago: float, model: str = "m", **fields: object) -> ServerRecord:
    return ServerRecord(name="s", model=model, base_url="", started_at=time.time() - began_s_ago, **fields)


def test_nothing_is_reported_before_the_warm_up_of_a_first_start(tmp_path: Path) -> None:
    assert remaining_start(record(60), Registry(tmp_path), 50) == ""
    assert remaining_start(record(300), Registry(tmp_path), 75) == "about 2 min left, by what it took so far"


def test_the_median_of_the_last_like_starts_counts(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    for took in (5000, 300, 600, 600, 600, 700):
        record_start(record(took), registry)
    record_start(record(10, model="other"), registry)

    assert remaining_start(record(120), registry, 20) == "about 8 min left, by the last 5 starts"
    assert remaining_start(record(3, model="other"), registry, 20) == "about 5 s left, by the last start"
    assert remaining_start(record(3, model="new"), registry, 20) == ""
    assert remaining_start(record(9000), registry, 20) == "about 5 s left, by the last 5 starts"


def test_another_number_of_cards_is_another_start(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    record_start(record(600, spec={"vllm": {"tensor_parallel_size": 2}}), registry)

    assert remaining_start(record(1), registry, 20) == ""


@pytest.mark.parametrize("damage", ["no json\n", '{"like": 3}\n', '{"took_s": "x"}\n', "[1]\n", "torn"])
def test_a_damaged_history_is_no_history(tmp_path: Path, damage: str) -> None:
    registry = Registry(tmp_path)
    record_start(record(600), registry)
    with (tmp_path / "servers" / "cache" / "starts.jsonl").open("a") as file:
        file.write(damage)

    assert remaining_start(record(1), registry, 20).startswith("about ")


def test_a_verified_start_is_remembered_and_reported_of_the_next(tmp_path: Path) -> None:
    launch(fake_vllm(), workspace=tmp_path).wait_ready().stop()
    (row,) = [json.loads(line) for line in (tmp_path / "servers" / "cache" / "starts.jsonl").read_text().splitlines()]
    assert 0 < row["took_s"] < 120

    slow = launch(fake_vllm(modes="hangs"), workspace=tmp_path)
    try:
        seen = slow.state()
        assert seen.state is State.STARTING
        assert "left, by the last start" in seen.detail
    finally:
        slow.stop(term_s=1)
    with pytest.raises(FileNotFoundError):
        (tmp_path / "servers" / "fake.json").read_text()


def test_a_verified_again_server_is_no_start(tmp_path: Path) -> None:
    server = launch(simulated(), workspace=tmp_path).wait_ready()
    try:
        server.wait_ready()
        server.verify()
    finally:
        server.stop()

    assert len((tmp_path / "servers" / "cache" / "starts.jsonl").read_text().splitlines()) == 1
