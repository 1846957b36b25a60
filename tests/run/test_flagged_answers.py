"""Answers are looked at while a run goes on: counted, shown in every summary, and a hopeless run is stopped."""

from __future__ import annotations

import contextlib
import json
from collections import Counter

import pytest
from click.testing import CliRunner
from command_line import called
from scripted_server import Say, serve_in_thread
from served_cells import STOP, cell_at, simulated_model
from small_sweep import small_sweep

from tautools.cli.run import run_command
from tautools.records import CallRecord, Outcome, Role
from tautools.run import prepare_cell, read_events, read_ledger, run_cell
from tautools.run.answers import HopelessWatch, flagged_answers, flagged_in_rows

LEFT = '<tool_call>\n{"name": "get_order_details", "arguments": {"order_id": "#W1"}}\n</tool_call>'
HELD = "I have found your order #W2378156. It holds a keyboard and a thermostat; both were delivered on Monday."
NEXT = Say(calls=[("list_all_product_types", {})])


@contextlib.contextmanager
def played(agent, user, **fields):
    """Serve an agent and a customer, each a function of its request's messages; requests with tools are the agent's."""

    def answer(request):
        messages = request.body["messages"]
        return agent(messages) if request.body.get("tools") else user(messages)

    with serve_in_thread(answer, model="scripted-4B") as server:
        yield server, cell_at(server.base_url, "scripted-4B", **fields)


def said(messages, role="assistant"):
    return sum(message["role"] == role for message in messages)


def stops_after(turns):
    return lambda messages: f"Bye. {STOP}" if said(messages) >= turns else f"Question {said(messages)}, please."


def test_what_looks_wrong_is_counted_by_role_and_endpoint_and_the_first_is_shown(tmp_path):
    with played(lambda messages: LEFT if said(messages) else "Who are you?", stops_after(2), limit=2) as (server, run):
        result = run_cell(run, workspace=tmp_path)
        (found,) = result.flagged
        assert (found.role, found.endpoint, found.flag) == ("agent", server.base_url, "unparsed_call:hermes")
        assert (found.count, found.answers) == (2, 4)
        assert (found.first.task_id, found.first.step) == ("0", 1)
        line = (
            "2 of 4 answers of the agent carry an unparsed call: the server lacks --tool-call-parser hermes. First at "
        )
        assert f"{line}{server.base_url}, task 0, trial 0, step 1: '<tool_call> {{" in str(result)
        assert "unparsed" in str(run_cell(run, workspace=tmp_path)), "a finished cell says it too"
    rows = list(read_ledger(result.folder).values())
    assert [row.flags for row in rows] == [{"agent unparsed_call:hermes": 1}] * 2
    (in_short,) = flagged_in_rows(result.folder, rows)
    assert (in_short.count, in_short.answers, in_short.first) == (2, 4, found.first)


def test_the_flags_are_in_json_and_in_show(tmp_path):
    with played(lambda _: "Done.<|im_end|>", stops_after(2), limit=1) as (server, _):
        words = ["--env", "retail", "--model", "scripted-4B", "--base-url", server.base_url, "--limit", "1"]
        told = CliRunner().invoke(run_command, ["--workspace", str(tmp_path), *words, "--json"])
    result = json.loads(told.stdout)
    assert result["flagged"][0]["flag"] == "leaked_marker"
    assert result["flagged"][0]["claim"] == "2 of 2 answers of the agent have a marker of the format left in the text"
    first = {"endpoint": server.base_url, "task_id": "0", "trial": 0, "step": 0, "flagged_text": "Done.<|im_end|>"}
    assert result["flagged"][0]["first"] == first
    shown = called("show", "--workspace", str(tmp_path), "--env", "retail").out
    assert "2 of 2 answers of the agent have a marker" in " ".join(shown.split())


