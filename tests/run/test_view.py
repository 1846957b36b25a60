from __future__ import annotations

import json

from made_conversations import made_conversation, made_setting

from tautools.records import Outcome
from tautools.run.ledger import read_ledger
from tautools.run.view import write_view

SETTING = made_setting()
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
