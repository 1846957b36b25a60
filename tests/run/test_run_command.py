from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from scripted_server import Say
from served_cells import requests_of, scripted_cell, simulated_model

from tautools.cli.run import run_command
from tautools.run import read_calls, read_ledger, results_of


@pytest.fixture(scope="module")
def server():
    with simulated_model() as running:
        yield running


def run(workspace, *args):
    return CliRunner().invoke(run_command, ["--workspace", str(workspace), *map(str, args)])


def flags(base_url, *more, model="sim-4B"):
    usual = {"--env": "retail", "--strategy": "fc", "--model": model, "--base-url": base_url, "--limit": "2"}
    return (*(word for name, value in usual.items() if name not in more for word in (name, value)), *more)


def test_flags_are_enough_no_file_is_needed_and_a_second_run_says_so(tmp_path, server):
    first = run(tmp_path, *flags(server.base_url))
    assert first.exit_code == 0
    assert first.stdout.startswith("2 done, 0 pending\nretail fc sim-4B [SIMULATED]: ")
    asked = requests_of(server)
    again = run(tmp_path, *flags(server.base_url))
    assert again.stdout.startswith("2 done, 0 pending")
    assert "0 model calls" in again.stdout
    assert requests_of(server) == asked


def test_where_nobody_watches_a_bar_the_log_lines_are_printed(tmp_path, server):
    told = run(tmp_path, *flags(server.base_url))
    assert told.stderr.count("[TAU2_TASK_COMPLETE]") == 2
    assert told.stderr.count("OVERALL_ETA") == 2


def test_json_is_all_that_is_printed_when_asked_for(tmp_path, server):
    told = run(tmp_path, *flags(server.base_url, "--json", "--num-trials", 2, "--task-ids", "1,3"))
    result = json.loads(told.stdout)
    assert told.stderr == ""
    assert (result["done"], result["pending"], result["planned"], result["simulated"]) == (4, 0, 4, True)
    rows = read_ledger(tmp_path / "results/retail/fc/4B")
    assert sorted(key[1:] for key in rows) == [("1", 0), ("1", 1), ("3", 0), ("3", 1)]


def test_a_dry_run_tells_the_plan_and_changes_nothing(tmp_path, server):
    asked = requests_of(server)
    told = run(tmp_path, *flags(server.base_url, "--dry-run", "--num-trials", 3))
    assert "2 tasks x 3 trials = 6 conversations" in told.stdout
    assert "0 done, 6 pending" in told.stdout
    assert json.loads(run(tmp_path, *flags(server.base_url, "--dry-run", "--json")).stdout)["pending"] == 2
    assert (requests_of(server), list(tmp_path.iterdir())) == (asked, [])


def test_show_config_tells_where_each_value_came_from(tmp_path, server):
    told = run(tmp_path, *flags(server.base_url, "--show-config", "--set", "agent.temperature=0.2"))
    assert told.exit_code == 0
    (line,) = [line for line in told.stdout.splitlines() if line.startswith("agent.temperature")]
    assert "0.2" in line
    assert "--set" in line


@pytest.mark.parametrize(("rule", "seeds"), [(None, 6), ("conversation", 2), ("none", 0)])
def test_the_seed_rule_is_chosen_told_and_recorded(tmp_path, rule, seeds):
    chosen = ["--seed-rule", rule] if rule else []
    with scripted_cell() as (server, _):
        asked = flags(server.base_url, *chosen, "--limit", "2", "--model", "scripted-4B")
        config = run(tmp_path, *asked, "--show-config").stdout
        assert run(tmp_path, *asked).exit_code == 0
    sent = {request.body.get("seed") for request in server.requests} - {None}
    (line,) = [each for each in config.splitlines() if each.startswith("seed_rule")]
    (folder,) = results_of(tmp_path)
    assert (rule or "request") in line
    assert folder.setting.seed_rule == (rule or "request")
    assert {call.seed for call in read_calls(folder.path)} - {None} == sent
    assert len(sent) == min(seeds, len(server.requests))


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("--env", "retial"), "retail"),
        (("--seed-rule", "turn"), "conversation"),
        (("--strategy", "reakt"), "react"),
        (("--num-trials", "-1"), "num_trials"),
        (("--task-ids", "12345"), "12345"),
        (("--set", "agent.temprature=1"), "temperature"),
        (("--concurrency", "0"), "concurrency"),
    ],
)
def test_bad_input_exits_with_2_and_the_next_step_and_changes_nothing(tmp_path, server, args, told):
    asked = requests_of(server)
    shown = run(tmp_path, *flags(server.base_url, *args))
    assert shown.exit_code == 2
    assert told in shown.stderr
    assert "Next: " in shown.stderr
    assert (requests_of(server), list(tmp_path.iterdir())) == (asked, [])


def test_without_any_model_the_error_says_which_flags_name_one(tmp_path):
    told = run(tmp_path, "--env", "retail")
    assert told.exit_code == 2
    assert "No model was named for the agent." in told.stderr
    assert "--server NAME" in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_server_the_error_says_what_to_start(tmp_path):
    told = run(tmp_path, "--env", "retail", "--model", "Qwen/Qwen3-8B", "--limit", 1)
    assert told.exit_code == 1
    assert "No running server serves 'Qwen/Qwen3-8B'" in told.stderr
    assert "Next: " in told.stderr
    assert list(tmp_path.iterdir()) == []


def test_work_that_is_left_exits_with_3(tmp_path):
    with scripted_cell(Say(status=401, body={"error": "no"})) as (server, _):
        told = run(tmp_path, *flags(server.base_url, model="scripted-4B"))
    assert told.exit_code == 3
    assert told.stdout.startswith("0 done, 2 pending")


def test_what_cannot_be_played_is_told_before_a_server_is_started(tmp_path):
    args = ("--server", "sim-small", "--user-server", "sim-user", "--start-servers")
    for wrong, words in [
        (("--env", "telecom", "--task-ids", "nope"), "no task 'nope' of telecom"),
        (("--env", "banking"), "does not play"),
    ]:
        told = run(tmp_path, *args, *wrong)
        assert told.exit_code == 2
        assert words in told.stderr
        assert "starting" not in told.output
    assert not (tmp_path / "servers").exists()


def test_start_servers_starts_what_is_missing_and_stops_it_after(tmp_path):
    args = ("--env", "retail", "--server", "sim-small", "--user-server", "sim-user", "--limit", 1, "--start-servers")
    told = run(tmp_path, *args)
    assert told.exit_code == 0, told.output
    assert "1 done, 0 pending" in told.stdout
    assert list((tmp_path / "servers").glob("*.json")) == []
    (folder,) = (tmp_path / "results/retail/fc").iterdir()
    assert folder.name == "sim-small"


def test_ctrl_c_in_a_terminal_exits_with_130_and_keeps_what_is_finished(tmp_path):
    def user(_request):
        return Say("never said", first_s=600)

    with scripted_cell(user) as (server, _):
        args = [*flags(server.base_url, model="scripted-4B"), "--grace", "0", "--workspace", str(tmp_path)]
        child = subprocess.Popen(
            [sys.executable, "-m", "tautools", "run", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        while not server.requests:
            time.sleep(0.05)
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        told, _ = child.communicate(timeout=60)
    assert child.returncode == 130
    assert told.startswith("0 done, 2 pending")
    assert "Interrupted; run it again to go on." in told


def test_help_has_examples():
    assert "Examples:" in CliRunner().invoke(run_command, ["--help"]).output
