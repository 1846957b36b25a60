"""`tautools export`: conversations in tau2-bench's and in tau-bench's format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime

import pytest
from click.testing import CliRunner
from made_conversations import made_conversation, made_setting
from served_cells import simulated_model
from stand_in import STAND_IN

from tautools.cli.results import export_command
from tautools.cli.run import run_command
from tautools.records import CallRecord, Outcome, Role, Strategy, TrajectoryAction
from tautools.run.exporters.tau2 import trajectory
from tautools.run.folder import claim_folder
from tautools.run.ledger import read_ledger
from tautools.stats import pass_hat_k

CHECKOUT, PYTHON = (os.environ.get(f"TAUTOOLS_TAU2_BENCH_{name}", "") for name in ("PATH", "PYTHON"))
SETTING = made_setting()
PLACE = ["--source", "tau2-bench", "--path", str(STAND_IN), "--python", sys.executable]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with results of both sources of tau2, and of a text strategy."""
    made = tmp_path_factory.mktemp("exported")
    with simulated_model(skill=1) as server:
        for args in (
            ["--env", "airline", "--strategy", "fc", "--limit", "6", "--num-trials", "3"],
            ["--env", "retail", "--strategy", "react", "--limit", "3"],
            ["--env", "library", "--strategy", "fc", *PLACE],
        ):
            given = ["--workspace", str(made), "--model", "sim-4B", "--base-url", server.base_url, *args]
            assert CliRunner().invoke(run_command, given).exit_code == 0
    return made


def export(workspace, *args):
    return CliRunner().invoke(export_command, ["--workspace", str(workspace), *map(str, args)])


def results(workspace, env, **told):
    out = workspace / "out" / f"{env}.json"
    done = export(workspace, "--env", env, "--out", out)
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text())


def test_each_setting_is_written_beside_its_results_and_told(workspace):
    told = export(workspace)
    lines = told.stdout.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "18 conversations [SIMULATED]",
        "4 conversations [SIMULATED]",
        "3 conversations [SIMULATED]",
    ]
    assert (workspace / "results/airline/fc/4B/tau2_results.json").is_file()


def test_what_is_finished_has_tau2_benchs_form(workspace):
    told = results(workspace, "airline")
    assert set(told) == {"timestamp", "info", "tasks", "simulations"}
    assert told["info"]["num_trials"] == 3
    assert told["info"]["git_commit"].endswith(", SIMULATED")
    assert told["info"]["agent_info"] == {"implementation": "llm_agent", "llm": "sim-4B", "llm_args": {}}
    assert [task["id"] for task in told["tasks"]] == ["0", "1", "2", "3", "4", "5"]
    assert len(told["simulations"]) == 18
    run = told["simulations"][0]
    assert (run["task_id"], run["trial"], run["termination_reason"]) == ("0", 0, "user_stop")
    assert set(run["reward_info"]["reward_breakdown"]) == {"DB", "COMMUNICATE"}
    assert run["reward_info"]["reward_basis"] == ["DB", "COMMUNICATE"]
    assert (run["seed"], run["info"]["seed_rule"]) == (None, "request"), "there a seed is what each request carried"
    times = [message["timestamp"] for message in run["messages"]]
    assert times == sorted(times)
    assert run["start_time"] <= times[0] <= times[-1] <= run["end_time"]
    assert datetime.fromisoformat(times[0]).tzinfo is None
    asked = [m for m in run["messages"] if m["role"] == "assistant"]
    assert all(m["usage"]["prompt_tokens"] > 0 and m["generation_time_seconds"] > 0 for m in asked)
    assert [m["turn_idx"] for m in run["messages"]] == list(range(len(times)))


def test_an_action_of_a_text_strategy_becomes_a_call(workspace):
    told = results(workspace, "retail")
    assert told["info"]["agent_info"]["implementation"] == "tautools_react"
    messages = told["simulations"][0]["messages"]
    called = [index for index, m in enumerate(messages) if m.get("tool_calls")]
    assert called
    for index in called:
        call, result = messages[index]["tool_calls"][0], messages[index + 1]
        assert (result["role"], result["id"], messages[index]["content"]) == ("tool", call["id"], None)
        assert "Action:" in messages[index]["raw_data"]["content"]
        assert not result["content"].startswith("API output")


