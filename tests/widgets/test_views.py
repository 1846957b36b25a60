"""What the panels show is a pure function of a snapshot: everything escaped, every state a word."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tautools.records import CallRecord, Check, Role
from tautools.run.answers import FlaggedAnswers
from tautools.servers import State
from tautools.sweep.status import CellStatus
from tauwidgets.panel import Notice
from tauwidgets.server_panel import ServerRow, ServerSnapshot, render_servers
from tauwidgets.sweep_board import BoardSnapshot, render_board

HOSTILE = "<script>alert('x')</script>&\""


def _cell(index: int, state: str, *, num_trials: int = 1, cause: str = "", faults: int = 0) -> CellStatus:
    return CellStatus(index, "retail", "fc", "4B", num_trials, state, 1, 2, faults, cause)


def _board(*cells: CellStatus, **changes: object) -> BoardSnapshot:
    values: dict[str, object] = {
        "sweep": "s",
        "cells": cells,
        "runner": "",
        "log": (),
        "notice": Notice(),
        "as_of": 0.0,
    }
    return BoardSnapshot(**(values | changes))  # type: ignore[arg-type]


def _servers(*rows: ServerRow, **changes: object) -> ServerSnapshot:
    values: dict[str, object] = {
        "rows": rows, "chosen": "a", "checks": (), "log": (), "log_path": "", "notice": Notice(), "as_of": 0.0,
    }  # fmt: skip
    return ServerSnapshot(**(values | changes))  # type: ignore[arg-type]


def _row(state: str, *, name: str = "a") -> ServerRow:
    return ServerRow(name, state, "", "M", "http://127.0.0.1:1/v1", simulated=True, verified_at=None)


def test_cells_that_differ_only_in_trials_stand_in_one_row() -> None:
    page = render_board(_board(_cell(0, "done"), _cell(1, "pending", num_trials=2))).html
    assert page.count("<tr>") == 2  # the head and one row
    assert re.findall(r"data-pick='(\d+)'", page) == ["0", "1"]


def test_answers_that_look_wrong_are_told_once_for_nested_cells_and_user_errors_are_counted() -> None:
    first = CallRecord(
        role=Role.AGENT, task_id="3", step=1, endpoint="http://a/v1", flagged_text=f"<tool_call>{HOSTILE}"
    )
    flagged = (FlaggedAnswers("agent", "", "unparsed_call:hermes", 12, 40, first),)
    cell = replace(_cell(0, "done"), flagged=flagged, user_errors=2, setting_id="x")
    rendered = render_board(_board(cell, replace(cell, index=1, num_trials=2), _cell(2, "pending")))
    line = (
        "cell 0, 1: 12 of 40 answers of the agent carry an unparsed call: the server lacks --tool-call-parser hermes."
    )
    for shown in (rendered.html, rendered.text):
        assert shown.count(line) == 1
        assert "First at http://a/v1, task 3, trial 0, step 1" in shown
        assert "2 conversations ended in a user_error" in shown
    assert "<script>" not in rendered.html
    assert "<tool_call>" not in rendered.html
    assert "tau-flags" not in render_board(_board(_cell(0, "done"))).html


def test_a_call_that_takes_long_is_told_once_for_the_cells_that_wait_for_it() -> None:
    waiting = replace(_cell(0, "running"), waiting=f"user, task 0: 12 s {HOSTILE}")
    rendered = render_board(_board(waiting, replace(waiting, index=1, num_trials=2), _cell(2, "pending")))
    assert rendered.html.count("waiting for user, task 0: 12 s") == 1
    assert "<script>" not in rendered.html
    assert "waiting for user, task 0: 12 s" in rendered.text


def test_agents_of_one_model_that_are_asked_differently_keep_a_row_each() -> None:
    page = render_board(_board(_cell(0, "done"), _cell(1, "pending"))).html
    assert re.findall(r"data-pick='(\d+)'", page) == ["0", "1"]


@pytest.mark.parametrize(
    ("state", "word"),
    [
        ("done", "done"),
        ("running", "running"),
        ("partial", "partly done"),
        ("pending", "pending"),
        ("failed", "failed"),
    ],
)
def test_a_cell_shows_its_state_in_a_word_on_the_page_and_in_a_terminal(state: str, word: str) -> None:
    rendered = render_board(_board(_cell(0, state)))
    assert word in re.sub(r"<[^>]+>", "", rendered.html)
    assert word in rendered.text


def test_an_unknown_state_is_shown_as_it_is() -> None:
    assert "? melted" in render_board(_board(_cell(0, "melted"))).html


def test_the_cause_of_a_failed_cell_is_shown_and_that_of_a_done_one_is_not() -> None:
    page = render_board(
        _board(_cell(0, "failed", cause="key refused", faults=3), _cell(1, "done", cause="yesterday"))
    ).html
    assert "key refused" in page
    assert "3 faults" in page
    assert "yesterday" not in page


def test_an_empty_sweep_says_so() -> None:
    assert "no cells" in render_board(_board()).text


def test_nothing_from_a_log_a_server_or_a_sweep_becomes_markup() -> None:
    board = render_board(
        _board(_cell(0, "failed", cause=HOSTILE), sweep=HOSTILE, log=[HOSTILE], notice=Notice(HOSTILE))
    )
    check = Check(number=1, name=HOSTILE, passed=False, detail=HOSTILE)
    servers = render_servers(
        _servers(_row(HOSTILE, name=HOSTILE), checks=[check], log=[HOSTILE], log_path=HOSTILE, notice=Notice(HOSTILE))
    )
    for page in (board.html, servers.html):
        assert "<script" not in page
        assert "&lt;script&gt;" in page


def test_a_simulated_server_is_marked_and_a_check_has_unit_and_result() -> None:
    checks = [
        Check(number=2, name="health", passed=True, took_s=0.012),
        Check(number=7, name="tools", passed=False),
        Check(number=1, name="port", passed=None),
    ]
    page = render_servers(_servers(_row("ready"), checks=checks)).html
    assert "SIMULATED" in page
    assert "took [ms]" in page
    assert ">12<" in page
    for verdict in ("✔ passed", "✖ failed", "not asked"):
        assert verdict in page


def test_every_state_that_a_server_does_not_come_back_from_is_no_state_on_its_way() -> None:
    for state in State:
        page = render_servers(_servers(_row(state.value))).html
        assert ("tau-busy" in page) is (state in {State.QUEUED, State.STARTING, State.VERIFYING, State.STOPPING}), state


def test_a_ready_server_shows_the_code_that_uses_it() -> None:
    page = render_servers(_servers(_row("ready"), workspace="my work")).html
    assert "open_server(&#x27;a&#x27;, workspace=Path(&#x27;my work&#x27;)).endpoint()" in page
    assert "open_server" not in render_servers(_servers(_row("starting"))).html
    assert "<script" not in render_servers(_servers(_row("ready", name=HOSTILE), chosen=HOSTILE)).html


def test_without_a_server_the_panel_says_what_to_do() -> None:
    assert "Launch" in render_servers(_servers()).html
