from __future__ import annotations

import json
import threading

import pytest
from scripted_server import Say
from served_cells import STOP, scripted_cell

from tautools.llm import Retry
from tautools.records import Outcome
from tautools.run import prepare_cell, read_calls, read_events, read_ledger, run_cell

QUICK = Retry(attempts=2, first_wait_s=0.01, most_wait_s=0.01)
BUSY = Say(status=503, body={"error": {"message": "overloaded, come back"}})


def rewards(folder):
    return {key[1:]: row.reward for key, row in read_ledger(folder).items()}


def events(folder, kind):
    return [event for event in read_events(folder) if event.kind == kind]


def seed_of(run, task_id, trial=0):
    from tautools.bench import conversation_seed

    return conversation_seed(run.seed, task_id, trial)


def test_a_conversation_lost_to_the_infrastructure_is_owed_again_and_never_a_score(tmp_path):
    well = threading.Event()

    def user(request):
        return f"Bye. {STOP}" if well.is_set() or request.body["seed"] != bad else BUSY

    with scripted_cell(user, limit=4, num_trials=2, seed_rule="conversation") as (_, run):
        bad = seed_of(run, "1", 1)
        result = run_cell(run, workspace=tmp_path, retry=QUICK)
        assert (result.done, result.pending, result.faults) == (7, 1, 3)
        assert "3 lost to the infrastructure and not scored" in str(result)
        assert "overloaded, come back" in str(result)
        assert ("1", 1) not in rewards(result.folder)
        lost = events(result.folder, "fault")
        assert [(event.task_id, event.trial, event.data["again"]) for event in lost] == [
            ("1", 1, True),
            ("1", 1, True),
            ("1", 1, False),
        ]
        view = json.loads(result.view.read_text())
        assert len(view) == 7
        assert (1, 1) not in {(each["task_id"], each["trial"]) for each in view}
        failed = [call for call in read_calls(result.folder) if call.fault]
        assert len(failed) == 6, "three conversations of two attempts each"

        well.set()
        again = run_cell(run, workspace=tmp_path)
        assert (again.done, again.pending, again.model_calls) == (8, 0, 1)


def test_a_fault_that_passes_costs_nothing_but_time(tmp_path, caplog):
    seen = []

    def user(request):
        seen.append(request)
        return Say(status=500, body={"error": "oops"}) if len(seen) == 1 else f"Bye. {STOP}"

    with scripted_cell(user, limit=1) as (_, run), caplog.at_level("INFO", logger="tautools.run"):
        result = run_cell(run, workspace=tmp_path, retry=QUICK)
    assert (result.done, result.faults, result.model_calls) == (1, 0, 2)
    assert [event.data["fault"] for event in events(result.folder, "retry")] == ["server_fault"]
    assert any(record.getMessage().startswith("Retrying in 0.0") for record in caplog.records)
    (row,) = read_ledger(result.folder).values()
    assert row.user_calls == 1, "only the call that succeeded counts for the conversation"


def test_a_dead_server_ends_the_run_with_its_cause_and_leaves_the_work_owed(tmp_path):
    with scripted_cell(limit=60, concurrency=4) as (_, run):
        cell = prepare_cell(run, workspace=tmp_path).with_servers()
    result = run_cell(cell, retry=QUICK)
    assert (result.done, result.pending) == (0, 60)
    assert result.faults < 20, "not every conversation is thrown at a dead server"
    assert "model's server does not answer" in str(result)
    assert rewards(result.folder) == {}


@pytest.mark.parametrize("status", [401, 404])
def test_a_fault_that_every_conversation_would_meet_ends_the_run_early(tmp_path, status):
    with scripted_cell(Say(status=status, body={"error": {"message": "no"}}), limit=50, concurrency=2) as (server, run):
        result = run_cell(run, workspace=tmp_path, retry=QUICK)
        assert len(server.requests) < 10
    assert (result.done, result.pending) == (0, 50)


def test_a_user_model_that_fails_is_owed_twice_and_then_recorded_without_a_reward(tmp_path):
    with scripted_cell(Say("", finish_reason="stop"), limit=1) as (server, run):
        result = run_cell(run, workspace=tmp_path)
        assert len({request.body["seed"] for request in server.requests}) == 3, "each time it is drawn anew"
        assert [event.data["times"] for event in events(result.folder, "user_error")] == [1, 2]
        assert (result.done, result.pending, result.faults) == (1, 0, 0)
        (row,) = read_ledger(result.folder).values()
        assert (row.outcome, row.reward) == (Outcome.USER_ERROR, None)
        assert "nothing scored (n = 0; 1 user_error)" in str(result)
        assert run_cell(run, workspace=tmp_path).model_calls == 0


def test_user_errors_are_counted_over_runs(tmp_path):
    said = []

    def user(_request):
        said.append(1)
        return BUSY if len(said) == 2 else ""

    quick = Retry(attempts=1)
    with scripted_cell(user, limit=1) as (_, run):
        first = run_cell(run, workspace=tmp_path, retry=quick)
        second = run_cell(run, workspace=tmp_path, retry=quick)
    assert len(events(first.folder, "user_error")) == 2
    assert (first.done, second.done) == (1, 1)
    assert len(said) == 4


def test_a_user_model_that_recovers_gets_a_score(tmp_path):
    said = []

    def user(_request):
        said.append(1)
        return "" if len(said) < 3 else f"Bye. {STOP}"

    with scripted_cell(user, limit=1) as (_, run):
        result = run_cell(run, workspace=tmp_path)
    (row,) = read_ledger(result.folder).values()
    assert row.outcome in {Outcome.PASSED, Outcome.FAILED}
    assert row.reward is not None


def test_a_time_limit_that_ends_while_a_fault_is_retried_is_the_infrastructures(tmp_path):
    slow = Retry(attempts=5, first_wait_s=0.2, most_wait_s=30)
    with scripted_cell(BUSY, limit=1, limits={"time_s": 0.5}) as (_, run):
        result = run_cell(run, workspace=tmp_path, retry=slow)
    assert (result.done, result.pending) == (0, 1)
    assert rewards(result.folder) == {}, "an overloaded server is nobody's failure"
    assert {event.data["fault"] for event in events(result.folder, "fault")} == {"overloaded"}


def test_time_that_faults_cost_does_not_count_against_the_conversations_limit(tmp_path):
    asked = []

    def user(request):
        asked.append(request)
        if len(asked) % 2:
            return BUSY
        return "Go on." if len(asked) < 10 else f"Bye. {STOP}"

    slow = Retry(attempts=2, first_wait_s=0.4, jitter=0)
    with scripted_cell(user, limit=1, limits={"time_s": 1.5}) as (_, run):
        result = run_cell(run, workspace=tmp_path, retry=slow)
    (row,) = read_ledger(result.folder).values()
    assert row.outcome is Outcome.FAILED
    assert row.duration_s > 1.5, "it lasted longer than its limit, by what the faults cost"
