from __future__ import annotations

import random

import pytest
from made_conversations import made_conversation, made_setting

from tautools.errors import RecordError
from tautools.records import CallRecord, Event, Outcome, Role
from tautools.run.ledger import Ledger, ResultsWriter, intact, read_calls, read_conversation, read_events, read_ledger

SETTING = made_setting()


def finish(folder, *pairs, **changes):
    writer = ResultsWriter(folder)
    rows = [writer.commit(made_conversation(SETTING, task_id, trial, **changes), {}) for task_id, trial in pairs]
    writer.close()
    return rows


def only(folder, pattern):
    (path,) = folder.glob(pattern)
    return path


def test_what_was_committed_is_read_back_with_its_messages(tmp_path, open_writer):
    conversation = made_conversation(SETTING, "3", 1)
    writer = open_writer(tmp_path)
    row = writer.commit(conversation, {"agent_calls": 4, "output_tokens": 250})
    assert read_ledger(tmp_path) == {(SETTING.id, "3", 1): row}
    assert (row.agent_calls, row.output_tokens, row.duration_s) == (4, 250, 10.0)
    assert read_conversation(tmp_path, row) == conversation


def test_a_folder_that_is_not_there_has_nothing_finished(tmp_path):
    assert read_ledger(tmp_path / "nowhere") == {}
    assert list(read_calls(tmp_path / "nowhere")) == []


def test_each_writer_has_its_own_file_and_never_reopens_one(tmp_path):
    finish(tmp_path, ("0", 0))
    finish(tmp_path, ("1", 0))
    names = {path.name for path in (tmp_path / "ledger").iterdir()}
    assert len(names) == 2
    assert {row.location.file for row in read_ledger(tmp_path).values()} == names


def test_a_ledger_cut_at_any_byte_keeps_exactly_the_rows_that_were_complete(tmp_path):
    finish(tmp_path, ("0", 0), ("1", 0), ("2", 0))
    path = only(tmp_path, "ledger/*.jsonl")
    whole = path.read_bytes()
    edges = {at + step for at, byte in enumerate(whole) if byte == ord("\n") for step in (-1, 0, 1)}
    for cut in sorted(edges | set(range(0, len(whole), 29))):
        path.write_bytes(whole[:cut])
        assert len(read_ledger(tmp_path)) == whole[:cut].count(b"\n")


def test_a_row_whose_conversation_was_cut_is_not_finished(tmp_path):
    first, second = finish(tmp_path, ("0", 0), ("1", 0))
    path = only(tmp_path, "conversations/*.jsonl")
    whole = path.read_bytes()
    for cut in random.Random(2).sample(range(len(whole)), 60):
        path.write_bytes(whole[:cut])
        finished = {key[1] for key in read_ledger(tmp_path)}
        assert finished == {row.task_id for row in (first, second) if row.location.offset + row.location.length <= cut}


def test_nul_bytes_and_foreign_lines_count_as_never_written(tmp_path):
    finish(tmp_path, ("0", 0), ("1", 0))
    path = only(tmp_path, "ledger/*.jsonl")
    first, second, _ = path.read_bytes().split(b"\n")
    foreign = b'{"hello": 1}\n[]\nnot json\n\xff\xfe\n'
    path.write_bytes(foreign + b"\0" * 100 + first + b"\n" + second + b"\n" + b"\0" * 4096)
    assert [key[1] for key in read_ledger(tmp_path)] == ["1"]


def test_a_row_that_points_out_of_its_folder_is_foreign(tmp_path):
    finish(tmp_path, ("0", 0))
    path = only(tmp_path, "ledger/*.jsonl")
    (tmp_path / "secret").write_bytes(b"x" * 100_000)
    place = only(tmp_path, "conversations/*.jsonl").name.encode()
    path.write_bytes(path.read_bytes().replace(b'"file":"' + place, b'"file":"../secret'))
    assert read_ledger(tmp_path) == {}


