"""Result files of tau-bench v1, done again: by a package of its shape everywhere, by recorded ones where they are."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from command_line import called

from tautools.bench import open_source
from tautools.bench.fidelity.scripts import make_cases
from tautools.bench.fidelity.traces import Original
from tautools.bench.types import Approach, Source
from tautools.errors import BenchError
from tautools.records import Strategy
from tautools.run.replays import ReplayStatus, replay_file

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = ROOT / "tests" / "support" / "stand_in_tau_bench"
DATA = ROOT.parent / "shared" / "data" / "tau_bench_v1"
CHECKOUT = os.environ.get("TAUTOOLS_TAU_BENCH_PATH", "")

needs_checkout = pytest.mark.skipif(not CHECKOUT, reason="TAUTOOLS_TAU_BENCH_PATH names no checkout of tau-bench")


def played(strategy: Strategy, env: str = "retail") -> list[dict[str, Any]]:
    """Return rows as v1 writes them, of what the stand-in's own agents did."""
    domain = open_source("tau-bench", path=str(STAND_IN)).domain(env)
    approach = Approach(strategy)
    cases = make_cases(domain, approach, ["solve", "mixed"])
    traces = Original(STAND_IN).play((env, "test"), approach, cases)
    return [
        {
            "task_id": case.index,
            "reward": trace.reward,
            "info": {
                "task": domain.tasks[case.task_id].source_task.model_dump(),
                "reward_info": None if trace.end else {"reward": trace.reward},
            },
            "traj": [json.loads(message) for message in trace.messages],
            "trial": ["solve", "mixed"].index(case.name.partition("/")[2]),
        }
        for case, trace in zip(cases, traces, strict=True)
    ]


@pytest.fixture
def source() -> Source:
    return open_source("tau-bench", path=str(STAND_IN))


def written(folder: Path, rows: Any, name: str = "rows.json") -> Path:
    path = folder / name
    text = json.dumps(rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


@pytest.mark.parametrize("strategy", [Strategy.FC, Strategy.ACT, Strategy.REACT])
@pytest.mark.parametrize("env", ["retail", "airline"])
def test_recorded_actions_give_the_recorded_rewards(
    tmp_path: Path, source: Source, strategy: Strategy, env: str
) -> None:
    rows = played(strategy, env)
    found = replay_file(written(tmp_path, rows, "rows.json.gz"), source)
    assert [each.recorded for each in found] == [row["reward"] for row in rows]
    assert {each.status for each in found} <= {ReplayStatus.SAME, ReplayStatus.STEP_LIMIT}
    assert sum(each.observations for each in found) > len(rows)
    assert sum(each.other_observations for each in found) == 0
    assert {each.env for each in found} == {f"{env}/test"}


def test_another_reward_another_answer_and_another_task_are_seen(tmp_path: Path, source: Source) -> None:
    rows = played(Strategy.FC)[:1] * 5
    rows = json.loads(json.dumps(rows))
    rows[0]["reward"] = 0.0
    next(message for message in rows[1]["traj"] if message["role"] == "tool")["content"] = "something else"
    rows[2]["info"]["task"] |= {"instruction": "Another one.", "user_id": "somebody"}
    rows[3]["info"] = {"error": "Connection error.", "traceback": "..."}
    rows[3] |= {"traj": [], "reward": 0.0}
    rows[4]["info"]["reward_info"] = None
    found = replay_file(written(tmp_path, rows), source)
    assert [each.status for each in found] == [
        ReplayStatus.DIFFERENT, ReplayStatus.SAME, ReplayStatus.UNKNOWN_TASK, ReplayStatus.ERROR_ROW,
        ReplayStatus.DIFFERENT,
    ]  # fmt: skip
    assert [each.explained for each in found] == [False, True, False, True, False]
    assert found[1].other_observations == 1
    assert "something else" in found[1].detail
    assert found[3].detail == "Connection error."


def test_a_task_that_has_changed_is_scored_by_the_reference_it_was_recorded_with(
    tmp_path: Path, source: Source
) -> None:
    row = played(Strategy.FC)[0]
    row["info"]["task"]["actions"] = []
    row["reward"] = 0.0
    (found,) = replay_file(written(tmp_path, [row]), source)
    assert found.status is ReplayStatus.SAME_BY_ITS_OWN_REFERENCE


@pytest.mark.parametrize("rows", [{}, [], [1], [{"task_id": 1}], "no JSON"])
def test_a_foreign_file_is_refused(tmp_path: Path, source: Source, rows: Any) -> None:
    path = written(tmp_path, rows) if rows != "no JSON" else tmp_path / "rows.json"
    path.write_text("no JSON") if rows == "no JSON" else None
    with pytest.raises(BenchError, match=r"is not a result file of tau-bench v1"):
        replay_file(path, source)


def test_the_command_tells_what_became_of_each_file(tmp_path: Path) -> None:
    rows = played(Strategy.ACT)
    good = written(tmp_path, rows)
    told = called("fidelity", "--path", str(STAND_IN), "--replay", str(good))
    assert told.code == 0, told.out
    assert f"{len(rows)} rows: {len(rows)} of retail/test" in told.out
    lines = {line.split(":")[0].strip(): line.split(":", 1)[1] for line in told.out.splitlines() if "pass^k" in line}
    assert lines["pass^k recorded"] == lines["pass^k replayed"]
    rows[0]["reward"] = 1.0 - rows[0]["reward"]
    bad = written(tmp_path, rows, "bad.json")
    told = called("fidelity", "--path", str(STAND_IN), "--replay", str(good), "--replay", str(bad))
    assert told.code == 1
    assert "DIFFERENT task 0, trial 0" in told.out
    listed = json.loads(called("fidelity", "--path", str(STAND_IN), "--replay", str(bad), "--json").out)
    assert Counter(each["status"] for each in listed[str(bad)])[ReplayStatus.DIFFERENT] == 1


@needs_checkout
def test_the_published_trajectories_give_the_published_rewards() -> None:
    path = Path(CHECKOUT) / "historical_trajectories" / "gpt-4o-airline.json"
    if not path.exists():
        pytest.skip("the checkout has no historical_trajectories/gpt-4o-airline.json")
    found = replay_file(path, open_source("tau-bench", path=CHECKOUT))
    assert Counter(each.status for each in found) == {ReplayStatus.SAME: 195, ReplayStatus.STEP_LIMIT: 5}
    unscored = {(each.task_id, each.trial) for each in found if each.status is ReplayStatus.STEP_LIMIT}
    assert unscored == {("33", 0), ("2", 1), ("9", 2), ("9", 3), ("46", 3)}
    # The customers of that time had a "province" where today's have a "state".
    assert {each.detail.count('"province"') for each in found if each.other_observations} == {1}
    told = called("fidelity", "--path", CHECKOUT, "--replay", str(path)).out
    assert "pass^k replayed: 1: 0.4200  2: 0.2733  3: 0.2200  4: 0.2000" in told


@needs_checkout
@pytest.mark.skipif(not DATA.is_dir(), reason="the data samples are not beside the repository")
@pytest.mark.parametrize("path", sorted(DATA.glob("*.json.gz")), ids=lambda path: path.stem)
def test_recorded_files_give_the_recorded_rewards(path: Path) -> None:
    found = replay_file(path, open_source("tau-bench", path=CHECKOUT))
    assert {each.status for each in found} <= {ReplayStatus.SAME, ReplayStatus.STEP_LIMIT}
    assert sum(each.other_observations for each in found) == 0
    assert len(found) >= 50
