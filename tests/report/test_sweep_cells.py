"""Reports on a sweep: its file says what was planned."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixed_results import Plan, write_fixed_results

from tautools.bench import null_baseline, open_source
from tautools.errors import ParamsError
from tautools.params import load_sweep
from tautools.report import find_cells, latency_report, pass_report
from tautools.run import prepare_cell
from tautools.sweep import expand

SWEEP = """\
name: small
grid:
  env: [airline]
  strategy: [fc]
  agent: [{model: Qwen/Qwen3-8B}, {model: Qwen/Qwen3-4B}]
  num_trials: [1, 2]
user: {model: Qwen/Qwen3-32B}
tasks: {limit: 4}
"""


def _workspace(tmp_path: Path, *, simulated: bool = False, tasks: int = 3) -> Path:
    """The small sweep with results of its first model, for some of the tasks it plans."""
    (tmp_path / "params" / "sweeps").mkdir(parents=True)
    (tmp_path / "params" / "sweeps" / "small.yaml").write_text(SWEEP)
    first = expand(load_sweep("small", workspace=tmp_path))[0]
    setting = prepare_cell(first.run, workspace=tmp_path).setting
    made = setting.model_copy(update={"simulated": simulated})
    plan = Plan("airline", setting.strategy, setting.agent.model, tasks, (2,), 0.5, given=made)
    return write_fixed_results(tmp_path, (plan,))


def test_a_sweeps_report_has_all_its_cells_and_counts_what_is_pending(tmp_path: Path) -> None:
    report = pass_report(workspace=_workspace(tmp_path), sweep="small")
    assert [(s.cell.model, s.cell.num_trials, s.cell.planned, len(s.cell.rows)) for s in report.scores] == [
        ("Qwen3-8B", 1, 4, 3),
        ("Qwen3-8B", 2, 8, 6),
        ("Qwen3-4B", 1, 4, 0),
        ("Qwen3-4B", 2, 8, 0),
    ]
    assert [s.nested_in for s in report.scores] == [2, None, 2, None]
    assert "6 of 16 planned conversations are finished (4 cells, nested ones counted once), 37.5 %" in repr(
        report.summary
    )
    assert "sweep small" in repr(report.sources)


def test_the_null_baseline_is_that_of_the_tasks_the_score_rests_on(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, tasks=3)
    rewards = null_baseline(open_source().domain("airline"))
    begun, not_begun = pass_report(workspace=workspace, sweep="small").scores[1:3]
    assert begun.null_baseline.value == pytest.approx(sum(rewards[task] for task in ("0", "1", "2")) / 3)
    assert not_begun.null_baseline.value == pytest.approx(sum(rewards[task] for task in ("0", "1", "2", "3")) / 4)
    assert begun.null_baseline.value != not_begun.null_baseline.value


def test_a_cell_without_results_has_no_score_rather_than_zero(tmp_path: Path) -> None:
    empty = pass_report(workspace=_workspace(tmp_path), sweep="small").scores[2]
    assert (empty.pass_hat, empty.pass_at, empty.v1, empty.spread) == ((), (), (), None)


def test_conversations_that_the_sweep_does_not_plan_stay_out(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path, tasks=6)
    assert {row.task_id for cell in find_cells(workspace, "small") for row in cell.rows} == {"0", "1", "2", "3"}
    calls = latency_report(workspace=workspace, sweep="small").calls
    assert set(calls["task_id"]) == {"0", "1", "2", "3"}
    assert set(latency_report(workspace=workspace).calls["task_id"]) == {"0", "1", "2", "3", "4", "5"}


def test_results_are_found_although_the_servers_that_knew_they_were_simulated_are_gone(tmp_path: Path) -> None:
    report = pass_report(workspace=_workspace(tmp_path, simulated=True), sweep="small")
    assert len(report.scores[1].cell.rows) == 6
    assert report.scores[1].cell.simulated


def test_an_unknown_sweep_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="smal"):
        find_cells(tmp_path, "smal")