def test_of_duplicates_the_one_that_finished_first_counts_whatever_its_outcome(tmp_path):
    finish(tmp_path, ("0", 0), finished_at=120.0)
    finish(tmp_path, ("0", 0), finished_at=115.0, outcome=Outcome.FAILED, reward=0.0)
    finish(tmp_path, ("0", 0), finished_at=130.0)
    ledger = Ledger(tmp_path).refresh()
    (row,) = ledger.rows().values()
    assert (row.outcome, row.finished_at, ledger.repeats()) == (Outcome.FAILED, 115.0, 2)


def test_a_later_refresh_reads_only_what_was_added(tmp_path, open_writer):
    ledger = Ledger(tmp_path)
    assert ledger.refresh().rows() == {}
    finish(tmp_path, ("0", 0))
    assert [key[1] for key in ledger.refresh().rows()] == ["0"]
    writer = open_writer(tmp_path)
    writer.commit(made_conversation(SETTING, "1"), {})
    assert ledger.refresh().row((SETTING.id, "1", 0)) is not None
    writer.commit(made_conversation(SETTING, "2"), {})
    assert sorted(key[1] for key in ledger.refresh().rows()) == ["0", "1", "2"]


def test_a_refresh_after_a_file_was_cut_forgets_what_it_held(tmp_path):
    finish(tmp_path, ("0", 0), ("1", 0))
    ledger = Ledger(tmp_path).refresh()
    path = only(tmp_path, "ledger/*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    assert [key[1] for key in ledger.refresh().rows()] == ["0"]


def test_a_damaged_conversation_is_an_error_when_read_and_says_what_to_do(tmp_path):
    (row,) = finish(tmp_path, ("0", 0))
    path = only(tmp_path, "conversations/*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"Done.", b"Gone."))
    assert not intact(tmp_path, row)
    with pytest.raises(RecordError, match=r"task 0, trial 0 is damaged(.|\n)*Next: Run the cell again"):
        read_conversation(tmp_path, row)


def test_a_voided_row_no_longer_counts_and_a_later_one_does(tmp_path, open_writer):
    (row,) = finish(tmp_path, ("0", 0), finished_at=110.0)
    writer = open_writer(tmp_path)
    writer.void(row, "damaged")
    assert read_ledger(tmp_path) == {}
    writer.commit(made_conversation(SETTING, "0", 0, finished_at=300.0), {})
    assert [row.finished_at for row in read_ledger(tmp_path).values()] == [300.0]


def test_calls_are_held_until_a_conversation_is_committed_and_events_are_not(tmp_path, open_writer):
    writer = open_writer(tmp_path)
    writer.call(CallRecord(role=Role.AGENT, task_id="0", ttft_s=0.25))
    writer.event(Event(kind="start", at=1.0))
    assert list(read_calls(tmp_path)) == []
    assert [event.kind for event in read_events(tmp_path)] == ["start"]
    writer.commit(made_conversation(SETTING), {})
    assert [(call.task_id, call.ttft_s) for call in read_calls(tmp_path)] == [("0", 0.25)]
    writer.call(CallRecord(role=Role.USER, task_id="1"))
    writer.close()
    assert [call.role for call in read_calls(tmp_path)] == [Role.AGENT, Role.USER]


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path, open_writer):
    open_writer(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_tool_calls_are_counted_under_any_strategy(tmp_path, open_writer):
    fc = [
        {"role": "assistant", "tool_calls": [{}, {}]},
        {"role": "tool", "content": "a"},
        {"role": "tool", "content": ""},
    ]
    act = [{"role": "user", "content": "API output: {}"}, {"role": "user", "content": "Hello"}]
    writer = open_writer(tmp_path)
    rows = [writer.commit(made_conversation(SETTING, messages=messages), {}) for messages in (fc, act)]
    assert [row.tool_calls for row in rows] == [2, 1]
    assert writer.commit(made_conversation(SETTING, messages=fc), {"tool_calls": 5}).tool_calls == 5