def test_a_run_in_which_no_call_is_ever_parsed_is_stopped_with_that_cause(tmp_path):
    with played(lambda _: LEFT, stops_after(50), limit=6, concurrency=3) as (server, run):
        result = run_cell(run, workspace=tmp_path)
        assert 10 <= len(server.requests) < 40, "and not six conversations of a hundred requests"
    assert (result.done, result.pending) == (0, 6)
    assert result.cause.startswith("Stopped: 10 of 10 answers of the agent carry an unparsed call: the server lacks")
    assert "--set stop_hopeless=false" in str(result)
    assert (result.flagged[0].count, result.flagged[0].answers) == (10, 10), "the last calls are in it"
    assert not result.faults
    assert not result.interrupted
    assert [event.data["flag"] for event in read_events(result.folder, "hopeless")] == ["unparsed_call:hermes"]
    with played(lambda messages: NEXT if said(messages) == 0 else "It is done.", stops_after(2), limit=6) as (_, run):
        again = run_cell(run, workspace=tmp_path)
    assert (again.done, again.pending) == (6, 0), "nothing was lost: it goes on where it was"


def test_a_stopped_run_exits_like_an_unfinished_one_and_keeps_what_is_finished(tmp_path):
    def user(messages):
        first = "Yusuf" in messages[0]["content"] and tasks_done["n"] < 1
        tasks_done["n"] += first
        return f"Bye. {STOP}" if first else stops_after(50)(messages)

    tasks_done = {"n": 0}
    with played(lambda _: LEFT, user, limit=6) as (server, _):
        words = ["--env", "retail", "--model", "scripted-4B", "--base-url", server.base_url, "--limit", "6"]
        told = CliRunner().invoke(run_command, ["--workspace", str(tmp_path), *words, "--set", "concurrency=3"])
    assert told.exit_code == 3
    assert "1 done, 5 pending" in told.stdout
    assert "Stopped: 1" in told.stdout
    planned = CliRunner().invoke(run_command, ["--workspace", str(tmp_path), *words, "--dry-run"]).stdout
    assert "stops early" in planned


def test_a_person_may_let_it_run_on(tmp_path):
    with played(lambda _: LEFT, stops_after(5), limit=4, stop_hopeless=False) as (_, run):
        result = run_cell(run, workspace=tmp_path)
    assert (result.done, result.pending, result.flagged[0].count) == (4, 0, 20)
    assert (
        result.setting.id == prepare_cell(run.model_copy(update={"stop_hopeless": True}), workspace=tmp_path).setting.id
    )


def test_one_parsed_call_refutes_it_and_so_do_words(tmp_path):
    def agent(messages):
        return NEXT if messages[-1]["content"] == "Question 0, please." else LEFT

    with played(agent, stops_after(5), limit=4) as (_, run):
        result = run_cell(run, workspace=tmp_path)
    assert result.pending == 0
    assert "others were parsed" in str(result)


def test_an_agent_that_says_nothing_at_all_stops_the_run(tmp_path):
    with played(lambda _: Say(""), stops_after(50), limit=5, concurrency=5) as (_, run):
        result = run_cell(run, workspace=tmp_path)
    assert result.pending == 5
    assert "10 of 10 answers of the agent are empty" in result.cause


def test_a_customer_that_repeats_the_agent_word_for_word_is_a_user_error_in_every_summary(tmp_path):
    def user(messages):
        return messages[-1]["content"] if said(messages) else "Where is my order?"

    with played(lambda _: HELD, user, limit=2) as (_, run):
        result = run_cell(run, workspace=tmp_path)
    assert result.outcomes == Counter({Outcome.USER_ERROR: 2})
    assert result.user_errors == 4
    text = str(result)
    assert "nothing scored (n = 0; 2 user_error)" in text
    assert "4 attempts ended in a user_error" in text
    rows = list(read_ledger(result.folder).values())
    assert all(row.reward is None and row.error.startswith("The user repeated the agent's words") for row in rows)
    assert "2 (2 user_error)" in called("show", "--workspace", str(tmp_path)).out
    assert "2 (2 user_error) finished" in called("show", "--workspace", str(tmp_path), "--env", "retail").out


@pytest.mark.parametrize("answer", ["ok", "Yes, please.", "Thank you! Have a great day!"])
def test_short_words_may_be_the_same_as_the_agents(tmp_path, answer):
    def user(messages):
        return answer if said(messages) < 4 else STOP

    with played(lambda _: answer, user, limit=1) as (_, run):
        result = run_cell(run, workspace=tmp_path)
    assert (result.user_errors, result.flagged) == (0, [])
    assert result.outcomes[Outcome.USER_ERROR] == 0


