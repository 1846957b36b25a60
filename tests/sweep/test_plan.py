"""A plan counts shared trials once, names the servers, and changes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_sweep import server_file, small_sweep

from tautools.errors import BenchError, ParamsError, RunError
from tautools.params import load_server, load_sweep
from tautools.servers import launch
from tautools.sweep import plan_sweep, sweep_status


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*"))


def test_one_to_five_trials_cost_five_and_not_fifteen(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, grid={"num_trials": [1, 2, 3, 4, 5]})
    plan = plan_sweep(sweep, workspace=tmp_path)
    assert [cell.planned for cell in plan.cells] == [2, 4, 6, 8, 10]
    assert (plan.conversations, plan.shared, plan.pending, plan.done) == (10, 20, 10, 0)


def test_trials_that_are_not_shared_are_counted_apart(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path, grid={"num_trials": [1, 2, 3, 4, 5]}, share_trials=False)
    plan = plan_sweep(sweep, workspace=tmp_path)
    assert (plan.conversations, plan.shared) == (30, 0)


def test_the_sweep_of_120_cells_is_a_third_of_its_conversations_and_needs_a_server_for_each_model(
    tmp_path: Path,
) -> None:
    """Its tasks are v1's; on tau2 it has the same shape, with tau2's 50 airline and 114 retail tasks."""
    overrides = ["bench=tau2", "source=inspect-evals", "site=local"]
    plan = plan_sweep(load_sweep("sol-gaudi-120", workspace=tmp_path, overrides=overrides), workspace=tmp_path)
    assert len(plan.cells) == 120
    assert plan.conversations == (50 + 114) * 5 * 3 * 4
    assert plan.conversations + plan.shared == 3 * plan.conversations
    needs = {need.name: (set(need.roles), len(need.cells)) for need in plan.servers}
    agents = {name: ({"agent"}, 30) for name in ("qwen3-4b", "qwen3-8b", "qwen3-14b")}
    assert needs == agents | {"qwen3-32b": ({"agent", "user"}, 120)}


def test_a_plan_and_a_status_leave_no_trace(tmp_path: Path) -> None:
    sweep = small_sweep(tmp_path)
    before = _files(tmp_path)
    plan_sweep(sweep, workspace=tmp_path)
    sweep_status(sweep, workspace=tmp_path)
    assert _files(tmp_path) == before


def test_the_status_of_a_workspace_that_may_only_be_read_is_shown(tmp_path: Path) -> None:
    """Bound for everyone but root, whom no mode keeps from writing."""
    sweep = small_sweep(tmp_path)
    (tmp_path / "results").mkdir(mode=0o555)
    assert [cell.state for cell in sweep_status(sweep, workspace=tmp_path)] == ["pending", "pending"]
    if os.geteuid() != 0:
        with pytest.raises(RunError, match="cannot be written"):
            plan_sweep(sweep, workspace=tmp_path)


def test_a_plan_says_what_its_estimate_rests_on(tmp_path: Path) -> None:
    server_file(tmp_path, "slow", speed=1, ttft_ms=3000, itl_ms=300, prefill_ms_per_1k_tokens=0)
    plan = plan_sweep(small_sweep(tmp_path, grid={"agent": ["slow"]}), workspace=tmp_path)
    assert "none is finished yet" in plan.basis
    # 14 calls of 3 s and 19 tokens of 0.3 s: 122 s for the conversations side by side, and the notebooks' starts.
    assert 121 < plan.estimate_s < 150
    assert f"about {round(plan.estimate_s / 60)} min" in str(plan)


def test_a_server_that_runs_already_is_expected_to_be_as_fast_as_it_was_started(tmp_path: Path) -> None:
    server_file(tmp_path, "slow", speed=1, ttft_ms=1000, itl_ms=100, prefill_ms_per_1k_tokens=0)
    sweep = small_sweep(tmp_path, grid={"agent": ["slow"]})
    before = plan_sweep(sweep, workspace=tmp_path)
    server = launch(load_server("slow", workspace=tmp_path), workspace=tmp_path)
    try:
        after = plan_sweep(sweep, workspace=tmp_path)
        assert after.servers[0].state is not None
        assert before.estimate_s == pytest.approx(after.estimate_s, abs=5)
    finally:
        server.stop()


def test_the_text_of_a_plan_shows_everything_that_is_decided_by(tmp_path: Path) -> None:
    text = str(plan_sweep(small_sweep(tmp_path), workspace=tmp_path))
    assert "2 cells, 0 done, 2 with work" in text
    assert "Conversations: 4, 0 done, 4 pending; trials that cells share are counted once, which saves 2" in text
    assert "quick (agent, to start), customer (user, to start)" in text


def test_a_plan_shown_in_a_notebook_escapes_names(tmp_path: Path) -> None:
    html = plan_sweep(small_sweep(tmp_path), workspace=tmp_path)._repr_html_()
    assert "<td>airline</td>" in html
    assert html.count("<tr>") == 3


def test_a_part_of_a_sweep_is_planned_alone(tmp_path: Path) -> None:
    plan = plan_sweep(small_sweep(tmp_path), workspace=tmp_path, only=[0])
    assert (len(plan.cells), plan.conversations, plan.shared) == (1, 2, 0)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"grid": {"env": ["airlin"]}}, BenchError, "airline"),
        ({"grid": {"agent": ["quik"]}}, ParamsError, "quick"),
        ({"tasks": {"ids": ["no-such-task"]}}, BenchError, "no-such-task"),
    ],
)
def test_what_does_not_exist_ends_a_plan_with_the_nearest_name(
    tmp_path: Path, changes: dict[str, object], error: type[Exception], words: str
) -> None:
    sweep = small_sweep(tmp_path, **changes)
    before = _files(tmp_path)
    with pytest.raises(error, match=words):
        plan_sweep(sweep, workspace=tmp_path)
    assert _files(tmp_path) == before


def test_a_new_sweep_has_every_cell_pending(tmp_path: Path) -> None:
    status = sweep_status(small_sweep(tmp_path), workspace=tmp_path)
    assert [(cell.state, cell.done, cell.planned) for cell in status] == [("pending", 0, 2), ("pending", 0, 4)]
    assert str(status).startswith("0 of 2 cells done, 2 pending")
