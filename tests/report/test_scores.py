"""Scores against a second, plain count over the files."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest
from fixed_results import PLANS, Plan, write_fixed_results

from tautools.records import Strategy
from tautools.report import pass_report
from tautools.report.pass_k import PassReport


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fixed_results(tmp_path_factory.mktemp("fixed"))


@pytest.fixture(scope="module")
def report(workspace: Path) -> PassReport:
    return pass_report(workspace=workspace)


def _rows(folder: Path, num_trials: int) -> dict[str, dict[int, str]]:
    """Task to trial to outcome, read as plain JSON."""
    found: dict[str, dict[int, str]] = {}
    for path in (folder / "ledger").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if row["trial"] < num_trials:
                found.setdefault(row["task_id"], {})[row["trial"]] = row["outcome"]
    return found


def _over_choices(outcomes: list[str], k: int, *, every: bool) -> float:
    choices = list(combinations([outcome == "passed" for outcome in outcomes], k))
    return sum(all(choice) if every else any(choice) for choice in choices) / len(choices)


def test_there_is_a_cell_for_each_view_and_a_smaller_one_is_nested(report: PassReport) -> None:
    seen = [(s.cell.setting.env, s.cell.setting.strategy.value, s.cell.num_trials, s.nested_in) for s in report.scores]
    assert seen == [
        ("airline", "fc", 1, 3),
        ("airline", "fc", 3, None),
        ("airline", "react", 3, None),
        ("retail", "fc", 2, None),
    ]


def test_both_figures_of_every_cell_equal_a_plain_count_over_all_choices_of_trials(report: PassReport) -> None:
    for score in report.scores:
        rows = _rows(score.cell.folder, score.cell.num_trials)
        scored = [[outcome for outcome in task.values() if outcome != "user_error"] for task in rows.values()]
        assert len(score.pass_hat) == min(len(task) for task in scored)
        for hat, at in zip(score.pass_hat, score.pass_at, strict=True):
            every = [_over_choices(task, hat.k, every=True) for task in scored]
            some = [_over_choices(task, at.k, every=False) for task in scored]
            assert hat.value == pytest.approx(sum(every) / len(every))
            assert at.value == pytest.approx(sum(some) / len(some))
            assert hat.interval.low <= hat.value <= hat.interval.high


def test_the_first_convention_counts_faults_and_missing_trials_as_failures(report: PassReport) -> None:
    for score in report.scores:
        rows = _rows(score.cell.folder, score.cell.num_trials)
        trials = score.cell.num_trials
        for k, value in enumerate(score.v1, start=1):
            filled = [[task.get(trial, "lost") for trial in range(trials)] for task in rows.values()]
            plain = [_over_choices(task, k, every=True) for task in filled]
            assert value == pytest.approx(sum(plain) / len(plain))
        assert len(score.v1) == trials


def test_what_is_pending_is_left_out_of_ours_and_lowers_the_first_convention(report: PassReport) -> None:
    react = report.scores[2]
    assert (react.cell.planned, len(react.cell.rows), react.cell.pending, react.infra_faults) == (72, 70, 2, 2)
    assert len(react.pass_hat) == 2  # two tasks have two finished trials only
    assert react.v1[0] <= react.pass_hat[0].value


def test_a_user_error_carries_no_reward_and_is_counted_apart(report: PassReport) -> None:
    retail = report.scores[3]
    assert {outcome.value: n for outcome, n in retail.outcomes.items()}["user_error"] == 1
    assert retail.scored == 23
    assert retail.cell.pending == 0
    assert retail.v1[0] < retail.pass_hat[0].value


def test_the_null_baseline_is_the_benchmarks_own_and_of_the_same_tasks(report: PassReport) -> None:
    from tautools.bench import null_baseline, open_source

    rewards = null_baseline(open_source().domain("airline"))
    airline = report.scores[1]
    assert airline.null_baseline.value == pytest.approx(sum(rewards[task] for task in airline.cell.tasks) / 24)
    assert airline.null_baseline.value > 0


def test_a_null_baseline_that_cannot_be_computed_says_why_and_is_not_zero(tmp_path: Path) -> None:
    write_fixed_results(tmp_path, (Plan("space-travel", Strategy.FC, "M", 2, (1,), 0.5),))
    (score,) = pass_report(workspace=tmp_path).scores
    assert score.null_baseline.value is None
    assert "space-travel" in score.null_baseline.reason


def test_every_figure_in_the_json_leads_back_to_its_rows(report: PassReport) -> None:
    for cell in report.to_json()["cells"]:
        rows = [json.loads(line) for file in cell["rows"]["files"] for line in Path(file).read_text().splitlines()]
        mine = [row for row in rows if row["setting_id"] == cell["setting_id"] and row["trial"] < cell["num_trials"]]
        scored = [row for row in mine if row["outcome"] != "user_error"]
        tasks = {task: [r for r in scored if r["task_id"] == task] for task in cell["rows"]["tasks"]}
        assert len(mine) == cell["finished"]
        assert {task: len(found) for task, found in tasks.items()} == {
            task: counts["trials"] for task, counts in cell["rows"]["tasks"].items()
        }
        means = [sum(row["reward"] for row in found) / len(found) for found in tasks.values()]
        assert cell["pass_hat_k"][0]["value"] == pytest.approx(sum(means) / len(means))


def test_a_torn_line_at_the_end_of_a_ledger_changes_no_figure(tmp_path: Path) -> None:
    write_fixed_results(tmp_path, PLANS[:1])
    before = pass_report(workspace=tmp_path).to_json()["cells"]
    (ledger,) = (tmp_path / "results").rglob("ledger/*.jsonl")
    ledger.with_name("zz-other.jsonl").write_bytes(ledger.read_bytes().splitlines()[0][:-20])
    assert pass_report(workspace=tmp_path).to_json()["cells"] == before


def test_the_same_results_give_the_same_report(workspace: Path, report: PassReport) -> None:
    assert pass_report(workspace=workspace).to_json() == report.to_json()


def test_simulated_models_are_marked_in_summary_tables_and_json(tmp_path: Path) -> None:
    write_fixed_results(tmp_path, (Plan("airline", Strategy.ACT, "demo", 3, (1,), 0.5, simulated=True),))
    report = pass_report(workspace=tmp_path)
    assert repr(report.summary).startswith("SIMULATED models")
    assert all("SIMULATED" in repr(table) for table in report.tables if table.rows)
    assert report.to_json()["simulated"] is True
    assert report.pass_hat_figure.alt.endswith("SIMULATED models.")


def test_real_models_are_marked_nowhere(report: PassReport) -> None:
    assert "SIMULATED" not in repr(report.summary) + "".join(repr(table) for table in report.tables if table.rows)
    assert "SIMULATED" not in report.pass_hat_figure.alt