def test_a_simulated_run_has_no_flags(tmp_path):
    with simulated_model(skill=0.6) as server:
        for env, strategy in [*(("retail", each) for each in ("fc", "act", "react", "experts")), ("airline", "fc")]:
            result = run_cell(cell_at(server.base_url, env=env, strategy=strategy, limit=25), workspace=tmp_path)
            assert [str(found) for found in result.flagged] == []


def test_what_is_hopeless_is_decided_for_each_role_and_endpoint():
    def watched(*answers):
        watch = HopelessWatch()
        found = None
        for number, (flag, fields) in enumerate(answers):
            usual = {"role": Role.AGENT, "task_id": str(number % 5), "endpoint": "a", "turn": 1}
            found = watch.call(CallRecord(**(usual | fields), flags=(flag,) if flag else ())) or found
        return found and (found.role, found.endpoint, found.flag, found.count)

    hermes = "unparsed_call:hermes"
    assert watched(*[(hermes, {})] * 10) == ("agent", "a", hermes, 10)
    assert watched(*[(hermes, {})] * 9) is None
    assert watched(*[(hermes, {"task_id": "0"})] * 20) is None, "one conversation proves nothing"
    assert watched(*[(hermes, {"fault": "server"})] * 20) is None
    assert watched(("", {"tool_calls": 1}), *[(hermes, {})] * 20) is None
    assert watched(*[("", {}), (hermes, {})] * 10) == ("agent", "a", hermes, 10), "words between are no calls"
    assert watched(("", {"tool_calls": 1, "endpoint": "b"}), *[(hermes, {})] * 10)[1] == "a"
    assert watched(*[("empty", {"role": Role.USER})] * 10) == ("user", "a", "empty", 10)
    assert watched(("", {}), *[("empty", {})] * 20) is None
    echoes = [("echo", {"role": Role.USER})] * 10
    assert watched(("", {"role": Role.USER, "turn": 0}), *echoes) == ("user", "a", "echo", 10)
    assert watched(("", {"role": Role.USER}), *echoes) is None
    assert watched(*[("cut", {})] * 30) is None
    assert watched(*[("repeated", {})] * 30) is None


def test_faults_are_no_answers_and_experts_have_their_name():
    calls = [
        CallRecord(role=Role.EXPERT, expert="quick", endpoint="a", flags=("cut",), started_at=2.0),
        CallRecord(role=Role.EXPERT, expert="quick", endpoint="a", flags=("cut",), started_at=1.0, step=7),
        CallRecord(role=Role.EXPERT, expert="quick", endpoint="b"),
        CallRecord(role=Role.AGENT, endpoint="a", fault="server", flags=("cut",)),
    ]
    (found,) = flagged_answers(calls)
    assert str(found).startswith("2 of 2 answers of the expert quick were cut off by the limit of tokens: raise")
    assert found.first.step == 7


def test_an_older_record_is_read():
    record = CallRecord.model_validate_json('{"schema_version": 2, "role": "agent"}')
    assert (record.flags, record.flagged_text, record.tool_calls) == ((), "", 0)


def test_a_sweep_says_it_in_its_status(tmp_path, monkeypatch):
    with played(lambda messages: LEFT if said(messages) else "Hello.", stops_after(3)) as (server, run):
        role = {"model": "scripted-4B", "base_url": server.base_url}
        sweep = small_sweep(tmp_path, grid={"env": ["retail"], "strategy": ["fc"], "agent": [role], "num_trials": [1]},
                            user=role)  # fmt: skip
        run_cell(run.model_copy(update={"tasks": sweep.tasks, "limits": sweep.limits, "seed": sweep.seed}),
                 workspace=tmp_path)  # fmt: skip
    from tautools.sweep import sweep_status

    status = sweep_status(sweep, workspace=tmp_path)
    assert "answers of the agent carry an unparsed call" in str(status)
    assert status.notes[0].startswith("cell 0, 1: ") or status.notes[0].startswith("cell 0: ")
    assert "lacks --tool-call-parser hermes" in status._repr_html_()
    assert "&lt;tool_call&gt;" in status._repr_html_()
