"""The summary sentences are true, whatever the data are; numbers are written the same everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixed_results import USER

from tautools.records import CommitRow, ConversationLocation, Event, ModelConfig, Outcome, Setting, Strategy
from tautools.report.cells import ReportCell
from tautools.report.formatting import Summary, count, percent, plural, share, significant
from tautools.report.pass_k import PassReport
from tautools.report.scores import CellScore, NullBaseline, score_cell
from tautools.run import SettingFolder


def _score(
    model: str, passed: list[bool], *, pending: int = 0, faults: int = 0, baseline: float | None = 0.1
) -> CellScore:
    setting = Setting(
        source="s",
        source_version="1",
        protocol="p",
        reward_basis="r",
        env="airline",
        strategy=Strategy.FC,
        agent=ModelConfig(model=model),
        user=USER,
    )
    rows = tuple(
        CommitRow(
            setting_id=setting.id,
            env="airline",
            task_id=str(number),
            trial=0,
            outcome=Outcome.PASSED if value else Outcome.FAILED,
            reward=float(value),
            started_at=0.0,
            finished_at=1.0,
            location=ConversationLocation(file="a.jsonl", offset=0, length=1, sha256=""),
            writer="a",
        )
        for number, value in enumerate(passed)
    )
    tasks = tuple(str(number) for number in range(len(passed) + pending))
    lost = tuple(Event(kind="fault", at=0.0, task_id=tasks[-1], trial=0) for _ in range(faults))
    results = SettingFolder(Path("results/airline/fc/x"), setting.id, setting, {})
    cell = ReportCell(results, 1, tasks, rows, lost, "sweep s")
    return score_cell(cell, label=model, nested_in=None, baseline=NullBaseline(baseline, len(tasks)))


def _summary(scores: list[CellScore], workspace: str = "w") -> Summary:
    return PassReport(Path(workspace), "", simulated=False, scores=tuple(scores)).summary


def test_one_setting_is_not_called_the_highest_of_several() -> None:
    summary = _summary([_score("A", [True] * 12 + [False] * 12)])
    assert summary.first == (
        "A has a pass^1 of 0.500 (95 % interval 0.292 to 0.708; 24 tasks, 24 scored conversations); "
        "doing nothing scores 0.100 on these tasks."
    )
    assert summary.second == (
        "24 of 24 planned conversations are finished, 100.0 %, and nothing is pending; "
        "no conversation was lost to the infrastructure."
    )


def test_the_best_of_several_is_named_and_a_tie_is_called_a_tie() -> None:
    worse, better = _score("A", [True, False]), _score("B", [True, True])
    assert _summary([worse, better]).first.startswith("Of 2 settings, B has the highest pass^1, 1.000 (")
    tied = _summary([worse, _score("C", [False, True])]).first
    assert tied.startswith("Of 2 settings, A shares the highest pass^1 with 1 other, 0.500 (")


def test_the_summary_counts_what_is_pending_and_what_was_lost() -> None:
    summary = _summary([_score("A", [True], pending=1, faults=1)])
    assert summary.second == (
        "1 of 2 planned conversations is finished, 50.0 %, and 1 is still pending; "
        "1 attempt was lost to the infrastructure, none of them scored as a failure."
    )


def test_a_null_baseline_that_is_not_known_is_not_given() -> None:
    assert _summary([_score("A", [True], baseline=None)]).first.endswith("; what doing nothing scores is not known.")


def test_no_scored_conversation_and_no_results_at_all_are_two_different_things() -> None:
    assert _summary([_score("A", [], pending=2)]).first == (
        "None of 1 setting has a scored conversation yet, so there is no score (n = 0)."
    )
    nothing = _summary([], "here")
    assert nothing.first == "There are no results under here/results."
    assert nothing.second.startswith("Next: ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.00123456, "0.00123"),
        (0.5, "0.500"),
        (1.234, "1.23"),
        (123.4, "123"),
        (98765.0, "98765"),
    ],
)
def test_measured_quantities_have_three_significant_digits(value: float | None, text: str) -> None:
    assert significant(value) == text


def test_a_share_that_is_not_quite_all_is_not_written_as_all() -> None:
    assert [percent(value) for value in (1.0, 0.9999, 0.5, 0.0001, 0.0, None)] == [
        "100.0 %",
        "> 99.9 %",
        "50.0 %",
        "< 0.1 %",
        "0.0 %",
        "–",
    ]
    assert (share(None), share(0.5), count(12345), plural(1, "task"), plural(0, "task")) == (
        "–",
        "0.500",
        "12,345",
        "1 task",
        "0 tasks",
    )
