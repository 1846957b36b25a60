"""Files of public repositories, where they lie beside the checkout; the counts were made with nothing of ours."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_line import called
from foreign_files import write

from tautools.report.pass_k import pass_report
from tautools.run import results_of

DATA = Path(__file__).resolve().parents[3] / "shared/data"
CHECKOUT = Path(os.environ.get("TAUTOOLS_TAU_BENCH_PATH", "/nowhere"))
PUBLISHED = CHECKOUT / "historical_trajectories/gpt-4o-airline.json"
CAST = ("--model", "Qwen/Qwen3-4B", "--user-model", "Qwen/Qwen3-32B")

samples = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data beside the checkout")
published = pytest.mark.skipif(not PUBLISHED.is_file(), reason="needs TAUTOOLS_TAU_BENCH_PATH, a tau-bench checkout")


def imported(workspace, *words):
    workspace.mkdir(exist_ok=True)
    result = called("import", *map(str, words), "--workspace", str(workspace), "--json")
    return result, json.loads(result.out) if result.out else None


def outcomes(workspace):
    (score,) = pass_report(workspace=workspace).scores
    return {outcome.value: count for outcome, count in score.outcomes.items()}, score


@samples
@pytest.mark.parametrize(
    ("name", "planned", "pending", "ends"),
    [
        ("airline_act_4B_num_trials-1", 50, 0, {"passed": 19, "failed": 21, "step_limit": 10}),
        ("airline_fc_4B_num_trials-3", 123, 57, {"passed": 15, "failed": 50, "step_limit": 1}),
    ],
)
def test_v1_files_that_are_complete_or_stopped_half_way(tmp_path, name, planned, pending, ends):
    _, found = imported(tmp_path, DATA / "tau_bench_v1" / f"{name}.json.gz", *CAST)
    (setting,) = found["settings"]
    assert (setting["planned"], setting["pending"]) == (planned, pending)
    assert outcomes(tmp_path)[0] == ends


@samples
def test_a_file_of_retail_that_is_half_airline(tmp_path):
    file = DATA / "tau_bench_v1/retail_fc_4B_num_trials-2.json.gz"
    _, found = imported(tmp_path / "both", file, *CAST, "--dry-run")
    assert {each["setting"]["env"]: each["imported"] for each in found["settings"]} == {"airline": 36, "retail": 34}
    _, found = imported(tmp_path / "one", file, *CAST, "--env", "retail")
    assert found["files"][0]["statuses"] == {"kept": 34, "of another env": 36}
    assert outcomes(tmp_path / "one")[0] == {"passed": 5, "failed": 29}


@samples
@pytest.mark.parametrize(("name", "timed"), [("airline_50x1_with_times", True), ("airline_50x1_no_times", False)])
def test_tau2_files_with_and_without_times(tmp_path, name, timed):
    result, found = imported(tmp_path, DATA / "tau2" / f"{name}.json.gz")
    assert (result.code, found["imported"], found["pending"]) == (0, 50, 0)
    ends, score = outcomes(tmp_path)
    assert ends == {"passed": 28, "failed": 22}
    assert {row.duration_s is not None for row in score.cell.rows} == {timed}


@samples
def test_a_run_without_simulations_and_a_file_of_another_harness(tmp_path):
    result, found = imported(tmp_path, DATA / "tau2/empty_run.json.gz")
    assert (result.code, found["imported"], found["settings"]) == (0, 0, [])
    result, _ = imported(tmp_path, DATA / "tau2/foreign_format.json.gz")
    assert result.code == 2
    assert "no `info.environment_info`" in result.err


@published
@pytest.mark.parametrize("damaged", [False, True])
def test_pass_hat_k_of_the_published_file(tmp_path, damaged):
    path, known = PUBLISHED, [0.42, 0.2733, 0.22, 0.20]
    if damaged:  # the same conversations twice and torn at the end give the same figures
        text = PUBLISHED.read_text()
        path = write(tmp_path / "twice.json", text + text[: len(text) // 3])
    imported(tmp_path / "w", path, "--model", "gpt-4o", "--user-model", "gpt-4o")
    ends, score = outcomes(tmp_path / "w")
    assert ends == {"passed": 84, "failed": 111, "step_limit": 5}
    assert [round(each.value, 4) for each in score.pass_hat] == known
    assert [round(value, 4) for value in score.v1] == known
    assert len(results_of(tmp_path / "w")) == 1
