"""A small ledger with every kind of row and gap, and its figures worked out on paper."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from made_conversations import made_conversation, made_setting

from tautools.records import Event, Outcome
from tautools.report import pass_report
from tautools.run.folder import claim_folder
from tautools.run.ledger import ResultsWriter

PASSED, FAILED, LIMIT, CUSTOMER, LOST = "passed", "failed", "step_limit", "user_error", ""
FATES = {
    "0": [PASSED, PASSED, PASSED],
    "1": [PASSED, FAILED, PASSED],
    "2": [PASSED, LOST, PASSED],
    "3": [LOST, LOST, LOST],
    "4": [CUSTOMER, PASSED, LIMIT],
}
"""Task to what became of its three trials; LOST ones are pending."""


def _workspace(tmp_path: Path) -> Path:
    setting = made_setting()
    writer = ResultsWriter(claim_folder(tmp_path / "results", setting, {}).path)
    for task, fates in FATES.items():
        for trial, fate in enumerate(fates):
            if fate == LOST:
                writer.event(Event(kind="fault", at=1.0, setting_id=setting.id, task_id=task, trial=trial))
                continue
            outcome = Outcome(fate)
            reward = float(fate == PASSED) if outcome.scored else None
            writer.commit(made_conversation(setting, task, trial, outcome=outcome, reward=reward), {})
    writer.close()
    return tmp_path


def test_both_conventions_give_the_figures_worked_out_by_hand(tmp_path: Path) -> None:
    (score,) = pass_report(workspace=_workspace(tmp_path)).scores
    # Ours: tasks 0, 1, 2, 4 with 3, 3, 2, 2 scored trials, of which 3, 2, 2, 1 passed; task 3 has none.
    ours = [(1 + Fraction(2, 3) + 1 + Fraction(1, 2)) / 4, (1 + Fraction(1, 3) + 1 + 0) / 4]
    assert [found.value for found in score.pass_hat] == pytest.approx([float(value) for value in ours])
    # At least one of two: only a task with two failures in two could miss, and there is none.
    assert [found.value for found in score.pass_at] == pytest.approx([float(ours[0]), 1.0])
    # v1: five tasks of three trials each, of which 3, 2, 2, 0, 1 passed.
    v1 = [Fraction(8, 15), (1 + Fraction(1, 3) + Fraction(1, 3)) / 5, Fraction(1, 5)]
    assert score.v1 == pytest.approx([float(value) for value in v1])
    assert (score.cell.planned, score.cell.pending, score.scored, score.infra_faults) == (15, 4, 10, 4)


def test_a_lost_conversation_that_passed_when_it_was_repeated_is_a_pass_in_both(tmp_path: Path) -> None:
    workspace = _workspace(tmp_path)
    (folder,) = (workspace / "results").glob("*/*/*")
    writer = ResultsWriter(folder)
    for trial in range(3):
        writer.commit(made_conversation(made_setting(), "3", trial), {})
    writer.commit(made_conversation(made_setting(), "2", 1), {})
    writer.close()
    (score,) = pass_report(workspace=workspace).scores
    assert score.cell.pending == 0
    assert score.v1[0] == pytest.approx((3 + 2 + 3 + 3 + 1) / 15)
    assert score.pass_hat[0].value == pytest.approx((1 + 2 / 3 + 1 + 1 + 1 / 2) / 5)
