from __future__ import annotations

from made_conversations import made_setting

from tautools.bench.types import ReferenceAction, Task
from tautools.records import CallRecord, CommitRow, ConversationLocation, Role
from tautools.run.scheduler import DeadServerWatch, DurationEstimate
from tautools.run.worker import CallCounts

SETTING = made_setting()
PLACE = ConversationLocation(file="x", offset=0, length=1, sha256="")


def task(task_id, actions):
    return Task(task_id, "", tuple(ReferenceAction("look", {}) for _ in range(actions)))


def row(task_id, took_s, trial=0):
    return CommitRow(
        setting_id=SETTING.id,
        env="retail",
        task_id=task_id,
        trial=trial,
        outcome="passed",
        reward=1.0,
        started_at=50.0,
        finished_at=50.0 + took_s,
        location=PLACE,
        writer="w",
    )


def test_before_anything_ran_more_reference_actions_mean_longer():
    expect = DurationEstimate([task("a", 2), task("b", 9), task("c", 0)], [])
    assert sorted("abc", key=expect.seconds) == ["c", "a", "b"]
    assert expect.eta_s({"a": 1}, 4) is None


def test_what_was_measured_in_any_trial_goes_before_the_guess():
    expect = DurationEstimate([task("a", 0), task("b", 9)], [row("a", 100.0, 0), row("a", 140.0, 3), row("b", 13.0)])
    assert (expect.seconds("a"), expect.seconds("b")) == (120.0, 13.0)


def test_tasks_that_never_ran_are_scaled_by_those_that_did():
    expect = DurationEstimate([task("a", 6), task("b", 16)], [row("a", 20.0)])
    assert expect.seconds("b") == 40.0


def test_the_estimate_shares_the_work_and_never_undercuts_the_longest():
    expect = DurationEstimate([task("a", 0), task("b", 0)], [row("a", 10.0), row("b", 30.0)])
    assert expect.eta_s({"a": 4, "b": 2}, 2) == 50.0
    assert expect.eta_s({"a": 1, "b": 1}, 8) == 30.0
    assert expect.eta_s({}, 8) == 0.0


def call(role=Role.AGENT, fault="", task_id="1", **more):
    return CallRecord(role=role, task_id=task_id, fault=fault, **more)


def test_only_calls_that_succeeded_count_for_a_conversation():
    counts = CallCounts()
    for record in (
        call(prompt_tokens=100, cached_tokens=60, output_tokens=7),
        call(fault="overloaded"),
        call(Role.USER, prompt_tokens=50, output_tokens=3),
        call(task_id="2"),
    ):
        counts.add(record)
    assert counts.pop(("1", 0)) == {
        "agent_calls": 1,
        "user_calls": 1,
        "prompt_tokens": 150,
        "cached_tokens": 60,
        "output_tokens": 10,
    }
    assert counts.pop(("1", 0)) == {}
    assert counts.total == 4


def test_a_dead_user_model_is_noticed_although_the_agent_answers():
    watch = DeadServerWatch(hopeless_limit=3, limit=10)
    told = []
    for number in range(3):
        watch.call(call(task_id=str(number)))
        watch.call(call(Role.USER, "unreachable", str(number)))
        told.append(watch.faulted((str(number), 0), "unreachable"))
    assert told[:2] == ["", ""]
    assert "user model's server does not answer" in told[2]


def test_an_answer_between_two_faults_means_the_server_lives():
    watch = DeadServerWatch(hopeless_limit=2, limit=10)
    for number in range(20):
        watch.call(call(fault="unreachable", task_id=str(number)))
        assert watch.faulted((str(number), 0), "unreachable") == ""
        watch.call(call(task_id="other"))


def test_faults_that_may_pass_need_more_of_them():
    watch = DeadServerWatch(hopeless_limit=2, limit=4)
    told = [watch.faulted((str(number), 0), "overloaded") for number in range(4)]
    assert [bool(cause) for cause in told] == [False, False, False, True]
