"""A sweep whose benchmark is not here is still counted, as far as that goes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner
from small_sweep import small_sweep
from v1_original import STAND_IN

from tautools.cli import cli
from tautools.params import load_sweep
from tautools.sweep import outline_sweep


def test_the_120_cells_are_counted_although_their_benchmark_cannot_be_loaded(tmp_path: Path) -> None:
    outline = outline_sweep(load_sweep("sol-gaudi-120", workspace=tmp_path), workspace=tmp_path)
    assert outline is not None
    assert (len(outline.cells), len(outline.pools)) == (120, 24)
    assert (outline.trials, outline.trials_unshared) == ({"airline": 12 * 5, "retail": 12 * 5}, 24 * 15)
    assert {need.name for need in outline.servers} == {"qwen3-4b", "qwen3-8b", "qwen3-14b", "qwen3-32b"}
    assert "tau-bench is not here" in str(outline)
    assert "--set path=FOLDER" in str(outline)


def test_trials_that_are_not_shared_cost_the_same_either_way(tmp_path: Path) -> None:
    sweep = load_sweep("sol-gaudi-120", workspace=tmp_path, overrides=["share_trials=false"])
    outline = outline_sweep(sweep, workspace=tmp_path)
    assert outline is not None
    assert sum(outline.trials.values()) == outline.trials_unshared == 24 * 15


def test_the_plan_of_the_120_cells_says_what_it_cannot_know(tmp_path: Path) -> None:
    words = ["sweep", "plan", "sol-gaudi-120", "--workspace", str(tmp_path)]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 0, told.output
    assert "120 cells in 24 settings" in told.output
    assert "Not known: tasks, what is done, time" in told.output
    row = json.loads(CliRunner().invoke(cli, [*words, "--json"]).output)
    assert (len(row["cells"]), row["conversations"]) == (120, None)
    assert row["cells"][119]["name"] == "119_retail_fc_32B_5"
    assert list(tmp_path.iterdir()) == []


def test_running_them_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["sweep", "run", "sol-gaudi-120", "--workspace", str(tmp_path)])
    assert told.exit_code == 2
    assert "tau-bench is not here." in told.output
    assert "TAUTOOLS_TAU_BENCH_PATH" in told.output
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_whose_benchmark_can_be_loaded_needs_no_outline(tmp_path: Path) -> None:
    assert outline_sweep(small_sweep(tmp_path), workspace=tmp_path) is None


def test_a_path_that_leads_to_no_checkout_is_refused(tmp_path: Path) -> None:
    words = ["sweep", "plan", "sol-gaudi-120", "--workspace", str(tmp_path), "--set", f"path={tmp_path}"]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 2
    assert f"{tmp_path} is not a checkout of tau-bench" in told.output


def test_the_plan_of_the_120_cells_counts_conversations_where_the_checkout_is_here(tmp_path: Path) -> None:
    words = ["sweep", "plan", "sol-gaudi-120", "--workspace", str(tmp_path), "--set", f"path={STAND_IN}", "--json"]
    row = json.loads(CliRunner().invoke(cli, words).output)
    assert len(row["cells"]) == 120
    assert (row["conversations"], row["shared"]) == (12 * 5 * (3 + 6), 12 * 10 * (3 + 6))
