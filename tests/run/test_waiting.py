"""What is said while one call takes long: to who listens, in the log, to other processes, on the bar."""

from __future__ import annotations

import itertools
import threading

import pytest
from scripted_server import Say
from served_cells import STOP, cell_at, scripted_cell

from tautools.cli.output import cell_progress
from tautools.records import Event
from tautools.run import prepare_cell, read_events, run_cell, waiting
from tautools.run.waiting import read_waiting


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(waiting, "LONG_S", 0.2)
    monkeypatch.setattr(waiting, "LOOK_S", 0.05)


@pytest.mark.parametrize(("slow", "came"), [({"first_s": 60}, "no token yet"), ({"gap_s": 0.1}, "chunks so far")])
def test_a_call_that_takes_long_is_told_while_it_lasts(tmp_path, caplog, slow, came):
    told, notes, stop = [], [], threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "waiting":
            told.append(event)
            notes.append(read_waiting(cell.folder))
            if came in event.message and notes[-1] and not stop.is_set():
                stop.set()
                stopping.request()
                stopping.request()

    from tautools.run import Stop

    stopping = Stop()
    with scripted_cell(Say(f"word {STOP}" * 100, **slow), limit=1) as (server, run):
        cell = prepare_cell(run, workspace=tmp_path).with_servers()
        with caplog.at_level("INFO", logger="tautools.run"):
            result = run_cell(cell, on_event=listen, stop=stopping)
    last = told[-1]
    assert f"user, task 0 trial 0, {server.base_url}: " in last.message
    assert came in last.message
    assert (last.task_id, last.trial, last.data["role"], last.data["calls"]) == ("0", 0, "user", 1)
    assert last.data["seconds"] >= 0.2
    assert sum("WAITING for user, task 0" in line for line in caplog.messages) == 1, "not at each look"
    assert notes[-1].startswith("user, task 0 trial 0")
    assert read_waiting(result.folder) == "", "the note goes with the run"
    assert [event.kind for event in read_events(result.folder, "waiting")] == []


def test_the_note_of_a_run_that_was_killed_is_not_believed(tmp_path):
    note = tmp_path / "running" / "gone.waiting"
    note.parent.mkdir()
    for text in ('{"waiting": "user", "at": 1}', "{", "[]", '{"waiting": "user"}', '{"waiting": "user", "at": null}'):
        note.write_text(text)
        assert read_waiting(tmp_path) == ""


def test_the_bar_says_what_is_waited_for_on_a_line_of_its_own_and_clears_it(tmp_path, monkeypatch, capsys):
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    cell = prepare_cell(cell_at("http://127.0.0.1:9/v1", limit=2), workspace=tmp_path)
    with cell_progress(cell) as show:
        show(Event(kind="waiting", at=0.0, message="agent, task 0 trial 0, http://x/v1: 12 s, [no] token yet"))
    words = "waiting for agent, task 0 trial 0, http://x/v1: 12 s, [no] token yet"
    lines = itertools.pairwise(capsys.readouterr().err.splitlines())
    assert any("0/2" in bar and words in note for bar, note in lines)
    with cell_progress(cell) as show:
        show(Event(kind="waiting", at=0.0, message="agent"))
        show(Event(kind="waiting", at=1.0, message=""))
    assert "waiting" not in capsys.readouterr().err.rpartition("\r")[2]