def test_a_checkout_s_own_score_is_written_as_it_was(workspace):
    told = results(workspace, "library")
    by_task = {run["task_id"]: run for run in told["simulations"]}
    assert by_task["lend"]["messages"][0]["content"] == "Welcome to the library."
    assert by_task["lend"]["messages"][0].get("usage") is None
    assert by_task["judged"]["reward_info"]["reward_breakdown"] == {"DB": 1.0}
    assert told["tasks"][0]["user_scenario"] == "You want to borrow Moby Dick."


def test_v1s_list_is_the_view(workspace):
    folder = workspace / "results/airline/fc/4B"
    out = workspace / "out" / "v1.json"
    assert export(workspace, folder, "--format", "tau-bench", "--out", out).exit_code == 0
    assert json.loads(out.read_text()) == json.loads((folder / "num_trials-3.json").read_text())
    fewer = json.loads(export(workspace, folder, "--num-trials", 1, "--out", out, "--json").stdout)
    assert [(each["conversations"], each["format"], each["simulated"]) for each in fewer] == [(6, "tau2", True)]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--out", "one.json"], ["3 settings do not fit into one file", "--env"]),
        (["--env", "telecom"], ["No results of env telecom"]),
        (["--env", "airline", "--out", "."], [". is a folder"]),
        (["--format", "csv"], ["'csv' is not one of"]),
    ],
)
def test_bad_input_is_refused(workspace, args, told, monkeypatch):
    monkeypatch.chdir(workspace)
    refused = export(workspace, *args)
    assert refused.exit_code == 2
    assert all(each in refused.stderr for each in told), refused.stderr


def test_an_empty_workspace_says_what_to_do(tmp_path):
    refused = export(tmp_path)
    assert (refused.exit_code, "Nothing has been run here" in refused.stderr) == (2, True)


ENDED = {
    Outcome.STEP_LIMIT: "max_steps",
    Outcome.TIME_LIMIT: "timeout",
    Outcome.CONTEXT_OVERFLOW: "context_window_exceeded",
    Outcome.AGENT_ERROR: "too_many_errors",
    Outcome.USER_ERROR: "user_error",
}


def test_every_end_has_its_reason_and_a_fault_of_the_customer_is_told(tmp_path, open_writer):
    folder = claim_folder(tmp_path / "results", SETTING, {}).path
    writer = open_writer(folder)
    for number, outcome in enumerate(ENDED):
        reward = None if outcome is Outcome.USER_ERROR else 0.0
        writer.commit(made_conversation(SETTING, str(number), outcome=outcome, reward=reward, error="why"), {})
    told = export(tmp_path)
    assert "1 ended in a user_error, which tau2-bench's metrics count as 0" in told.stdout
    runs = json.loads((folder / "tau2_results.json").read_text())["simulations"]
    assert [run["termination_reason"] for run in runs] == list(ENDED.values())
    assert {run["reward_info"]["reward"] for run in runs} == {0.0}
    assert "why" in runs[0]["reward_info"]["info"]["note"]


def test_results_of_v1_have_no_form_in_tau2(tmp_path, open_writer):
    setting = made_setting(bench="tau-bench", source="tau-bench", split="test")
    open_writer(claim_folder(tmp_path / "results", setting, {}).path).commit(made_conversation(setting), {})
    refused = export(tmp_path)
    assert (refused.exit_code, "--format tau-bench" in refused.stderr) == (2, True)
    assert export(tmp_path, "--format", "tau-bench").exit_code == 0


