"""Why stored conversations failed, and what other rules say of them: on a real run, without a model."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from served_cells import cell_at, simulated_model

from tautools.cli.analysis import failures_command as failures
from tautools.cli.analysis import rescore_command as rescore
from tautools.records import Conversation, ModelConfig, Outcome, Setting, Strategy, TrajectoryAction
from tautools.run import results_of, run_cell
from tautools.run.ledger import read_conversation
from tautools.run.replays import failures_of
from tautools.run.trajectory import actions_of


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    workspace = tmp_path_factory.mktemp("failed")
    with simulated_model(skill=0.4) as server:
        for strategy in (Strategy.FC, Strategy.ACT, Strategy.REACT):
            run_cell(cell_at(server.base_url, strategy=strategy, limit=12), workspace=workspace)
    return workspace


def called(verb, *args):
    return CliRunner().invoke(verb, [str(arg) for arg in args])


def test_every_failed_conversation_has_a_cause_and_every_passed_one_has_none(results):
    for folder in results_of(results):
        found = list(failures_of(folder))
        assert {(each.row.task_id, each.row.trial) for each in found} == {
            (row.task_id, row.trial) for row in folder.rows() if row.outcome is Outcome.FAILED
        }
        assert found
        assert all(each.causes and each.analysis.scorer_reward == 0 for each in found)
        assert all(each.analysis.missed or each.analysis.missing_information for each in found)


def test_the_same_records_give_the_same_answer(results):
    once, again = (called(failures, "--workspace", results, "--json").output for _ in range(2))
    assert once == again
    told = json.loads(once)
    assert all(each["simulated"] for each in told)
    names = {"fields", "actions", "unexpected_writes", "missing_information", "failed_assertions"}
    assert names <= told[0]["failures"][0]["analysis"].keys()


def test_deeds_are_read_off_messages_where_a_record_does_not_have_them(results):
    for folder in results_of(results):
        for row in folder.rows():
            kept = read_conversation(folder.path, row)
            older = kept.model_copy(update={"actions": []})
            assert [(d.call, json.loads(d.arguments or "{}"), d.text) for d in actions_of(older, folder.setting)] == [
                (d.call, json.loads(d.arguments or "{}"), d.text) for d in kept.actions
            ]


def v1_deeds(text, strategy=Strategy.REACT):
    party = ModelConfig(model="m")
    setting = Setting(bench="tau-bench", source="s", source_version="1", protocol="p", reward_basis="r", env="retail",
                      strategy=strategy, agent=party, user=party)  # fmt: skip
    conversation = Conversation(
        setting_id="x", env="retail", task_id="0", trial=0, outcome=Outcome.FAILED, reward=0.0, seed=0,
        messages=[{"role": "system", "content": "s"}, {"role": "assistant", "content": text}],
        started_at=0, finished_at=1,
    )  # fmt: skip
    return actions_of(conversation, setting)


def test_v1_reads_what_follows_its_last_action():
    assert v1_deeds('Thought:\nhm\nAction:\n{"name": "a", "arguments": {"x": 1}}') == [
        TrajectoryAction(call="a", arguments='{"x": 1}')
    ]
    assert v1_deeds('Action: {"name": "respond", "arguments": {"content": "hi"}}') == [TrajectoryAction(text="hi")]
    assert v1_deeds("Action: one\nAction: two") == [TrajectoryAction(text="two")]
    assert v1_deeds("no action at all") == [TrajectoryAction(text="no action at all")]


def test_the_counts_and_the_single_conversations_are_printed(results):
    told = called(failures, "--workspace", results, "--strategy", "fc")
    assert told.exit_code == 0
    for part in ("SIMULATED", "scored conversations did not pass", "lost by", "reference action", "orders."):
        assert part in told.output
    assert called(failures, "--workspace", results, "--most", "1").output.count("more; --most") >= 1


def test_an_empty_workspace_says_so(tmp_path):
    for verb in (failures, rescore):
        assert called(verb, "--workspace", tmp_path).output.strip() == "Nothing has been run here."
        assert json.loads(called(verb, "--workspace", tmp_path, "--json").output) == []


def test_rules_that_agree_change_nothing_and_a_replay_gives_the_recorded_reward(results):
    found = json.loads(called(rescore, "--workspace", results, "--json").output)
    assert len(found) == 3
    for each in found:
        for one in each["conversations"]:
            assert one["replayed"] == one["recorded"]
            assert one["rules"]["v1"]["reward"] == one["recorded"]
            assert set(one["rules"]) == {"v1", "v2", "inspect", "exact"}


def test_unknown_rules_are_bad_input(results):
    told = called(rescore, "--workspace", results, "--rules", "v1,v3")
    assert told.exit_code == 2
    assert "none of v1, v2, inspect, exact" in told.stderr
