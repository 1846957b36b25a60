from __future__ import annotations

import json

import pytest
from foreign_files import simulation, tau2_results, write

from tautools.importers import RowStatus, read_files
from tautools.records import Outcome


def read(path):
    (file,), refused = read_files([path])
    assert not refused
    return file


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (RowStatus.KEPT, Outcome.PASSED, 1.0)),
        ({"termination_reason": "agent_stop", "reward": 0.0}, (RowStatus.KEPT, Outcome.FAILED, 0.0)),
        ({"termination_reason": "max_steps", "reward": 0.0}, (RowStatus.KEPT, Outcome.STEP_LIMIT, 0.0)),
        ({"termination_reason": "max_steps", "reward": None}, (RowStatus.KEPT, Outcome.STEP_LIMIT, 0.0)),
        ({"termination_reason": "timeout", "reward": None}, (RowStatus.KEPT, Outcome.TIME_LIMIT, 0.0)),
        ({"termination_reason": "too_many_errors"}, (RowStatus.KEPT, Outcome.AGENT_ERROR, 0.0)),
        ({"termination_reason": "context_window_exceeded"}, (RowStatus.KEPT, Outcome.CONTEXT_OVERFLOW, 0.0)),
        ({"termination_reason": "infrastructure_error", "reward": None}, (RowStatus.INFRA, None, None)),
        ({"termination_reason": "unexpected_error"}, (RowStatus.ERROR, None, None)),
        ({"termination_reason": "user_error"}, (RowStatus.ERROR, None, None)),
        ({"termination_reason": "moonlight"}, (RowStatus.UNREADABLE, None, None)),
        ({"reward": None}, (RowStatus.NO_SCORE, None, None)),
        ({"messages": None}, (RowStatus.UNREADABLE, None, None)),
        ({"messages": []}, (RowStatus.UNREADABLE, None, None)),
    ],
)
def test_how_a_simulation_ended_is_an_outcome_or_a_fault(tmp_path, changes, expected):
    (found,) = read(write(tmp_path / "r.json", tau2_results([simulation(**changes)]))).rows
    assert (found.status, found.outcome, found.reward) == expected


def test_messages_take_openais_form_and_calls_and_tokens_are_counted(tmp_path):
    (found,) = read(write(tmp_path / "r.json", tau2_results([simulation()]))).rows
    call = found.messages[2]["tool_calls"][0]
    assert call == {
        "id": "c",
        "type": "function",
        "function": {"name": "get_order_details", "arguments": '{"order_id": "1"}'},
    }
    assert found.messages[3] == {"role": "tool", "tool_call_id": "c", "content": "{}"}
    assert [(action.call, action.text) for action in found.actions] == [
        ("", "Hi! How can I help you today?"),
        ("get_order_details", ""),
        ("", "Done."),
    ]
    counts = {"agent_calls": 2, "user_calls": 2, "tool_calls": 1, "prompt_tokens": 30, "output_tokens": 7}
    assert (found.counts, found.finished_at - found.started_at) == (counts, 30.0)


def test_what_the_customer_does_itself_is_a_deed_and_not_the_agents_to_see(tmp_path):
    said = [
        {"role": "user", "content": None, "tool_calls": [{"id": "u", "name": "toggle", "arguments": {}}]},
        {"role": "tool", "id": "u", "content": "on", "requestor": "user"},
        {"role": "user", "content": "It is on."},
    ]
    (found,) = read(write(tmp_path / "r.json", tau2_results([simulation(messages=said)]))).rows
    assert found.messages == [{"role": "user", "content": "It is on."}]
    assert [(action.by, action.call) for action in found.actions] == [("user", "toggle")]


def test_times_that_no_message_bears_out_are_not_believed(tmp_path):
    scrubbed = [{"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Bye. ###STOP###"}]
    (found,) = read(write(tmp_path / "r.json", tau2_results([simulation(messages=scrubbed)]))).rows
    assert (found.started_at, found.finished_at) == (None, None)


def test_models_are_named_without_the_ways_to_reach_them(tmp_path):
    facts = read(write(tmp_path / "r.json", tau2_results([]))).facts
    assert (facts.params["agent.model"], facts.params["agent.temperature"], facts.params["user.model"]) == (
        "m-4B",
        0.2,
        "u-32B",
    )
    assert (facts.protocol, facts.source_version, facts.params["env"]) == ("tau2-bench", "abc", "retail")


def test_another_agent_than_the_usual_one_is_another_protocol(tmp_path):
    results = tau2_results([])
    results["info"]["agent_info"]["implementation"] = "llm_agent_solo"
    assert read(write(tmp_path / "r.json", results)).facts.protocol == "tau2-bench llm_agent_solo user_simulator"


def test_the_folder_layout_is_one_source_with_a_hash_over_all_its_files(tmp_path):
    head = tau2_results([], simulation_index=[{"id": "a"}, {"id": "b"}, {"id": "c"}])
    write(tmp_path / "run" / "results.json", head)
    write(tmp_path / "run" / "simulations" / "a.json", simulation("0"))
    write(tmp_path / "run" / "simulations" / "b.json", simulation("1"))
    file = read(tmp_path)
    assert [found.task_id for found in file.rows] == ["0", "1"]
    assert "its index names 3 simulations, 2 are there" in file.notes
    before = file.sha256
    write(tmp_path / "run" / "simulations" / "b.json", simulation("1", reward=0.0))
    assert read(tmp_path / "run" / "results.json").sha256 != before


def test_a_torn_results_file_gives_the_simulations_before_the_end(tmp_path):
    text = json.dumps(tau2_results([simulation("0"), simulation("1"), simulation("2")]))
    file = read(write(tmp_path / "r.json", text[:-60]))
    assert [found.status for found in file.rows] == [RowStatus.KEPT, RowStatus.KEPT, RowStatus.UNREADABLE]
    assert file.facts.params["agent.model"] == "m-4B"
    assert file.notes == ["cut off within its simulations"]