def call(name, number=0):
    return {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": '{"a": 1}'}}


def test_the_calls_of_both_sides_stand_where_they_were_made():
    held = made_conversation(
        SETTING,
        messages=[
            {"role": "system", "content": "policy"},
            {"role": "assistant", "content": "Hi!"},
            {"role": "user", "content": "It is on."},
            {"role": "assistant", "content": "I look.", "tool_calls": [call("look", 0), call("read", 1)]},
            {"role": "tool", "tool_call_id": "c0", "content": "Error: no"},
            {"role": "tool", "tool_call_id": "c1", "content": "yes"},
            {"role": "assistant", "content": "And now?"},
        ],
        user_messages=[
            {"role": "system", "content": "scenario"},
            {"role": "user", "content": "Hi!"},
            {"role": "assistant", "content": "", "tool_calls": [call("press")]},
            {"role": "tool", "tool_call_id": "c0", "content": "On."},
            {"role": "assistant", "content": "It is on."},
            {"role": "user", "content": "And now?"},
            {"role": "assistant", "content": "", "tool_calls": [call("press", 5)]},
            {"role": "tool", "tool_call_id": "c5", "content": "Off."},
        ],
        actions=[
            TrajectoryAction(text="Hi!"),
            TrajectoryAction(by="user", call="press"),
            TrajectoryAction(call="look", error=True),
            TrajectoryAction(call="read"),
            TrajectoryAction(text="And now?"),
            TrajectoryAction(by="user", call="press", error=True),
        ],
    )
    asked = [
        CallRecord(role=role, started_at=at, e2e_s=0.5, prompt_tokens=9, output_tokens=step, fault=fault)
        for role, at, step, fault in (
            (Role.USER, 50.0, 0, ""),  # of an attempt that was lost
            (Role.USER, 101.0, 1, "unreachable"),
            (Role.USER, 101.0, 1, ""),
            (Role.USER, 102.0, 2, ""),
            (Role.USER, 106.0, 3, ""),
            (Role.AGENT, 103.0, 4, ""),
            (Role.AGENT, 105.0, 5, ""),
        )
    ]
    told = trajectory(held, Strategy.FC, asked)
    assert [(m["role"], m.get("requestor"), m["content"]) for m in told] == [
        ("assistant", None, "Hi!"),
        ("user", None, None),
        ("tool", "user", "On."),
        ("user", None, "It is on."),
        ("assistant", None, "I look."),
        ("tool", "assistant", "Error: no"),
        ("tool", "assistant", "yes"),
        ("assistant", None, "And now?"),
        ("user", None, None),
        ("tool", "user", "Off."),
    ]
    assert told[1]["tool_calls"] == [{"id": "c0", "name": "press", "arguments": {"a": 1}, "requestor": "user"}]
    assert [m["error"] for m in told if m["role"] == "tool"] == [False, True, False, True]
    assert [m["usage"]["completion_tokens"] for m in told if m.get("usage")] == [1, 2, 4, 5, 3]
    assert "usage" not in told[0], "nobody was asked for the greeting"


def test_a_message_whose_request_is_not_known_has_no_figures():
    told = trajectory(made_conversation(SETTING), Strategy.FC, [])
    assert all("usage" not in message for message in told)
    assert [message["timestamp"] for message in told] == sorted(message["timestamp"] for message in told)


READ = """
import json, sys
sys.path.insert(0, sys.argv[1] + "/src")
from pathlib import Path
from tau2.data_model.simulation import Results
from tau2.metrics.agent_metrics import compute_metrics
metrics = compute_metrics(Results.load(Path(sys.argv[2])))
print(json.dumps([metrics.total_simulations, metrics.total_tasks, metrics.pass_hat_ks]))
"""


@pytest.mark.skipif(not PYTHON, reason="TAUTOOLS_TAU2_BENCH_PYTHON names no Python that tau2-bench runs on")
@pytest.mark.parametrize("source", [[], ["--source", "tau2-bench", "--path", CHECKOUT, "--python", PYTHON]])
@pytest.mark.parametrize("env", ["airline", "telecom"])
def test_tau2_benchs_own_classes_read_it_and_its_metrics_are_ours(tmp_path, source, env):
    given = ["--workspace", tmp_path, "--env", env, "--strategy", "fc", "--limit", 6, "--num-trials", 3, *source]
    with simulated_model(skill=0.6) as server:
        run = [*map(str, given), "--model", "sim-4B", "--base-url", server.base_url]
        assert CliRunner().invoke(run_command, run).exit_code == 0
    assert export(tmp_path).exit_code == 0
    folder = tmp_path / "results" / env / "fc" / "4B"
    env_of_its_own = {"PATH": os.environ["PATH"], "LOGURU_LEVEL": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    told = subprocess.run(
        [PYTHON, "-c", READ, CHECKOUT, str(folder / "tau2_results.json")],
        capture_output=True,
        text=True,
        check=False,
        env=env_of_its_own,
    )
    assert told.returncode == 0, told.stderr
    simulations, tasks, pass_hat_ks = json.loads(told.stdout.splitlines()[-1])
    rows = read_ledger(folder).values()
    counts = {task: sum(row.reward == 1 for row in rows if row.task_id == task) for task in {r.task_id for r in rows}}
    ours = {str(k): sum(pass_hat_k(3, c, k) for c in counts.values()) / len(counts) for k in (1, 2, 3)}
    assert (simulations, tasks) == (18, 6)
    assert pass_hat_ks == pytest.approx(ours)
    if env == "airline":
        assert 0 < ours["3"] < 1, "a figure that could have been otherwise"
