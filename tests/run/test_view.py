from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from made_conversations import made_conversation, made_setting

from tautools.records import Outcome
from tautools.run.exporters import write_view
from tautools.run.ledger import read_ledger

SETTING = made_setting()
SAMPLE = Path(__file__).resolve().parents[3] / "shared/data/tau_bench_v1/airline_fc_4B_num_trials-3.json.gz"
ORDER = ["0", "1", "2", "10", "[mms]bad"]


def view(folder, num_trials):
    path = write_view(folder, read_ledger(folder).values(), num_trials=num_trials, order=ORDER)
    assert path.name == f"num_trials-{num_trials}.json"
    return json.loads(path.read_text())


def test_the_view_is_tau_benchs_list_in_the_order_of_the_benchmark(tmp_path, open_writer):
    writer = open_writer(tmp_path)
    for task_id, trial in [("10", 0), ("2", 1), ("2", 0), ("[mms]bad", 0), ("0", 0)]:
        writer.commit(made_conversation(SETTING, task_id, trial, reward_info={"db": True}), {})
    results = view(tmp_path, 2)
    assert [(each["task_id"], each["trial"]) for each in results] == [(0, 0), (2, 0), (10, 0), ("[mms]bad", 0), (2, 1)]
    assert all(set(each) == {"task_id", "reward", "info", "traj", "trial"} for each in results)
    assert results[0]["traj"] == made_conversation(SETTING, "0").messages
    assert results[0]["info"]["reward_info"] == {"db": True}


def test_a_view_of_fewer_trials_leaves_the_later_ones_out(tmp_path, open_writer):
    writer = open_writer(tmp_path)
    for trial in range(3):
        writer.commit(made_conversation(SETTING, "0", trial), {})
    assert [each["trial"] for each in view(tmp_path, 1)] == [0]
    assert [each["trial"] for each in view(tmp_path, 3)] == [0, 1, 2]


def test_a_user_error_has_no_reward_in_the_view(tmp_path, open_writer):
    open_writer(tmp_path).commit(
        made_conversation(SETTING, outcome=Outcome.USER_ERROR, reward=None, error="silent"), {}
    )
    (entry,) = view(tmp_path, 1)
    assert (entry["reward"], entry["info"]["outcome"], entry["info"]["error"]) == (None, "user_error", "silent")


def _call(number, name):
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": "{}"}}


CALLED = [
    {"role": "system", "content": "policy"},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "", "tool_calls": [_call(0, "get_user"), _call(1, "get_order")]},
    {"role": "tool", "tool_call_id": "call_0", "content": "a user"},
    {"role": "tool", "tool_call_id": "call_1", "content": "an order"},
    {"role": "assistant", "content": "", "tool_calls": [_call(0, "calculate")]},
    {"role": "tool", "tool_call_id": "call_0", "content": "2"},
]


def test_a_tools_answer_carries_the_tools_name_as_in_tau_bench(tmp_path, open_writer):
    open_writer(tmp_path).commit(made_conversation(SETTING, "0", messages=CALLED), {})
    (entry,) = view(tmp_path, 1)
    assert [message.get("name") for message in entry["traj"] if message["role"] == "tool"] == [
        "get_user",
        "get_order",
        "calculate",
    ]


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the samples of public results are not beside this checkout")
def test_entries_and_messages_have_the_keys_and_kinds_of_a_file_that_tau_bench_wrote(tmp_path, open_writer):
    open_writer(tmp_path).commit(made_conversation(SETTING, "0", messages=CALLED), {})
    (ours,) = view(tmp_path, 1)
    theirs = json.loads(gzip.decompress(SAMPLE.read_bytes()))
    assert {key: type(value) for key, value in ours.items()} == {key: type(value) for key, value in theirs[0].items()}
    for role in ("system", "tool"):
        original = next(message for entry in theirs for message in entry["traj"] if message["role"] == role)
        assert next(message for message in ours["traj"] if message["role"] == role).keys() == original.keys()
